"""How much the attention of every head still changes from one iteration to the next."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from looplens.analysis.analyzers._analyzer import (
    Analyzer,
    Source,
    Summary,
    coordinates,
    labelled,
    needs_iterations,
)
from looplens.analysis.measures.attention import attention_change
from looplens.errors import CorruptRunError

if TYPE_CHECKING:
    from looplens.store import StoredRun


def needs(run: StoredRun) -> str | None:
    """Ask for attention patterns of at least one prompt, over at least two iterations."""
    if not run.attention_prompts:
        return "No attention was recorded. Record with attention for at least one prompt."
    if run.iterations < 2:
        return "A change of attention needs at least two iterations, and this run has one."
    return needs_iterations(run)


def build(source: Source, plan: None, arrays: dict[str, np.ndarray]) -> xr.Dataset:
    """Total variation between successive patterns, mean over queries."""
    run, coverage = source.run, source.coverage
    prompts = list(run.attention_prompts)
    shape = (run.restarts, len(run.recorded_layers), run.iterations - 1)
    found: dict[int, np.ndarray] = {}
    for prompt in prompts:
        tokens = run.token_range(prompt)
        # Patterns are committed with the block in which their prompt starts, in files of their own.
        if not coverage.recorded[tokens.start]:
            continue
        try:
            found[prompt] = _changes(run, prompt)
        except CorruptRunError as error:
            coverage.give_up(slice(tokens.start, tokens.stop), str(error))
    heads = run.attrs["n_heads"]
    missing = np.full((*shape, heads), np.nan)
    change = [found.get(prompt, missing) for prompt in prompts]
    variable = labelled(
        ("prompt", "restart", "layer", "iteration", "head"),
        np.array(change),
        "total variation from the attention one iteration before, mean over queries",
    )
    names = coordinates(run, "restart", "layer", "iteration", first_iteration=2)
    return xr.Dataset(
        {"change": variable},
        coords={"prompt": prompts, **names, "head": np.arange(variable.shape[-1])},
    )


def _changes(run: StoredRun, prompt: int) -> np.ndarray:
    """Return the changes of one prompt, (restart, layer, iteration 2..T, head)."""
    # One restart and layer at a time: patterns of a long prompt are the largest arrays of a run.
    return np.array(
        [
            [
                attention_change(run.attention(prompt, restart=restart, layer=layer).values)
                for layer in run.recorded_layers
            ]
            for restart in range(run.restarts)
        ]
    )


def summarize(dataset: xr.Dataset, run: StoredRun) -> Summary:
    """Means of ``change`` over everything but iteration (and head).

    ``first_change`` at iteration 2, ``final_change`` at the last one, ``max_final_change`` that of
    the head which moves most at the end.
    """
    change = dataset["change"]
    last = change.isel(iteration=-1)
    return {
        "first_change": float(change.isel(iteration=0).mean()),
        "final_change": float(last.mean()),
        "max_final_change": float(last.mean(("prompt", "restart")).max()),
    }


ANALYZER = Analyzer(
    name="attention_change",
    version=1,
    title="Change of attention",
    needs=needs,
    build=build,
    summarize=summarize,
)
