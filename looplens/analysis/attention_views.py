"""Attention maps of a prompt, small enough to be looked at, and the difference of two of them.

A map of a long prompt is joined into fewer cells: each shows the largest weight of a block of
neighbouring queries and keys, so that no strong head is averaged away. How far maps are apart in
one number, and when they settle, are the analyses ``attention_change`` and ``stages``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from looplens.analysis.algebra.inputs import whole_number
from looplens.analysis.analyzers._analyzer import labelled
from looplens.errors import AnalysisError, InputError

if TYPE_CHECKING:
    from looplens.store import StoredRun

MOST_SHOWN = 16_384
"""Weights of one iteration that a figure shows: a map of 128 tokens, or all heads together."""

MEAN = "mean"
"""Value of `head` that means the mean over heads."""


def attention_maps(
    run: StoredRun,
    prompt: int,
    iterations: int | Sequence[int] | None = None,
    *,
    layer: int | None = None,
    head: int | str | None = None,
    restart: int = 0,
    most: int | None = None,
) -> xr.Dataset:
    """Read attention maps of a prompt; only the iterations that are asked for are read.

    Parameters
    ----------
    run : StoredRun
        A run with the attention of the prompt.
    prompt : int
        Prompt number.
    iterations : int or sequence of int, optional
        Which iterations, of 1..T; an int leaves no axis. All that were kept by default.
    layer : int, optional
        Core layer; the first that was kept by default.
    head : int or {"mean"}, optional
        One head, or the mean over heads; neither has the axis ``head``. All heads by default.
    restart : int
        Which draw of the initial state.
    most : int, optional
        Most weights of an iteration, all heads together: neighbouring tokens are joined until they
        fit. No limit by default.

    Returns
    -------
    Dataset
        ``weight`` ([iteration,] [head,] query, key): the largest attention weight of the cell, NaN
        where every key comes after every query and the maps are causal. The coordinates ``query``
        and ``key`` are the positions of the first token of a cell; ``tokens_per_cell`` is an
        attribute of the dataset.

    Raises
    ------
    InputError
        If something asked for is not in the run.
    AnalysisError
        If the attention of this prompt was not recorded.
    """
    _check_recorded(run, prompt)
    if most is not None:
        whole_number(most, "most", least=1)
    read = run.attention(
        prompt,
        restart=restart,
        layer=run.recorded_layers[0] if layer is None else layer,
        iteration=iterations,
    )
    heads = read.sizes["head"]
    if head == MEAN:
        read = read.mean("head", dtype=np.float32)
    elif head is not None:
        if isinstance(head, str) or not 0 <= head < heads:
            raise InputError(
                f"head must be 0 to {heads - 1} or {MEAN!r}, got {head!r}. Leave it out for all."
            )
        read = read.isel(head=head)
    axes = tuple(name for name in ("iteration", "head", "query", "key") if name in read.dims)
    weights = read.transpose(*axes).values
    length = weights.shape[-1]
    each = None if most is None else max(2, math.isqrt(most // read.sizes.get("head", 1)))
    joined = 1 if each is None else -(-length // each)
    places = np.arange(0, length, joined)
    found = join_cells(weights, joined)
    if _is_causal(weights):
        found[..., np.triu(np.ones((len(places), len(places)), dtype=bool), k=1)] = np.nan
    coords: dict[str, Any] = {"query": places, "key": places}
    coords |= {name: read[name] for name in ("iteration",) if name in read.coords}
    if "head" in axes:
        coords["head"] = np.arange(heads)
    weight = labelled(axes, found, "largest attention weight of the cell")
    return xr.Dataset({"weight": weight}, coords, {"tokens_per_cell": joined, "tokens": length})


def attention_difference(
    run: StoredRun,
    prompt: int,
    iteration: int,
    other: int,
    *,
    layer: int | None = None,
    head: int | str | None = None,
    restart: int = 0,
    most: int | None = None,
) -> xr.Dataset:
    """Return the attention at one iteration minus that at another.

    Parameters
    ----------
    iteration, other : int
        Iterations of 1..T; what `iteration` has more of is positive.
    run, prompt, layer, head, restart, most
        As for `attention_maps`, whose errors apply.

    Returns
    -------
    Dataset
        ``difference`` ([head,] query, key), between -1 and 1, of the maps that `attention_maps`
        gives: where tokens are joined, the difference of the largest weights of the cell.
    """
    found = attention_maps(
        run,
        prompt,
        [iteration, other],
        layer=layer,
        head=head,
        restart=restart,
        most=most,
    )
    weight = found["weight"]
    difference = weight.isel(iteration=0) - weight.isel(iteration=1)
    difference = difference.drop_vars("iteration", errors="ignore")
    difference.attrs = {
        "long_name": f"attention weight at iteration {iteration} minus that at {other}",
        "units": "1",
    }
    return xr.Dataset({"difference": difference}, attrs=found.attrs)


def join_cells(weights: NDArray[np.floating], joined: int) -> NDArray[np.float32]:
    """Return the largest weight of each block of `joined` x `joined` over the last two axes.

    The last block is smaller where the length is no multiple. A block with NaN is NaN.
    """
    found = np.array(weights, dtype=np.float32)
    for axis in (-2, -1) if joined > 1 else ():  # whole rows first: they are quick
        found = np.moveaxis(found, axis, 0)
        largest = found[::joined].copy()
        for further in range(1, joined):
            part = found[further::joined]  # shorter by one where the last block is smaller
            np.maximum(largest[: len(part)], part, out=largest[: len(part)])
        found = np.moveaxis(largest, 0, axis)
    return np.ascontiguousarray(found)


def _is_causal(weights: NDArray[np.floating]) -> bool:
    """Whether no query attends to a key after it; told by the first iteration that is there."""
    one = weights.reshape(-1, *weights.shape[-3:])[0] if weights.ndim > 3 else weights
    above = np.triu(np.ones(one.shape[-2:], dtype=bool), k=1)
    return not np.nan_to_num(one[..., above]).any()


def _check_recorded(run: StoredRun, prompt: int) -> None:
    recorded = run.attention_prompts
    if not recorded:
        raise AnalysisError(
            "This run holds no attention. Record it again with attention=True (all prompts) or "
            "attention=[0, 1] (these prompts), for example looplens.record(model, prompts, "
            "out=..., attention=True)."
        )
    if prompt not in recorded:
        listed = ", ".join(map(str, recorded[:12])) + (", …" if len(recorded) > 12 else "")
        raise AnalysisError(
            f"The attention of prompt {prompt} was not recorded; that of these prompts was: "
            f"{listed}. The option attention= of looplens.record says which prompts are kept."
        )
