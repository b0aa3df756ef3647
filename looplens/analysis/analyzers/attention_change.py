"""How much the attention of every head still changes, and when and how fast it settles."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from looplens.analysis.algebra.inputs import real_number
from looplens.analysis.analyzers._analyzer import (
    Analyzer,
    Source,
    Summary,
    coordinates,
    labelled,
    needs_iterations,
    over_known,
)
from looplens.analysis.measures.attention import AttentionSettling, attention_settling
from looplens.analysis.regimes.thresholds import ROUNDING_STEP
from looplens.errors import CorruptRunError, InputError

if TYPE_CHECKING:
    from looplens.store import StoredRun

_CURVES = ("change", "distance_to_limit")
_NUMBERS = ("settling_iteration", "rate", "floor", "signal_end")


def needs(run: StoredRun) -> str | None:
    """Ask for attention patterns of at least one prompt, over at least two iterations."""
    if not run.attention_prompts:
        return "No attention was recorded. Record with attention for at least one prompt."
    if run.iterations < 2:
        return "A change of attention needs at least two iterations, and this run has one."
    return needs_iterations(run)


def plan(source: Source, *, attention_tolerance: float = 1e-2) -> float:
    """Check the tolerance."""
    if not 0 < real_number(attention_tolerance, "attention_tolerance") < 1:
        raise InputError(
            f"attention_tolerance is a total variation between 0 and 1; got {attention_tolerance}."
        )
    return float(attention_tolerance)


def build(source: Source, plan: float, arrays: dict[str, np.ndarray]) -> xr.Dataset:
    """Measure the heads of all prompts with attention."""
    run = source.run
    prompts = list(run.attention_prompts)
    layers, heads = len(run.recorded_layers), run.attrs["n_heads"]
    whole = {
        name: np.full((len(prompts), run.restarts, layers, steps, heads), np.nan)
        for name, steps in zip(_CURVES, (run.iterations - 1, run.iterations), strict=True)
    }
    whole |= {
        name: np.full((len(prompts), run.restarts, layers, heads), np.nan) for name in _NUMBERS
    }
    for place, prompt in readable_prompts(source):
        try:
            for restart, layer, found in _settling(run, prompt, plan):
                for name, values in whole.items():
                    values[place, restart, layer] = getattr(found, name)
        except CorruptRunError as error:
            for values in whole.values():
                values[place] = np.nan
            source.coverage.give_up(run.token_range(prompt), str(error))
    return _dataset(run, prompts, whole, plan)


def readable_prompts(source: Source) -> Iterator[tuple[int, int]]:
    """Yield place and number of the prompts whose attention is on disk."""
    for place, prompt in enumerate(source.run.attention_prompts):
        # Patterns are committed with the block in which their prompt starts, in files of their own.
        if source.coverage.recorded[source.run.token_range(prompt).start]:
            yield place, prompt


def rounding_of_attention(run: StoredRun) -> float:
    """Change that rounding alone shows, by the coarser of the dtypes of the model and the store."""
    dtypes = (run.source_dtype, str(run.attrs.get("store_dtype", run.source_dtype)))
    return max(ROUNDING_STEP.get(name, ROUNDING_STEP["float32"]) for name in dtypes)


def _settling(
    run: StoredRun, prompt: int, tolerance: float
) -> Iterator[tuple[int, int, AttentionSettling]]:
    """Yield restart, place of the layer, and what its heads do."""
    rounding = rounding_of_attention(run)
    # One restart and layer at a time: patterns of a long prompt are the largest arrays of a run.
    for restart in range(run.restarts):
        for place, layer in enumerate(run.recorded_layers):
            patterns = run.attention(prompt, restart=restart, layer=layer).values
            found = attention_settling(patterns, tolerance=tolerance, rounding=rounding)
            yield restart, place, found


def _dataset(
    run: StoredRun, prompts: list[int], whole: dict[str, np.ndarray], tolerance: float
) -> xr.Dataset:
    by_head = ("prompt", "restart", "layer", "head")
    data = {
        "change": labelled(
            ("prompt", "restart", "layer", "iteration", "head"),
            whole["change"],
            "total variation from the attention one iteration before, mean over queries",
        ),
        # On the same iterations as the change, from 2 on: one axis for both curves.
        "distance_to_limit": labelled(
            ("prompt", "restart", "layer", "iteration", "head"),
            whole["distance_to_limit"][..., 1:, :],
            "total variation from the mean attention of the last quarter, mean over queries",
        ),
        "settling_iteration": labelled(
            by_head,
            whole["settling_iteration"],
            "first iteration from which on the attention stays as close to its limit as tolerance",
            "iteration",
            tolerance=tolerance,
        ),
        "rate": labelled(by_head, whole["rate"], "factor of the change in an iteration"),
        "floor": labelled(by_head, whole["floor"], "median change in the last quarter"),
        "signal_end": labelled(
            by_head,
            whole["signal_end"],
            "last iteration whose change exceeds three times the floor",
            "iteration",
        ),
    }
    names = coordinates(run, "restart", "layer", "iteration", first_iteration=2)
    heads = np.arange(whole["rate"].shape[-1])
    return xr.Dataset(data, coords={"prompt": prompts, **names, "head": heads})


def summarize(dataset: xr.Dataset, run: StoredRun) -> Summary:
    """Means of ``change`` over everything but iteration (and head), and how heads settle.

    ``first_change`` at iteration 2, ``final_change`` at the last one, ``max_final_change`` that of
    the head which moves most at the end. Over heads of all layers, prompts and restarts:
    ``settled_share``, ``median_settling_iteration`` (infinite, written as none, where half never
    settle) and ``median_rate``.
    """
    change = dataset["change"]
    last = change.isel(iteration=-1)
    known = np.isfinite(dataset["floor"].values)
    settling = dataset["settling_iteration"].values[known]
    late = np.where(np.isfinite(settling), settling, np.inf)
    median = float(np.median(late)) if late.size else float("nan")
    return {
        "first_change": float(change.isel(iteration=0).mean()),
        "final_change": float(last.mean()),
        "max_final_change": float(last.mean(("prompt", "restart")).max()),
        "settled_share": float(np.isfinite(settling).mean()) if late.size else float("nan"),
        "median_settling_iteration": median if np.isfinite(median) else None,
        "median_rate": over_known(np.median, dataset["rate"].values),
    }


ANALYZER = Analyzer(
    name="attention_change",
    version=2,
    title="Change of attention",
    needs=needs,
    plan=plan,
    build=build,
    summarize=summarize,
    parameters=("attention_tolerance",),
)
