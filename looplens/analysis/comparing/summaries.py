"""The summaries of two runs over the tokens that they share, with intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from looplens.analysis.comparing.aligning import Alignment
from looplens.analysis.comparing.bootstrap import PairedBootstrap
from looplens.analysis.comparing.comparison import Difference
from looplens.analysis.registry import ANALYZERS
from looplens.analysis.running.coverage import covered_tokens

if TYPE_CHECKING:
    from looplens.store import StoredRun

DRAWS = 200
"""Draws of prompts for the interval of a summary, which is made anew from each."""

_MOST_BYTES = 50e6  # a draw copies the result; more than this and there are no intervals


def compare_summaries(
    run_a: StoredRun,
    run_b: StoredRun,
    results: Mapping[str, tuple[xr.Dataset, xr.Dataset]],
    pairs: Alignment,
    bootstrap: PairedBootstrap,
) -> tuple[Difference, ...]:
    """Return every number that both summaries have.

    Parameters
    ----------
    run_a, run_b : StoredRun
        The runs.
    results : mapping of str to (Dataset, Dataset)
        Their analyses.
    pairs : Alignment
        The shared tokens; what a summary says of tokens is of these.
    bootstrap : PairedBootstrap
        Draws the prompts. A number that does not depend on which tokens are looked at, and one of a
        large result, has no interval.
    """
    rows = []
    for name, (found_a, found_b) in results.items():
        known = pairs.only(covered_tokens(found_a, run_a), covered_tokens(found_b, run_b))
        if not len(known.prompt):
            continue
        sides = ((run_a, found_a, known.tokens_a), (run_b, found_b, known.tokens_b))
        whole = [_flat(name, run, found, tokens) for run, found, tokens in sides]
        bounds = _intervals(name, sides, known.prompt, bootstrap, whole)
        for key, a in whole[0].items():
            if key in whole[1]:
                b = whole[1][key]
                low, high = bounds.get(key, (math.nan, math.nan))
                title = key.replace("_", " ").replace(".", ": ")
                rows.append(
                    Difference(
                        analysis=name,
                        name=key,
                        title=title,
                        a=a,
                        b=b,
                        difference=b - a,
                        low=low,
                        high=high,
                    )
                )
    return tuple(rows)


def _flat(name: str, run: StoredRun, found: xr.Dataset, tokens: Any) -> dict[str, float]:
    """Return the numbers of a summary over some tokens."""
    if "token" in found.dims:
        found = found.isel(token=tokens)
    flat: dict[str, float] = {}

    def add(start: str, values: Mapping[str, Any]) -> None:
        for key, value in values.items():
            if isinstance(value, Mapping):
                add(f"{start}{key}.", value)
            elif isinstance(value, int | float | np.number):
                flat[f"{start}{key}"] = float(value)

    add("", ANALYZERS[name].summarize(found, run))
    return flat


def _intervals(
    name: str,
    sides: tuple[tuple[StoredRun, xr.Dataset, Any], ...],
    prompt: Any,
    bootstrap: PairedBootstrap,
    whole: list[dict[str, float]],
) -> dict[str, tuple[float, float]]:
    large = any(found.nbytes > _MOST_BYTES for _, found, _ in sides)
    if large or bootstrap.prompts < 2 or "token" not in sides[0][1].dims:
        return {}
    of_prompt = [np.flatnonzero(prompt == number) for number in range(bootstrap.prompts)]
    keys = [key for key in whole[0] if key in whole[1]]
    drawn = np.full((DRAWS, len(keys)), np.nan)
    for place, prompts in enumerate(bootstrap.draws()[:DRAWS]):
        taken = np.concatenate([of_prompt[prompt] for prompt in prompts])
        if not len(taken):
            continue
        one, other = (_flat(name, run, found, tokens[taken]) for run, found, tokens in sides)
        drawn[place] = [other.get(key, np.nan) - one.get(key, np.nan) for key in keys]
    moved = np.nanmax(drawn, axis=0, initial=-np.inf) > np.nanmin(drawn, axis=0, initial=np.inf)
    low, high = bootstrap.between(drawn, np.where(moved, 2, 0), (len(keys),))
    return {
        key: (float(low[place]), float(high[place]))
        for place, key in enumerate(keys)
        if moved[place]
    }
