"""How much the attention of every head still changes from one iteration to the next."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from looplens.analysis._attention import attention_change
from looplens.analysis.analyzers._analyzer import (
    Analyzer,
    Summary,
    coordinates,
    labelled,
    needs_states,
)

if TYPE_CHECKING:
    from looplens.store import StoredRun


def needs(run: StoredRun) -> str | None:
    """Ask for attention patterns of at least one prompt, over at least two iterations."""
    if not run.attention_prompts:
        return "No attention was recorded. Record with attention for at least one prompt."
    if run.iterations < 2:
        return "A change of attention needs at least two iterations, and this run has one."
    return needs_states(run)


def compute(run: StoredRun) -> xr.Dataset:
    """Total variation between successive patterns, mean over queries."""
    prompts = list(run.attention_prompts)
    # One restart and layer at a time: patterns of a long prompt are the largest arrays of a run.
    change = [
        [
            [
                attention_change(_patterns(run, prompt, restart, layer))
                for layer in range(run.n_layers)
            ]
            for restart in range(run.restarts)
        ]
        for prompt in prompts
    ]
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


def _patterns(run: StoredRun, prompt: int, restart: int, layer: int) -> np.ndarray:
    return run.attention(prompt, restart=restart, layer=layer).values  # iteration head query key


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
    compute=compute,
    summarize=summarize,
)
