"""The summaries of two runs over the tokens that they share, with intervals."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from looplens.analysis.comparing.aligning import Alignment
from looplens.analysis.comparing.bootstrap import PairedBootstrap
from looplens.analysis.comparing.comparison import Difference
from looplens.analysis.comparing.differences import difference_of, over_restarts
from looplens.analysis.registry import ANALYZERS
from looplens.analysis.running.coverage import covered_tokens

if TYPE_CHECKING:
    from looplens.store import StoredRun

DRAWS = 200
"""Draws of prompts for the interval of a summary, which is made anew from each."""

PREDICTIONS = "predictions"
"""Name under which readouts are compared token by token."""

# Ends of curves over a whole run, which can be made again from single tokens.
_OF_TOKENS = {
    "final_accuracy": "correct",
    "final_entropy": "entropy",
    "final_accuracy_per_gflop": "correct_per_gflop",
}
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
        Their analyses, and `PREDICTIONS`, which has no summary of its own: the final accuracy,
        entropy and accuracy per cost of the readout are made from it, over the shared tokens.
    pairs : Alignment
        The shared tokens; what a summary says of tokens, or of prompts, is of these.
    bootstrap : PairedBootstrap
        Draws the prompts. A number that does not depend on which tokens or prompts are looked at,
        such as one of a curve over a whole run, has no interval, nor has one of a large result.
    """
    rows = []
    for name, (found_a, found_b) in results.items():
        known = pairs.only(covered_tokens(found_a, run_a), covered_tokens(found_b, run_b))
        if name == PREDICTIONS or not len(known.prompt):
            continue
        sides = (
            _Side(name, run_a, found_a, known.tokens_a, pairs.prompts_a),
            _Side(name, run_b, found_b, known.tokens_b, pairs.prompts_b),
        )
        everything = np.arange(len(known.prompt)), np.unique(known.prompt)
        whole = [side.numbers(*everything) for side in sides]
        bounds = _intervals(sides, known.prompt, bootstrap, whole)
        made = _ends(results, pairs, bootstrap) if name == "readout" else {}
        for key, a in whole[0].items():
            if key in whole[1]:
                b = whole[1][key]
                low, high = bounds.get(key, (math.nan, math.nan))
                title = key.replace("_", " ").replace(".", ": ")
                rows.append(
                    made.get(key)
                    or Difference(
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


def _ends(
    results: Mapping[str, tuple[xr.Dataset, xr.Dataset]],
    pairs: Alignment,
    bootstrap: PairedBootstrap,
) -> dict[str, Difference]:
    """Return ends of the curves of the readout, each run at its own last iteration."""
    if PREDICTIONS not in results:
        return {}
    found = {}
    for key, variable in _OF_TOKENS.items():
        if all(variable in side for side in results[PREDICTIONS]):
            a, b = (over_restarts(side[variable].values[..., -1]) for side in results[PREDICTIONS])
            title = key.replace("_", " ")
            row = difference_of("readout", key, title, "", a, b, pairs.prompt, bootstrap)
            if row is not None:
                # A summary has no spread over tokens.
                found[key] = dataclasses.replace(row, spread=math.nan, tokens=0)
    return found


class _Side:
    """One run, and how the shared tokens and prompts are numbered in a result of it."""

    def __init__(
        self,
        name: str,
        run: StoredRun,
        found: xr.Dataset,
        tokens: NDArray[np.int_],
        prompts: NDArray[np.int_],
    ) -> None:
        self.name, self.run = name, run
        if "token" in found.dims:
            found = found.isel(token=tokens)
        named = "prompt" in found.coords
        there = found["prompt"].values.tolist() if named else range(found.sizes.get("prompt", 0))
        place_of = {number: place for place, number in enumerate(there)}
        self.prompts = np.array([place_of.get(number, -1) for number in prompts.tolist()])
        self.found = found.load()  # once: every draw indexes it again

    def numbers(self, tokens: NDArray[np.int_], prompts: NDArray[np.int_]) -> dict[str, float]:
        """Return the numbers of the summary over some of the shared tokens and prompts."""
        found = self.found
        if "token" in found.dims:
            found = found.isel(token=tokens)
        if "prompt" in found.dims:
            places = self.prompts[prompts]
            found = found.isel(prompt=places[places >= 0])
            if not found.sizes["prompt"]:
                return {}
        flat: dict[str, float] = {}
        _flatten("", ANALYZERS[self.name].summarize(found, self.run), flat)
        return flat


def _flatten(start: str, values: Mapping[str, Any], into: dict[str, float]) -> None:
    for key, value in values.items():
        if isinstance(value, Mapping):
            _flatten(f"{start}{key}.", value, into)
        elif isinstance(value, int | float | np.number):
            into[f"{start}{key}"] = float(value)


def _intervals(
    sides: tuple[_Side, _Side],
    prompt: NDArray[np.int_],
    bootstrap: PairedBootstrap,
    whole: list[dict[str, float]],
) -> dict[str, tuple[float, float]]:
    large = any(side.found.nbytes > _MOST_BYTES for side in sides)
    if large or bootstrap.prompts < 2 or not {"token", "prompt"} & set(sides[0].found.dims):
        return {}
    of_prompt = [np.flatnonzero(prompt == number) for number in range(bootstrap.prompts)]
    keys = [key for key in whole[0] if key in whole[1]]
    drawn = np.full((DRAWS, len(keys)), np.nan)
    for place, taken in enumerate(bootstrap.draws()[:DRAWS]):
        prompts = taken[np.isin(taken, prompt)]
        if not len(prompts):
            continue
        tokens = np.concatenate([of_prompt[number] for number in prompts])
        one, other = (side.numbers(tokens, prompts) for side in sides)
        drawn[place] = [other.get(key, np.nan) - one.get(key, np.nan) for key in keys]
    moved = np.nanmax(drawn, axis=0, initial=-np.inf) > np.nanmin(drawn, axis=0, initial=np.inf)
    low, high = bootstrap.between(drawn, np.where(moved, 2, 0), (len(keys),))
    return {
        key: (float(low[place]), float(high[place]))
        for place, key in enumerate(keys)
        if moved[place]
    }
