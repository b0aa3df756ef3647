"""Spectra as a labelled result."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from looplens.dynamics.exponents.averages import kaplan_yorke, regime_of
from looplens.dynamics.exponents.blocks import Spectra
from looplens.dynamics.exponents.trajectories import Trajectory
from looplens.dynamics.exponents.windows import Windows
from looplens.dynamics.maps.labelled import labelled, variable
from looplens.dynamics.maps.recorded import Recorded
from looplens.dynamics.maps.state_map import StateMap

_RATE = "1/iteration"
_BY = ("token", "exponent")
_NOTES = (
    "negative exponents mean that neighbours meet, which they do on a stable orbit too",
    "in a tail at rest (rest_share) the exponents are those of the limit, not of the motion",
)


def dataset_of(
    taken: Recorded,
    trajectory: Trajectory,
    parted: Windows,
    *,
    positions: Sequence[int],
    own: Spectra,
    whole: Spectra | None,
    leading: np.ndarray | None,
    names: Sequence[str],
    cut: float,
    map_: StateMap,
    notes: Sequence[str],
    attrs: dict[str, Any],
) -> xr.Dataset:
    """Name and label the spectra of some tokens.

    Parameters
    ----------
    taken, trajectory, parted
        What was recorded, without gaps, and its windows.
    positions : sequence of int
        The tokens.
    own : Spectra
        Of their blocks.
    whole : Spectra or None
        Of the sequence, in one row.
    leading : ndarray, shape (pos,), or None
        Leading exponents of all tokens up to the last one of `positions`.
    names : sequence of str
        Of the sublayers; empty where the stretch is not attributed.
    cut : float
        Of the regimes.
    map_ : StateMap
        The map of a token.
    notes : sequence of str
        What else a reader should know.
    attrs : dict
        Further attributes of the result.
    """
    chosen = list(positions)
    data: dict[str, xr.Variable] = {}

    def put(name: str, dims: tuple[str, ...], values: Any, text: str, units: str = "1") -> None:
        data[name] = variable(dims, values, text, units)

    k = own.exponents.shape[1]
    put("exponents", _BY, own.exponents, "Lyapunov exponents of the tail", _RATE)
    put("error", _BY, own.error, "standard error of these means", _RATE)
    put("transient_exponents", _BY, own.transient, "exponents of the transient", _RATE)
    along, since = own.growth.cumsum(1).astype(np.float32), "log stretch since the first iteration"
    put("log_stretch", ("token", "iteration", "exponent"), along, since)
    ends = "last iteration of the transient of the token and all that it reads"
    put("transient_end", ("token",), parted.transient_end[chosen], ends, "iteration")
    starts = "first iteration of the tail that counts"
    put("tail_start", ("token",), parted.tail_start[chosen], starts, "iteration")
    rules = np.array([parted.rule[position] for position in chosen], dtype=object)
    put("tail_rule", ("token",), rules, "where the tail begins")
    put("rest_share", ("token",), parted.rest_share[chosen], "share of the tail that is rounding")
    regime, margin, clear = regime_of(own.exponents[:, 0], own.error[:, 0], cut)
    put("regime", ("token",), regime, "what the leading exponent means for neighbours")
    put("margin", ("token",), margin, "distance of the leading exponent to the nearest cut", _RATE)
    put("clear", ("token",), clear, "whether the margin is more than two errors")
    dimension = kaplan_yorke(own.exponents, own.error, taken.states.shape[2])
    put("dimension", ("token",), dimension, "Kaplan-Yorke dimension of the token")
    spread = own.exponents[:, 0] - own.exponents[:, -1]
    put("spread", ("token",), spread, f"first exponent minus number {k}", _RATE)
    if leading is not None:
        first = [int(np.argmax(np.nan_to_num(leading[: p + 1], nan=-np.inf))) for p in chosen]
        largest = "largest leading exponent of the token and those before it"
        put("upstream_exponent", ("token",), leading[first], largest, _RATE)
        put("upstream_token", ("token",), np.array(taken.numbers(first)), "the token that has it")
    share = "stretch by a sublayer, which add up to the exponent"
    if own.stretch.shape[1]:
        dims = ("token", "sublayer", "exponent")
        put("stretch", dims, own.stretch, f"{share} of the tail", _RATE)
        put("transient_stretch", dims, own.transient_stretch, f"{share} of the transient", _RATE)
    if whole is not None:
        parts = {
            "sequence_exponents": (whole.exponents, "Lyapunov exponents of the whole sequence"),
            "sequence_error": (whole.error, "standard error of these means"),
            "sequence_transient_exponents": (whole.transient, "the same over its transient"),
        }
        for name, (values, text) in parts.items():
            put(name, _BY, np.repeat(values, len(chosen), 0), text, _RATE)
        if whole.stretch.shape[1]:
            dims = ("token", "sublayer", "exponent")
            values = np.repeat(whole.stretch, len(chosen), 0)
            put("sequence_stretch", dims, values, f"{share} of the sequence", _RATE)
    coords: dict[str, Any] = {"exponent": np.arange(1, k + 1), "iteration": parted.steps}
    if any("sublayer" in one.dims for one in data.values()):
        coords["sublayer"] = np.array(names, dtype=object)
    return labelled(
        taken,
        chosen,
        data,
        method="Benettin: frames carried by products with the Jacobian",
        maps=[map_],
        coords=coords,
        notes=[*_NOTES, *notes],
        first_iteration=trajectory.first,
        iteration=parted.last,
        states_computed=trajectory.computed,
        k=k,
        cut=cut,
        **attrs,
    )
