"""Every variable of an analysis that two runs share, token by token."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from looplens.analysis.analyzers._analyzer import Source, labelled, readouts
from looplens.analysis.comparing.aligning import Alignment
from looplens.analysis.measures.flops import GIGA, per_gflop, run_flops
from looplens.analysis.measures.readout import carried
from looplens.analysis.running.coverage import Coverage

if TYPE_CHECKING:
    from looplens.store import StoredRun

MOST_PLACES = 64
"""Places on the other axes of a variable, iterations apart, up to which each is compared."""

# The second component of one run is not the second component of another.
_OF_ONE_RUN = {"component", "d_model"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Shared:
    """One variable of both runs at one place of its other axes.

    Attributes
    ----------
    name, title, units : str
        What it is; places are in the name: ``layer_settling_iteration.layer_1``.
    a, b : ndarray, shape (restart, token or prompt[, iteration])
        Values of the shared tokens or prompts in either run; 1 restart where it has none.
    prompt : ndarray of int, shape (token or prompt,)
        Which shared prompt each is of.
    tokens : ndarray of int, shape (token,), or None
        Places in the alignment; None for a variable of prompts.
    iteration : ndarray of int or None
        Shared iterations of a curve.
    """

    name: str
    title: str
    units: str
    a: NDArray[Any]
    b: NDArray[Any]
    prompt: NDArray[np.int_]
    tokens: NDArray[np.int_] | None
    iteration: NDArray[np.int_] | None = None


def shared_variables(
    found_a: xr.Dataset, found_b: xr.Dataset, pairs: Alignment, skipped: dict[str, str], name: str
) -> Iterator[Shared]:
    """Yield what both results have; why something is left out goes into `skipped`.

    Parameters
    ----------
    found_a, found_b : Dataset
        Results of one analysis on either run.
    pairs : Alignment
        The shared tokens.
    skipped : dict
        Reason by full name.
    name : str
        Of the analysis.
    """
    for variable in map(str, found_a.data_vars):
        if variable not in found_b.data_vars:
            skipped[f"{name}.{variable}"] = "only one of the runs has it"
            continue
        a, b = found_a[variable], found_b[variable]
        axis = next((axis for axis in ("token", "prompt") if axis in a.dims), None)
        if axis is None:
            continue
        try:
            yield from _places(variable, a, b, axis, pairs)
        except _LeftOutError as reason:
            skipped[f"{name}.{variable}"] = str(reason)


class _LeftOutError(Exception):
    """Why a variable is not compared."""


def _places(
    variable: str, a: xr.DataArray, b: xr.DataArray, axis: str, pairs: Alignment
) -> Iterator[Shared]:
    if set(a.dims) - {"restart"} != set(b.dims) - {"restart"}:
        raise _LeftOutError("the runs have it on other axes")
    rest = [str(dim) for dim in a.dims if dim not in ("restart", axis)]
    if _OF_ONE_RUN & set(rest):
        raise _LeftOutError("its axes mean something else in each run")
    at: dict[str, list[Any]] = {}
    for dim in rest:
        if dim not in a.coords or dim not in b.coords:
            raise _LeftOutError(f"its axis {dim!r} has no names to match the runs by")
        there = set(b[dim].values.tolist())
        at[dim] = [value for value in a[dim].values.tolist() if value in there]
        if not at[dim]:
            raise _LeftOutError(f"no {dim} is in both runs")
    named = [dim for dim in rest if dim != "iteration"]
    if math.prod(len(at[dim]) for dim in named) > MOST_PLACES:
        raise _LeftOutError(f"it has more than {MOST_PLACES} values a token")
    a, b, prompt, tokens = _paired(a, b, axis, pairs)
    a, b = a.load(), b.load()  # once, and not for each place on their other axes
    iteration = np.array(at["iteration"]) if "iteration" in at else None
    order = ("restart", axis, *(["iteration"] if iteration is not None else []))
    for places in itertools.product(*(at[dim] for dim in named)):
        chosen = dict(zip(named, places, strict=True))
        if chosen.get("layer") == chosen.get("other_layer", -1):
            continue  # a layer against itself
        where = chosen if iteration is None else {**chosen, "iteration": at["iteration"]}
        one, other = (array.sel(where).transpose(*order).values for array in (a, b))
        words = [
            f"{dim}_{value}" if isinstance(value, int) else str(value)
            for dim, value in chosen.items()
        ]
        title = str(a.attrs.get("long_name", variable))
        if words:
            title += f" ({', '.join(word.replace('_', ' ') for word in words)})"
        yield Shared(
            name=".".join([variable, *words]),
            title=title,
            units="" if a.attrs.get("units") == "1" else str(a.attrs.get("units", "")),
            a=one,
            b=other,
            prompt=prompt,
            tokens=tokens,
            iteration=iteration,
        )


def _paired(
    a: xr.DataArray, b: xr.DataArray, axis: str, pairs: Alignment
) -> tuple[xr.DataArray, xr.DataArray, NDArray[np.int_], NDArray[np.int_] | None]:
    """Bring the shared tokens, or prompts, of both runs into one order."""
    if "restart" not in a.dims:
        a = a.expand_dims("restart")
    if "restart" not in b.dims:
        b = b.expand_dims("restart")
    if axis == "token":
        chosen_a, chosen_b = a.isel(token=pairs.tokens_a), b.isel(token=pairs.tokens_b)
        return chosen_a, chosen_b, pairs.prompt, np.arange(len(pairs.prompt))
    place_a, place_b = (
        {number: place for place, number in enumerate(array["prompt"].values.tolist())}
        if "prompt" in array.coords
        else {number: number for number in range(array.sizes["prompt"])}
        for array in (a, b)
    )
    numbers = zip(pairs.prompts_a.tolist(), pairs.prompts_b.tolist(), strict=True)
    both = [
        (shared, place_a[one], place_b[other])
        for shared, (one, other) in enumerate(numbers)
        if one in place_a and other in place_b
    ]
    if not both:
        raise _LeftOutError("no prompt of it is in both runs")
    shared, of_a, of_b = (np.array(column) for column in zip(*both, strict=True))
    return a.isel(prompt=of_a), b.isel(prompt=of_b), shared, None


def predictions(run: StoredRun, tokens: NDArray[np.int_]) -> xr.Dataset | None:
    """Return what the readout says of each token and iteration; None without a readout.

    Parameters
    ----------
    run : StoredRun
        The run.
    tokens : ndarray of int
        The tokens that are compared, of which alone the result is, in this order.

    Returns
    -------
    Dataset
        ``entropy`` and ``best_token``, its id, are (restart, token, iteration); with targets also
        ``correct``, 1 where the target is the best token, ``target_logprob``, and, where the cost
        of the model is known, ``correct_per_gflop``, whose mean over tokens is the accuracy over
        the mean cost of a token that is read out after that iteration.
    """
    if not run.has_readout or not run.committed:
        return None
    source = Source(run=run, coverage=Coverage(run))
    wanted = np.zeros(run.n_tokens, dtype=bool)
    wanted[tokens] = True
    source.coverage.recorded &= wanted  # no others are read
    listed, rows = np.unique(tokens, return_inverse=True)
    targets = run.tokens["target"].values[tokens] >= 0
    names = ["topk_ids", "entropy", *(["target_rank", "target_logprob"] if targets.any() else [])]
    shape = (run.restarts, len(listed), len(run.kept_iterations))
    whole = {name: np.full(shape, np.nan, dtype=np.float32) for name in names}
    for piece, part in readouts(source, tuple(names), rank=0):
        for name, values in part.items():
            target = name.startswith("target")
            first, stop = np.searchsorted(listed, (piece.start, piece.stop))
            inside = slice(first, stop)
            whole[name][:, inside] = carried(values, part["topk_ids"]) if target else values
    if not np.array_equal(listed, tokens):
        whole = {name: values[:, rows] for name, values in whole.items()}
    dims = ("restart", "token", "iteration")
    data = {"entropy": labelled(dims, whole["entropy"], "entropy of the prediction", "nat")}
    data["best_token"] = labelled(dims, whole["topk_ids"], "best token")
    if targets.any():
        rank = whole["target_rank"]
        correct = np.where(np.isfinite(rank) & targets[:, None], rank == 0, np.nan)
        data["correct"] = labelled(dims, correct, "share of targets that are the best token")
        logprob = np.where(targets[:, None], whole["target_logprob"], np.nan)
        data["target_logprob"] = labelled(dims, logprob, "log-probability of the target", "nat")
        cost = run_flops(run)
        if cost is not None:
            spent = cost.at(tokens[targets]).mean().total(np.array(run.kept_iterations))
            data["correct_per_gflop"] = labelled(
                dims,
                per_gflop(correct, spent / GIGA),
                "accuracy over the cost of a token",
                "1/(1e9 operations)",
            )
    coords = {"token": tokens, "iteration": np.array(run.kept_iterations)}
    return xr.Dataset(data, coords=coords)
