"""The numbers that the stored analyses have for the selected token."""

from __future__ import annotations

from typing import Any

import xarray as xr
from dash import html
from dash.development.base_component import Component

from looplens.analysis import ANALYZERS, get
from looplens.analysis.dynamics import TITLE, dynamics_results
from looplens.errors import AnalysisError
from looplens_dashboard.panels.panel import Panel
from looplens_dashboard.selection import Selection
from looplens_dashboard.view import View


def numbers(view: View, token: int, restart: int) -> dict[str, list[tuple[str, str, str]]]:
    """Return what the stored analyses say of one trajectory in one number or word.

    What the dynamics lab stored is of one restart and shown for any.

    Returns
    -------
    dict
        By title of the analysis: (name, value, what it is).
    """
    found: dict[str, list[tuple[str, str, str]]] = {}
    stored = set(view.run.analyses)
    for name, analyzer in ANALYZERS.items():
        if name in stored:
            whole = get(view.run, name)
            single = [key for key, value in whole.data_vars.items() if _is_single(value)]
            place = {"token": token, "restart": restart}
            piece = whole[single].isel(place, missing_dims="ignore")
            if rows := _rows(piece, whole):
                found[analyzer.title] = rows
    for name, whole in dynamics_results(view.run).items():
        if token in whole["token"].values and (rows := _rows(whole.sel(token=token), whole)):
            of = f" of restart {whole.attrs['restart']}" if "restart" in whole.attrs else ""
            found[f"{TITLE}: {name.replace('_', ' ')}{of}"] = rows
    return found


def body(view: View, selection: Selection) -> Component:
    """Return a table for each analysis."""
    found = numbers(view, selection.token, selection.restart)
    if not found:
        raise AnalysisError(
            f"No analysis is stored in this run. Store them with: looplens analyze {view.run.path}"
        )
    tables = [
        html.Table(
            [
                html.Thead(html.Tr(html.Th(title, colSpan=2))),
                html.Tbody(
                    [
                        html.Tr([html.Td(name, title=meaning), html.Td(value)])
                        for name, value, meaning in rows
                    ]
                ),
            ],
            className="numbers",
        )
        for title, rows in found.items()
    ]
    return html.Div(tables, className="number-columns")


def _is_single(values: xr.DataArray) -> bool:
    """Whether a token has one value, or one a restart."""
    return "token" in values.dims and set(values.dims) <= {"token", "restart"}


def _rows(piece: xr.Dataset, whole: xr.Dataset) -> list[tuple[str, str, str]]:
    """Return the single values of a piece of a result: name, value, what it is."""
    return [
        (
            str(variable).replace("_", " "),
            _short(values.values.item()),
            str(values.attrs.get("long_name", "")),
        )
        for variable, values in piece.data_vars.items()
        if not values.dims and "token" in whole[variable].dims
    ]


def _short(value: Any) -> str:
    """Write a number or word of an analysis; an empty one, or one that is not known, as a dash."""
    if isinstance(value, float):
        return f"{value:.4g}" if value == value else "–"
    return str(value).replace("_", " ") or "–"


PANEL = Panel(
    name="numbers",
    title="Numbers of the token",
    answers="What does every stored analysis say of this token, in numbers?",
    keys=("token", "restart"),
    body=body,
    span=12,
    wide=4,
    height=540,
)
