"""Reading one statistic of some tokens, from wherever it comes.

What is known under which name is in :mod:`looplens.analysis.per_token.catalogue`; here a statistic
is read as it is, and nothing is kept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from looplens.analysis.dynamics import dynamics_results
from looplens.analysis.measures.readout import carried
from looplens.analysis.per_token.known import (
    CORRECT,
    LAB,
    PROMPTS,
    RECORDING,
    TOKENS,
    TokenStatistic,
)

if TYPE_CHECKING:
    from looplens.store import StoredRun

Tokens = slice | NDArray[np.int64]


def read(
    run: StoredRun, found: TokenStatistic, place: Tokens, restart: int, layer: int | None
) -> NDArray[Any]:
    """Return the values of one statistic; words as objects."""
    if found.source in (TOKENS, PROMPTS):
        values = _of_table(run, found, place)
    elif found.source == RECORDING:
        values = _of_last_readout(run, found, place, restart)
    elif found.source.startswith(f"{LAB}/"):
        values = _of_lab(run, found, place, restart)
    else:
        values = _of_analysis(run, found, place, restart, layer)
    return values if found.kind == "number" else _as_words(values)


def _as_words(values: NDArray[Any]) -> NDArray[np.object_]:
    if values.dtype.kind == "b":
        return np.where(values, "yes", "no").astype(object)
    words = ["" if value is None or value != value else str(value) for value in values.tolist()]
    return np.array(words, dtype=object)


def _of_table(run: StoredRun, found: TokenStatistic, place: Tokens) -> NDArray[Any]:
    if found.source == TOKENS:
        return run.tokens[found.variable].values[place]
    return run.prompts[found.variable].values[run.tokens["prompt"].values[place]]


def _of_analysis(
    run: StoredRun, found: TokenStatistic, place: Tokens, restart: int, layer: int | None
) -> NDArray[Any]:
    from looplens.analysis.suite import get

    result = get(run, found.source)
    after_layer = layer is not None and bool(found.layer_variable)
    values = result[found.layer_variable if after_layer else found.variable]
    if after_layer:
        values = values.sel(layer=layer)
    if found.policy is not None:
        rule, threshold = found.policy
        same = (result["rule"].values == rule) & (result["threshold"].values == threshold)
        values = values.isel(policy=int(np.flatnonzero(same)[0]))
    if "restart" in values.dims:
        values = values.isel(restart=restart)
    return values.isel(token=place).values


def _of_lab(run: StoredRun, found: TokenStatistic, place: Tokens, restart: int) -> NDArray[Any]:
    """Return what the lab found of those tokens that it looked at, in its restart."""
    result = dynamics_results(run)[found.source.partition("/")[2]]
    values = result[found.variable]
    whole: NDArray[Any]
    if found.kind == "number":
        whole = np.full(run.n_tokens, np.nan)
    else:
        whole = np.full(run.n_tokens, "", dtype=object)
    if int(result.attrs.get("restart", restart)) == restart:
        whole[result["token"].values] = (
            values.values if found.kind == "number" else _as_words(values.values)
        )
    return whole[place]


def _of_last_readout(
    run: StoredRun, found: TokenStatistic, place: Tokens, restart: int
) -> NDArray[Any]:
    """Return what was read out last; a model that leaves the loop answers what it left with."""
    numbers = np.arange(run.n_tokens)[place]
    known = run.committed_tokens[numbers]
    if not known.all():  # the run is still growing
        part = _of_last_readout(run, found, numbers[known], restart)
        number = found.kind == "number"
        whole = np.full(known.shape, np.nan if number else "", dtype=float if number else object)
        whole[known] = part
        return whole
    readout = run.readout
    values = _last(readout, found.variable, place, restart)
    left = np.flatnonzero(~np.isfinite(_last(readout, "entropy", place, restart)))
    if left.size:  # it left, or its logits are not finite: the predictions tell
        some = readout.isel(restart=restart, token=numbers[left])
        predicted = some["topk_ids"].isel(rank=0).values
        one = some[found.variable]
        one = one.isel(rank=0) if "rank" in one.dims else one
        values[left] = carried(one.values, predicted)[..., -1]
    if found.name == "prediction":
        texts = run.vocabulary
        words = [texts.get(i, f"id {i}") if i >= 0 else "" for i in values.tolist()]
        return np.array(words, dtype=object)
    if found.name == "correct":
        return np.where(values < 0, "", np.where(values == 0, *CORRECT)).astype(object)
    if found.name == "target_rank":
        return np.where(values < 0, np.nan, values)
    return values


def _last(readout: xr.Dataset, name: str, place: Tokens, restart: int) -> NDArray[Any]:
    values = readout[name].isel(restart=restart, iteration=-1)
    values = values.isel(rank=0) if "rank" in values.dims else values
    return values.isel(token=place).values
