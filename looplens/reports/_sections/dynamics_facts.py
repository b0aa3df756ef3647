"""What the experiments of the dynamics lab found, a number each."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import xarray as xr

from looplens.analysis.dynamics import RATE_TOLERANCE, rates_agree
from looplens.plots._labels import number, percent
from looplens.reports._report import Fact

Results = Mapping[str, xr.Dataset]

POINTS = ("stable", "unstable")
COMES_BACK = ("back", "other_phase", "returning")


def facts(results: Results) -> list[Fact]:
    """Return the findings of the experiments that were done, in the order of the lab."""
    found = []
    for name, say in _FACTS.items():
        fact = say(results[name]) if name in results else None
        if fact is not None:
            found.append(fact)
    return found


def _fixed_points(result: xr.Dataset) -> Fact:
    status = result["status"].values
    held = result.attrs.get("scope") == "token"
    return Fact(
        label="Verified fixed points",
        value=f"{int(np.isin(status, POINTS).sum())} of {len(status)} tokens",
        note=f"{int((status == 'unstable').sum())} of them unstable"
        + ("; the other tokens of the prompt held still" if held else ""),
    )


def _spectra(result: xr.Dataset) -> Fact | None:
    agree = rates_agree(result)
    if not len(agree):
        return None
    return Fact(
        label="Predicted rates",
        value=percent(float(agree.mean())),
        note=f"of {len(agree)} settled tokens close in on their limit at the rate of the "
        f"eigenvalues, within {percent(RATE_TOLERANCE)}",
    )


def _causes(result: xr.Dataset) -> Fact:
    words = result["cause"].values
    moving = words != "comes to rest"
    alone = result["token"].values[np.isin(words, ("own", "both"))].tolist()
    driven = int((words == "driven").sum())
    return Fact(
        label="Tokens that move",
        value=f"{int(moving.sum())} of {len(words)}",
        note=f"{len(alone)} by themselves{_named(alone)}; {driven} driven by another; "
        f"{int((words == 'unexplained').sum())} unexplained",
    )


def _lyapunov(result: xr.Dataset) -> Fact:
    drift = result["token"].values[result["regime"].values == "drift"].tolist()
    return Fact(
        label="Neighbours part",
        value=f"{len(drift)} of {result.sizes['token']} tokens",
        note=f"whose leading exponent is above {number(result.attrs.get('cut', 0))}{_named(drift)}",
    )


def _continuation(result: xr.Dataset) -> Fact:
    part = result.attrs.get("knob_part", "a part")
    nearest = []
    for row in range(result.sizes["token"]):
        one = result.isel(token=row)
        sides = [
            (
                abs(float(one[f"onset_{side}"]) - 1),
                f"{one[f'onset_{side}_kind'].item()} at {number(float(one[f'onset_{side}']))}",
            )
            for side in ("below", "above")
            if np.isfinite(float(one[f"onset_{side}"]))
        ]
        if sides:
            nearest.append(f"token {int(one['token'])}: {min(sides)[1]}")
    return Fact(
        label="Stability changes",
        value=f"{len(nearest)} of {result.sizes['token']} tokens",
        note=f"with a gain on {part}" + (f"; {_some(nearest)}" if nearest else ""),
    )


def _recovery(result: xr.Dataset) -> Fact:
    words = result["outcome"].values
    push = result.attrs.get("push")
    size = push.get("size") if isinstance(push, Mapping) else None
    how = "" if size is None else f" of {number(size)} of the norm"
    return Fact(
        label="Pushed states come back",
        value=f"{int(np.isin(words, COMES_BACK).sum())} of {len(words)} tokens",
        note=f"after a push{how}; {int((words == 'other_phase').sum())} at another time of the "
        "same path",
    )


def _basin_radius(result: xr.Dataset) -> Fact:
    least = result["least_radius"].values
    known = least[np.isfinite(least)]
    if not known.size:
        note = f"all {len(least)} tokens come back from every push"
        return Fact(label="Basin radius", value="none found", note=note)
    return Fact(
        label="Basin radius",
        value=number(float(np.median(known))),
        note=f"of the norm, median over {known.size} tokens: a larger push does not come back; "
        f"{len(least) - known.size} came back from all",
    )


def _damage_cone(result: xr.Dataset) -> Fact:
    share = result["affected_share"].values
    return Fact(
        label="Tokens that notice",
        value=percent(float(np.nanmedian(share))) if np.isfinite(share).any() else "unknown",
        note="of those that see a token whose state is replaced, in the median of "
        f"{len(share)} tokens",
    )


def _swap_states(result: xr.Dataset) -> Fact:
    words = result["ends"].values
    known = words[words != ""]
    return Fact(
        label="Foreign states are forgotten",
        value=percent(float(np.isin(known, ("own", "both")).mean())) if known.size else "unknown",
        note=f"of {known.size} swaps with another prompt end where the own run does",
    )


_FACTS: dict[str, Callable[[xr.Dataset], Fact | None]] = {
    "fixed_points": _fixed_points,
    "spectra": _spectra,
    "causes": _causes,
    "lyapunov": _lyapunov,
    "continuation": _continuation,
    "recovery": _recovery,
    "basin_radius": _basin_radius,
    "damage_cone": _damage_cone,
    "swap_states": _swap_states,
}


def _named(tokens: list[int]) -> str:
    """Name some tokens, in parentheses."""
    return f" (token {_some(list(map(str, tokens)))})" if tokens else ""


def _some(texts: list[str], most: int = 8) -> str:
    more = f" and {len(texts) - most} more" if len(texts) > most else ""
    return ", ".join(texts[:most]) + more
