"""Whether the tokens of each prompt grow alike over the iterations."""

from __future__ import annotations

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
    needs_states,
    over_known,
)
from looplens.analysis.measures.collapse import TokenSums
from looplens.errors import InputError

if TYPE_CHECKING:
    from looplens.store import StoredRun


def plan(source: Source, *, collapse_cosine: float = 0.95) -> float:
    """Check the threshold."""
    if not -1 < real_number(collapse_cosine, "collapse_cosine") < 1:
        raise InputError(f"collapse_cosine must lie between -1 and 1; got {collapse_cosine}.")
    return float(collapse_cosine)


def build(source: Source, plan: float, arrays: dict[str, np.ndarray]) -> xr.Dataset:
    """Sum over the tokens of each prompt, block by block; a prompt may lie in several."""
    run, coverage = source.run, source.coverage
    axes = coordinates(run, "restart", "iteration", first_iteration=0)
    shape = (run.n_prompts, run.restarts, len(axes["iteration"]))
    cosine, spread = np.full(shape, np.nan), np.full(shape, np.nan)
    prompt_of = run.tokens["prompt"].values
    sums: dict[int, TokenSums] = {}
    pieces = [piece for tokens in run.blocks() for piece in coverage.pieces(tokens)]
    for tokens, states in coverage.readable(pieces, lambda part: run.state(tokens=part).values):
        inside = prompt_of[tokens]
        for prompt in np.unique(inside).tolist():
            gathered = sums.setdefault(prompt, TokenSums())
            gathered.add(states[:, inside == prompt])
            kept = run.token_range(prompt)
            # One that is never complete lacks a block, and stays unknown.
            if gathered.count == kept.stop - kept.start:
                found = sums.pop(prompt).result()
                cosine[prompt], spread[prompt] = found.cosine, found.spread
    dims = ("prompt", "restart", "iteration")
    return xr.Dataset(
        {
            "token_cosine": labelled(
                dims,
                cosine,
                "mean cosine between the states of different tokens",
                threshold=plan,
            ),
            "token_spread": labelled(
                dims, spread, "distance of the tokens from their mean over their norm, both rms"
            ),
        },
        coords={"prompt": np.arange(run.n_prompts), **axes},
    )


def summarize(dataset: xr.Dataset, run: StoredRun) -> Summary:
    """Over all prompts and restarts, at the last iteration.

    ``median_token_cosine``, ``max_token_cosine``, ``median_token_spread``; ``collapsed_share``:
    those with a cosine above the threshold.
    """
    cosine = dataset["token_cosine"]
    last = cosine.values[..., -1]
    above = np.where(np.isfinite(last), last > cosine.attrs["threshold"], np.nan)
    return {
        "median_token_cosine": over_known(np.median, last),
        "max_token_cosine": over_known(np.max, last),
        "median_token_spread": over_known(np.median, dataset["token_spread"].values[..., -1]),
        "collapsed_share": over_known(np.mean, above),
    }


ANALYZER = Analyzer(
    name="token_collapse",
    version=1,
    title="Token collapse",
    needs=needs_states,
    plan=plan,
    build=build,
    summarize=summarize,
    parameters=("collapse_cosine",),
)
