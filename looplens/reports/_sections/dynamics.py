"""The section on the dynamics lab, where results of it were stored: why tokens settle or move.

The numbers are those of :mod:`looplens.analysis.dynamics`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from looplens import plots
from looplens.analysis.dynamics import TITLE, WORDS, by_regime
from looplens.errors import AnalysisError
from looplens.plots._labels import number
from looplens.reports._material import Material
from looplens.reports._report import Picture, Section, Table
from looplens.reports._sections.dynamics_facts import POINTS, Results, facts


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
        *((f"{word} point", word) for word in POINTS if word in seen),
        *((word, word) for word in WORDS["causes", "cause"] if word in seen),
    ]
    measured = [("median radius", "radius")]
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
    caption = (
        "Tokens by the regime of the recording (points: with the other tokens held as recorded; "
        "radius: of the own block, with the others at their fixed points)"
    )
    return Table(caption=caption, columns=columns, rows=rows)


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
        "continuation": (
            plots.continuation,
            "The fixed point as a part of the loop is turned up or down, and where runs end then.",
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
