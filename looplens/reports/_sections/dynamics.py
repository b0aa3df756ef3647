"""The section on the dynamics lab, where results of it were stored: why tokens settle or move.

The numbers are those of :mod:`looplens.analysis.dynamics`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import xarray as xr

from looplens import plots
from looplens.analysis.dynamics import RATE_TOLERANCE, TITLE, by_regime, rates_agree
from looplens.errors import AnalysisError
from looplens.plots._labels import number, percent
from looplens.reports._material import Material
from looplens.reports._report import Fact, Picture, Section, Table

Results = Mapping[str, xr.Dataset]

# Words of the results that stand in a column of their own.
_POINTS = ("stable", "unstable")
_CAUSES = ("own", "driven", "both", "together", "comes to rest", "unexplained")


def dynamics(material: Material) -> Section | None:
    """Return the section on the lab; None where nothing of it is stored."""
    results, run = material.dynamics, material.run
    if not results:
        return None
    table = regime_table(results)
    tokens = len(set().union(*(result["token"].values.tolist() for result in results.values())))
    return Section(
        key="dynamics",
        title=TITLE,
        text=(
            f"The live model was asked about {tokens} of {run.n_tokens} tokens. A token settles "
            "where the loop leaves a state as it is and pulls back what is near, which the "
            "eigenvalues of a step there say. A token that moves does so by itself, about a fixed "
            "point that pushes away, or because one that it reads moves.",
        ),
        facts=tuple(facts(results)),
        tables=() if table is None else (table,),
        pictures=tuple(_pictures(run, results)),
    )


def regime_table(results: Results) -> Table | None:
    """Return what the standard experiments say of tokens of each regime, in words."""
    found = by_regime(results)
    if not found:
        return None
    seen = {key for row in found.values() for key in row}
    counted = [
        *(("fixed point " + word, word) for word in _POINTS if word in seen),
        *((word, word) for word in _CAUSES if word in seen),
    ]
    measured = [("median spectral radius", "radius")]
    measured += [("median exponent", "exponent")] if "exponent" in seen else []
    rows = tuple(
        (
            regime.replace("_", " "),
            number(row["tokens"]),
            *(number(row.get(key, 0.0)) for _, key in counted),
            *(number(row[key]) for _, key in measured),
        )
        for regime, row in found.items()
    )
    columns = ("regime", "tokens", *(title for title, _ in (*counted, *measured)))
    return Table(caption="Tokens by the regime of the recording", columns=columns, rows=rows)


def facts(results: Results) -> list[Fact]:
    """Return the findings of the experiments that were done, a number each."""
    found = []
    if "fixed_points" in results:
        status = results["fixed_points"]["status"].values
        held = results["fixed_points"].attrs.get("scope") == "token"
        found.append(
            Fact(
                label="Verified fixed points",
                value=f"{int(np.isin(status, _POINTS).sum())} of {len(status)} tokens",
                note=f"{int((status == 'unstable').sum())} of them unstable"
                + ("; the other tokens of the prompt held still" if held else ""),
            )
        )
    if "spectra" in results and len(agree := rates_agree(results["spectra"])):
        found.append(
            Fact(
                label="Predicted rates",
                value=percent(float(agree.mean())),
                note=f"of {len(agree)} settled tokens close in on their limit at the rate of the "
                f"eigenvalues, within {percent(RATE_TOLERANCE)}",
            )
        )
    if "causes" in results:
        found.append(_moving(results["causes"]))
    if "lyapunov" in results:
        exponents = results["lyapunov"]
        drift = exponents["token"].values[exponents["regime"].values == "drift"].tolist()
        found.append(
            Fact(
                label="Neighbours part",
                value=f"{len(drift)} of {exponents.sizes['token']} tokens",
                note="whose leading exponent is positive" + _named(drift),
            )
        )
    return found


def _moving(causes: xr.Dataset) -> Fact:
    words = causes["cause"].values
    moving = words != "comes to rest"
    alone = causes["token"].values[np.isin(words, ("own", "both"))].tolist()
    driven = int((words == "driven").sum())
    return Fact(
        label="Tokens that move",
        value=f"{int(moving.sum())} of {len(words)}",
        note=f"{len(alone)} by themselves{_named(alone)}; {driven} driven by another; "
        f"{int((words == 'unexplained').sum())} unexplained",
    )


def _named(tokens: list[int], most: int = 8) -> str:
    """Name some tokens, in parentheses."""
    if not tokens:
        return ""
    shown = ", ".join(map(str, tokens[:most]))
    more = f" and {len(tokens) - most} more" if len(tokens) > most else ""
    return f" (token {shown}{more})"


def _pictures(run: Any, results: Results) -> list[Picture]:
    """Draw spectra, causes and the landscape, of the token that tells the most."""
    captions: dict[str, tuple[Callable[..., Any], str]] = {
        "spectra": (
            plots.spectra,
            "Eigenvalues at fixed points, of tokens of the same regime. Outside the unit circle a "
            "step leads away; rates and periods that follow from them stand against measured ones.",
        ),
        "causes": (
            plots.causes,
            "How far the tokens of a prompt move, and whether they do so by themselves.",
        ),
        "landscape": (
            plots.landscape,
            "How long the step from a state is, on a plane through the end of the trajectory.",
        ),
    }
    found = []
    for name, (draw, caption) in captions.items():
        if name not in results:
            continue
        try:
            figure = draw(run, _telling(results, name))
        except AnalysisError:
            continue
        found.append(Picture(name=f"dynamics-{name}", figure=figure, caption=caption))
    return found


def _telling(results: Results, name: str) -> int:
    """Return a token of a result: one that moves by itself, else that of the largest radius."""
    held = results[name]["token"].values
    if "causes" in results:
        causes = results["causes"]
        alone = causes["token"].values[np.isin(causes["cause"].values, ("own", "both"))]
        if len(both := np.intersect1d(alone, held)):
            return int(both[0])
    if "spectra" in results:
        radius = results["spectra"]["radius"].to_series()
        radius = radius[radius.index.isin(held)].dropna()
        if len(radius):
            return int(radius.idxmax())
    return int(held[0])
