"""Maps of how alike all layers of all iterations are, by prompt, and their diagonal bands."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from looplens.analysis.algebra.inputs import whole_number
from looplens.analysis.analyzers._analyzer import (
    Analyzer,
    Source,
    Summary,
    has_layers,
    labelled,
    needs_states,
    over_known,
)
from looplens.analysis.measures.similarity import (
    attention_distance,
    band_contrast,
    depth_similarity_of,
)
from looplens.errors import CorruptRunError, InputError

if TYPE_CHECKING:
    from looplens.store import StoredRun

_BYTES_OF_PATTERNS = 2**28
_BYTES_OF_STATES = 2**27


@dataclass(frozen=True, kw_only=True, slots=True)
class _Plan:
    """Which prompts and iterations are compared, of which restart."""

    prompts: tuple[int, ...]
    iterations: NDArray[np.int64]  # places on the axis of kept iterations
    restart: int


def needs(run: StoredRun) -> str | None:
    """Ask for the residual stream after the layers, over at least two iterations."""
    if not has_layers(run):
        return "The maps need the site 'resid_post'. Record with sites=('resid_post',)."
    if len(run.kept_iterations) < 2:
        return "The maps compare iterations, and this run keeps one. Record with more of them."
    return needs_states(run)


def plan(
    source: Source, *, map_points: int = 128, map_prompts: int = 8, map_restart: int = 0
) -> _Plan:
    """Choose prompts, those with recorded attention first, and iterations.

    Parameters
    ----------
    source : Source
        The run.
    map_points : int
        Most rows of a map. Where layers times iterations are more, all layers of evenly spaced
        iterations are taken, the last one among them.
    map_prompts : int
        How many prompts get maps.
    map_restart : int
        Which restart.
    """
    run = source.run
    most = whole_number(map_points, "map_points", least=2)
    whole_number(map_prompts, "map_prompts", least=1)
    whole_number(map_restart, "map_restart", least=0)
    if map_restart >= run.restarts:
        raise InputError(
            f"map_restart must be one of the {run.restarts} restarts, counted from 0; got "
            f"{map_restart}."
        )
    kept, layers = len(run.kept_iterations), len(run.recorded_layers)
    step = math.ceil(kept / max(2, most // layers))
    iterations = np.arange(kept)[::-step][::-1]
    recorded = [
        prompt
        for prompt in range(run.n_prompts)
        if (there := source.coverage.recorded[run.token_range(prompt)]).size and there.all()
    ]
    mapped = sorted(recorded, key=lambda prompt: prompt not in run.attention_prompts)
    prompts = tuple(sorted(mapped[:map_prompts]))
    return _Plan(prompts=prompts, iterations=iterations, restart=map_restart)


def build(source: Source, plan: _Plan, arrays: dict[str, np.ndarray]) -> xr.Dataset:
    """Compare states and attention of each of the prompts."""
    run, layers = source.run, len(source.run.recorded_layers)
    depths = layers * len(plan.iterations)
    names = ("state_cosine", "state_distance", "attention_distance")
    maps = {name: np.full((len(plan.prompts), depths, depths), np.nan) for name in names}
    for place, prompt in enumerate(plan.prompts):
        tokens = run.token_range(prompt)
        try:
            found = depth_similarity_of(_states(run, tokens, plan))
            maps["state_cosine"][place] = found.cosine
            maps["state_distance"][place] = found.distance
            if prompt in run.attention_prompts:
                maps["attention_distance"][place] = _attention(run, prompt, plan)
        except CorruptRunError as error:
            for values in maps.values():
                values[place] = np.nan
            source.coverage.give_up(tokens, str(error))
    return _dataset(run, plan, maps, layers)


def _states(run: StoredRun, tokens: slice, plan: _Plan) -> Iterator[NDArray[np.floating]]:
    """Yield the states of some tokens at a time: (token, layer, iteration, width)."""
    each = 4 * len(run.recorded_layers) * len(run.kept_iterations) * run.width
    step = max(1, _BYTES_OF_STATES // each)
    for start in range(tokens.start, tokens.stop, step):
        some = slice(start, min(start + step, tokens.stop))
        values = run.site("resid_post", restart=plan.restart, tokens=some).values
        yield values[:, :, plan.iterations]


def _attention(run: StoredRun, prompt: int, plan: _Plan) -> NDArray[np.floating]:
    """Compare the maps of a prompt; of one too long for the memory, evenly spaced queries."""
    parts, step = [], 1
    for layer in run.recorded_layers:
        values = run.attention(prompt, restart=plan.restart, layer=layer).values[plan.iterations]
        whole = values.nbytes * len(run.recorded_layers)
        step = max(1, math.ceil(whole / _BYTES_OF_PATTERNS))
        parts.append(values[:, :, ::-step][:, :, ::-1])
    return attention_distance(np.stack(parts))


def _dataset(run: StoredRun, plan: _Plan, maps: dict[str, np.ndarray], layers: int) -> xr.Dataset:
    square = ("prompt", "depth", "other_depth")
    iterations = np.array(run.kept_iterations)[plan.iterations]
    data = {
        "state_cosine": labelled(
            square, maps["state_cosine"].astype(np.float32), "cosine of states, mean over tokens"
        ),
        "state_distance": labelled(
            square,
            maps["state_distance"].astype(np.float32),
            "Frobenius norm of the difference of states over the mean of the two norms",
        ),
        "attention_distance": labelled(
            square,
            maps["attention_distance"].astype(np.float32),
            "Frobenius norm of the difference of attention maps over sqrt(2 queries), mean over "
            "heads",
        ),
    }
    for what in ("state", "attention"):
        data[f"{what}_contrast"] = labelled(
            ("prompt", "iteration"),
            band_contrast(maps[f"{what}_distance"], layers),
            f"contrast of the band at an offset of {layers} in the {what} distances",
        )
    coords = {
        "prompt": np.array(plan.prompts, dtype=np.int64),
        "iteration": iterations[:-1],
        "depth": np.arange(layers * len(iterations)),
        "depth_layer": ("depth", np.tile(run.recorded_layers, len(iterations))),
        "depth_iteration": ("depth", np.repeat(iterations, layers)),
    }
    dataset = xr.Dataset(data, coords=coords)
    dataset.attrs |= {
        "map_restart": plan.restart,
        "iterations_kept": len(run.kept_iterations),
        "iterations_mapped": len(iterations),
    }
    return dataset


def summarize(dataset: xr.Dataset, run: StoredRun) -> Summary:
    """Contrast of the band at offset k, over prompts and iterations.

    ``median_state_contrast`` and ``median_attention_contrast``; of attention also at the first
    iteration that is mapped, ``first_attention_contrast``, since the band is said to be there from
    the first or second one on. NaN for one layer.
    """
    attention = dataset["attention_contrast"].values
    return {
        "median_state_contrast": over_known(np.median, dataset["state_contrast"].values),
        "median_attention_contrast": over_known(np.median, attention),
        "first_attention_contrast": over_known(np.median, attention[:, :1]),
        "prompts_mapped": int(dataset.sizes["prompt"]),
    }


ANALYZER = Analyzer(
    name="similarity",
    version=1,
    title="Similarity over virtual depth",
    needs=needs,
    plan=plan,
    build=build,
    summarize=summarize,
    parameters=("map_points", "map_prompts", "map_restart"),
    standard=False,  # every layer of every iteration is compared with all others
)
