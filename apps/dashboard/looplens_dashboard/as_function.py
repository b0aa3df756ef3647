"""Every panel as a function: the figure that the app would show, without the app."""

from __future__ import annotations

from typing import Any

from looplens import plots
from looplens.errors import InputError, near_matches
from looplens.run import Run
from looplens_dashboard import pages
from looplens_dashboard.panels.panel import Panel
from looplens_dashboard.selection import Selection, read
from looplens_dashboard.view import View, Views
from looplens_dashboard.workspace import Workspace


def panel(run: Run, name: str, **place: Any) -> plots.Figure:
    """Return the figure of a panel of the app.

    Parameters
    ----------
    run : looplens.Run
        The opened run.
    name : str
        Name of the panel, such as ``"trajectory"``; `panel_names` lists them.
    **place
        Parts of the selection, as in the address of the app: ``token``, ``also`` (further tokens,
        a list), ``prompt``, ``restart``, ``layer``, ``head``, ``iteration``, ``theme``, and the
        choices of the panel, such as ``basis="token"``. What is left out has its default.

    Returns
    -------
    Figure
        The same figure, with its title and size.

    Raises
    ------
    InputError
        If there is no such panel, or something of the place is not in the run.
    AnalysisError
        If the run does not hold what the panel shows.

    Examples
    --------
    >>> looplens_dashboard.panel(run, "trajectory", token=14, basis="tail")  # doctest: +SKIP
    """
    known = pages.panels()
    if name not in panel_names():
        raise InputError(
            f"There is no panel {name!r} that is a figure.{near_matches(name, panel_names())} "
            f"The panels are: {', '.join(panel_names())}."
        )
    view, selection = _placed(run, known[name], place)
    call = known[name].call
    assert call is not None
    return call(view, selection).draw(run, selection.theme)


def panel_names() -> list[str]:
    """Return the names of the panels that are figures, in the order of the pages."""
    return [name for name, one in pages.panels().items() if one.call and not one.body]


def _placed(run: Run, one: Panel, place: dict[str, Any]) -> tuple[View, Selection]:
    workspace = Workspace(run)
    key = workspace.default_key or ""
    view = View(run, key, Views(workspace, pages.choices()), pages.choices())
    page = next((p.name for p in pages.PAGES if one in p.panels), pages.PAGES[0].name)
    texts = {
        name: ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
        for name, value in place.items()
        if value is not None
    }
    selection, notes = read({**texts, "page": page}, view.limits, [p.name for p in pages.PAGES])
    if notes:
        raise InputError(" ".join(notes))
    return view, selection
