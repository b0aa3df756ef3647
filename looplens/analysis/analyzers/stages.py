"""Stages of inference by layer and iteration, and how alike they are from loop to loop."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from looplens.analysis.algebra.inputs import whole_number
from looplens.analysis.analyzers._analyzer import (
    Analyzer,
    Source,
    Summary,
    coordinates,
    finite_or_none,
    has_layers,
    labelled,
    needs_states,
)
from looplens.analysis.measures.stages import (
    SINK_THRESHOLD,
    STAGES,
    AttentionStages,
    attention_stages,
    matrix_entropy,
    profile_correlation,
    sink_rate,
)
from looplens.errors import CorruptRunError

if TYPE_CHECKING:
    from looplens.store import StoredRun

Arrays = dict[str, np.ndarray]

# Seconds that all prompts together may take, and what one eigenvalue problem and one attention
# weight take, roughly. Long prompts are dear: both grow faster than the length.
_SECONDS = 10.0
_PER_PRODUCT, _PER_WEIGHT = 2e-10, 3e-8

_LONG_NAMES = {
    "concentration": "ColSum concentration minus that of uniform attention, mean over heads",
    "sink_rate": f"share of heads with a key that gets at least {SINK_THRESHOLD} of all attention",
    "sink_score": "share of all attention that goes to the strongest key, mean over heads",
    "mixing": "entropy of the attention of a query, mean over queries and heads",
    "matrix_entropy": "entropy of the spectrum of the Gram matrix of a prompt's tokens",
}
_UNITS = {"mixing": "nat", "matrix_entropy": "nat"}


def candidates(run: StoredRun) -> list[int]:
    """Return the prompts that can be measured: with attention if any, else whole ones.

    One of a single token has no stages: it can only look at itself.
    """
    table = run.prompts
    length = table["length"].values
    several = length > 1
    with_attention = [number for number in run.attention_prompts if several[number]]
    whole = (table["n_tokens"].values == length) & several
    return with_attention or np.flatnonzero(whole).tolist()


def needs(run: StoredRun) -> str | None:
    """Ask for attention patterns, or for the whole residual stream of at least one prompt."""
    possible = candidates(run)
    if possible and possible[0] in run.attention_prompts:
        return needs_states(run)
    if (run.prompts["length"].values == 1).all():
        return (
            "Stages are of tokens that look at others, and every prompt of this run is one token."
        )
    if not has_layers(run):
        return (
            "Stages are told by attention and by the residual stream after each layer, and this "
            "run has neither. Record with attention for at least one prompt, or with "
            "sites=('resid_post',)."
        )
    if run.is_reduced or not possible:
        what = "reduced states" if run.is_reduced else "only some tokens of each prompt"
        return (
            f"Stages are told by attention, which this run lacks, or by whole prompts in all "
            f"dimensions, and it keeps {what}. Record with attention for at least one prompt."
        )
    return needs_states(run)


def plan(source: Source, *, stage_prompts: int | None = None) -> list[int]:
    """Choose the prompts, evenly over the run: those with attention if any, else whole ones.

    Raises
    ------
    InputError
        If `stage_prompts`, how many there may be, is below 1.
    """
    run = source.run
    recorded = source.coverage.recorded
    possible = candidates(run)
    ready = [number for number in possible if recorded[run.token_range(number)].all()]
    possible = ready or possible
    if stage_prompts is None:
        length = int(run.prompts["length"].values[possible].mean())
        most = max(1, int(_SECONDS / _seconds(run, length)))
    else:
        most = whole_number(stage_prompts, "stage_prompts", least=1)
    chosen = np.linspace(0, len(possible) - 1, min(most, len(possible)))
    return [possible[int(place)] for place in chosen.round()]


def _seconds(run: StoredRun, length: int) -> float:
    small, large = sorted((length, run.d_model))
    one = _PER_PRODUCT * small**2 * (small + large)
    if run.attention_prompts:
        one += _PER_WEIGHT * int(run.attrs["n_heads"]) * length**2
    return one * run.restarts * len(run.recorded_layers) * len(run.kept_iterations)


def build(source: Source, plan: list[int], arrays: Arrays) -> xr.Dataset:
    """Measure the chosen prompts, and compare the profiles over layers of all loops."""
    run, coverage = source.run, source.coverage
    names = coordinates(run, "restart", "layer", "iteration")
    shape = (len(plan), *(len(values) for values in names.values()))
    data = {name: np.full(shape, np.nan) for name in _LONG_NAMES}
    baselines = {
        name: np.full(len(plan), np.nan) for name in ("concentration", "sink_score", "mixing")
    }
    for place, prompt in enumerate(plan):
        tokens = run.token_range(prompt)
        # Patterns are committed with the block in which their prompt starts.
        if tokens.start < run.n_tokens and not coverage.recorded[tokens.start]:
            continue
        try:
            if prompt in run.attention_prompts:
                _read_attention(run, prompt, data, baselines, place)
            if _has_whole_stream(run, prompt) and coverage.recorded[tokens].all():
                _read_stream(run, tokens, data["matrix_entropy"][place])
        except CorruptRunError as error:
            for values in data.values():
                values[place] = np.nan
            coverage.give_up(slice(tokens.start, tokens.stop), str(error))
    axes = ("prompt", "restart", "layer", "iteration")
    variables = {
        name: labelled(axes, values, _LONG_NAMES[name], _UNITS.get(name, "1"))
        for name, values in data.items()
    }
    variables["sink_rate"].attrs["threshold"] = SINK_THRESHOLD
    for name, values in baselines.items():
        variables[f"{name}_baseline"] = labelled(
            ("prompt",), values, f"{name} of uniform attention", _UNITS.get(name, "1")
        )
    dataset = xr.Dataset(variables, coords={"prompt": plan, **names, "stage": list(STAGES)})
    return dataset.assign(_loops_compared(mean_profiles(dataset)))


def _has_whole_stream(run: StoredRun, prompt: int) -> bool:
    table = run.prompts
    whole = table["n_tokens"].values[prompt] == table["length"].values[prompt]
    return bool(whole) and has_layers(run) and not run.is_reduced


def _read_attention(
    run: StoredRun, prompt: int, data: Arrays, baselines: Arrays, place: int
) -> None:
    # One restart and layer at a time: patterns of a long prompt are the largest arrays of a run.
    for restart in range(run.restarts):
        for row, layer in enumerate(run.recorded_layers):
            patterns = run.attention(prompt, restart=restart, layer=layer).values
            for iteration, pattern in enumerate(patterns):
                found = attention_stages(pattern)
                cell = (place, restart, row, iteration)
                data["concentration"][cell] = found.concentration.mean()
                data["sink_score"][cell] = found.sink_score.mean()
                data["sink_rate"][cell] = sink_rate(found.sink_score, found.sink_baseline)
                data["mixing"][cell] = found.mixing.mean()
                _keep_baselines(found, baselines, place)


def _keep_baselines(found: AttentionStages, baselines: Arrays, place: int) -> None:
    baselines["concentration"][place] = found.concentration_baseline
    baselines["sink_score"][place] = found.sink_baseline
    baselines["mixing"][place] = found.mixing_baseline


def _read_stream(run: StoredRun, tokens: slice, entropy: np.ndarray) -> None:
    for row, layer in enumerate(run.recorded_layers):
        states = run.site("resid_post", tokens=tokens, layer=layer)
        entropy[:, row] = matrix_entropy(
            states.transpose("restart", "iteration", "token", ...).values
        )


def mean_profiles(dataset: xr.Dataset) -> xr.DataArray:
    """Return every stage, mean over prompts and restarts, as (stage, iteration, layer)."""
    profiles = [dataset[name].mean(("prompt", "restart")) for name in STAGES]
    stacked = xr.concat(profiles, dim="stage", coords="minimal", compat="override")
    return stacked.assign_coords(stage=list(STAGES)).transpose("stage", "iteration", "layer")


def _loops_compared(profiles: xr.DataArray) -> dict[str, xr.Variable]:
    values, axes = profiles.values, ("stage", "iteration")
    said = "of the profile over layers of this loop and of the {}"
    return {
        "similarity_to_first": labelled(
            axes,
            profile_correlation(values, values[:, :1]),
            f"correlation {said.format('first loop')}",
        ),
        "similarity_to_last": labelled(
            axes,
            profile_correlation(values, values[:, -1:]),
            f"correlation {said.format('last loop')}",
        ),
        "distance_to_last": labelled(
            axes,
            np.abs(values - values[:, -1:]).mean(-1),
            f"mean absolute difference {said.format('last loop')}",
            "as the stage",
        ),
    }


def summarize(dataset: xr.Dataset, run: StoredRun) -> Summary:
    """Return the stages at the last iteration, means over prompts, restarts and layers.

    ``first_loop_similarity`` is ``similarity_to_last`` of the first loop, mean over the stages that
    are known; None with fewer than three layers. ``stage_prompts`` counts the prompts that were
    looked at, ``short_prompts`` those too short for a sink rate.
    """
    last = dataset.isel(iteration=-1)
    found: Summary = {
        f"final_{name}": finite_or_none(float(last[name].mean())) for name in _LONG_NAMES
    }
    similarity = dataset["similarity_to_last"].isel(iteration=0)
    found["first_loop_similarity"] = finite_or_none(float(similarity.mean()))
    found["stage_prompts"] = dataset.sizes["prompt"]
    short = dataset["sink_score_baseline"] >= dataset["sink_rate"].attrs["threshold"]
    found["short_prompts"] = int(short.sum())
    return found


ANALYZER = Analyzer(
    name="stages",
    version=2,
    title="Stages of inference",
    needs=needs,
    plan=plan,
    build=build,
    summarize=summarize,
    parameters=("stage_prompts",),
)
