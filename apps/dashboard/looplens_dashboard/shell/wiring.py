"""How a choice becomes a selection, and a selection the address, the bar and the panels.

One server callback turns whatever was chosen into the next selection; one draws the figure and one
the body of any panel. Everything else here names a function of ``assets/``, which runs in the
browser: writing the address, telling panels what changed, and all that follows the scrubber.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dash import ALL, MATCH, ClientsideFunction, Dash, Input, Output, State, ctx, no_update
from dash.exceptions import PreventUpdate

from looplens.errors import LoopLensError
from looplens_dashboard.panels.card import card, without_run
from looplens_dashboard.panels.drawing import attempt, fitted, message
from looplens_dashboard.panels.panel import Page, Panel, part
from looplens_dashboard.selection import Selection, changed, read, texts
from looplens_dashboard.shell import bar
from looplens_dashboard.view import View, Views


class Shell:
    """The pages of the app over some runs.

    Parameters
    ----------
    views : Views
        The runs.
    pages : tuple of Page
        The pages; the first is shown first.
    bar_panels : tuple of Panel
        Panels of the bar.
    """

    def __init__(
        self, views: Views, pages: tuple[Page, ...], bar_panels: tuple[Panel, ...]
    ) -> None:
        self.views = views
        self.pages = {page.name: page for page in pages}
        self.bar_panels = bar_panels
        self.panels = {panel.name: panel for page in pages for panel in page.panels}
        self.panels |= {panel.name: panel for panel in bar_panels}

    def select(self, values: Mapping[str, Any]) -> tuple[View, Selection, list[str]]:
        """Return a valid selection, its run, and what of the values was replaced.

        Raises
        ------
        LoopLensError
            If there is no run, or the run cannot be opened.
        """
        notes = []
        key = str(values.get("run") or "")
        known = [entry.key for entry in self.views.workspace.entries(seconds=0)]
        if key not in known:
            if key:
                notes.append(f"There is no run {key[:40]!r} here. Showing another one.")
            key = self.views.default() or ""
        view = self.views.open(key)
        selection, more = read(values, view.limits, list(self.pages))
        return view, selection, notes + more

    def current(self, values: Any, iteration: Any) -> tuple[View, Selection]:
        """Return what the browser says is selected, checked; stop when nothing is yet."""
        if not values or "problem" in values:
            raise PreventUpdate
        view, selection, _ = self.select({**values, "iteration": iteration})
        return view, selection

    # The callbacks

    def next_selection(self, address: Any, picked: Any, values: Any) -> tuple[Any, ...]:
        """Turn what was opened, clicked or chosen into the next selection."""
        notes: list[str] = []
        opened = values is None or "address" in ctx.triggered_prop_ids.values()
        if opened:
            wanted, notes = texts(address)
        else:
            wanted = changed(values, picked if isinstance(picked, dict) else {})
            wanted.pop("problem", None)
        try:
            _, selection, more = self.select(wanted)
        except LoopLensError as error:
            page = (
                wanted.get("page") if wanted.get("page") in self.pages else next(iter(self.pages))
            )
            run = str(wanted.get("run") or "")
            problem = {"page": page, "run": run, "theme": wanted.get("theme", "light")}
            problem["problem"] = str(error)
            return problem, 0, {}, " ".join(notes), not notes
        after = {name: text for name, text in selection.values().items() if name != "iteration"}
        moved = opened or values.get("run") != selection.run
        notes += more
        return (
            no_update if after == values else after,
            # While a run is looked at the scrubber belongs to the browser alone.
            selection.iteration if moved else no_update,
            dict(selection.defaults) if moved else no_update,
            " ".join(notes),
            not notes,
        )

    def content(self, place: Any, values: Any, iteration: Any) -> Any:
        """Return the panels of a page."""
        if not place or not values:
            raise PreventUpdate
        page = self.pages[values["page"]]
        if "problem" in values and page.of_run:
            return message(values["problem"], fault=True)
        try:
            view, selection, _ = self.select({**values, "iteration": iteration})
        except LoopLensError as error:
            return message(str(error), fault=True) if page.of_run else without_run(page.panels)
        return [card(panel, view, selection) for panel in page.panels]

    def bar(self, place: Any, values: Any, iteration: Any) -> Any:
        """Return the bar of a run."""
        if not place or not values:
            raise PreventUpdate
        if not self.pages[values["page"]].of_run:
            raise PreventUpdate  # it is out of sight there, and callbacks still know its parts
        if "problem" in values:
            return bar.run_select(self.views.workspace, values["run"])
        view, selection = self.current(values, iteration)
        return bar.bar(view, selection, self.bar_panels)

    def figure(self, name: str, values: Any, iteration: Any) -> tuple[Any, ...]:
        """Return figure, caption, message, class and frames of a panel."""
        view, selection = self.current(values, iteration)
        panel = self.panels[name]
        drawn, trouble = attempt(lambda: fitted(panel, view, selection))
        if trouble is not None:
            return no_update, "", trouble, "figure hidden", None
        figure, caption = drawn
        frames, trouble = _frames(panel, view, selection)
        if trouble is not None:
            return no_update, "", trouble, "figure hidden", None
        note = (frames or {}).get("note")
        caption = " · ".join(filter(None, (caption, note)))
        return figure, caption, None, "figure", frames

    def body(self, name: str, values: Any, iteration: Any) -> tuple[Any, Any]:
        """Return the body of a panel that is not a figure, and its frames."""
        view, selection = self.current(values, iteration)
        panel = self.panels[name]
        assert panel.body is not None
        shown, trouble = attempt(lambda: panel.body(view, selection))
        if trouble is not None:
            return trouble, None
        frames, trouble = _frames(panel, view, selection)
        return (trouble, None) if trouble is not None else (shown, frames)


def _frames(panel: Panel, view: View, selection: Selection) -> tuple[Any, Any]:
    """Return what a panel sends for the scrubber, if anything, or a message."""
    return attempt(lambda: panel.frames(view, selection) if panel.frames else None)


def register(app: Dash, shell: Shell) -> None:
    """Add the callbacks of the app."""

    @app.callback(
        Output("selection", "data"),
        Output("iteration", "data"),
        Output("defaults", "data"),
        Output("note", "children"),
        Output("note", "hide"),
        Input("address", "data"),
        Input("picked", "data"),
        State("selection", "data"),
    )
    def select(address: Any, picked: Any, values: Any) -> tuple[Any, ...]:
        return shell.next_selection(address, picked, values)

    @app.callback(
        Output("bar", "children"),
        Input("bar-place", "data"),
        State("selection", "data"),
        State("iteration", "data"),
        prevent_initial_call=True,
    )
    def show_bar(place: Any, values: Any, iteration: Any) -> Any:
        return shell.bar(place, values, iteration)

    @app.callback(
        Output("content", "children"),
        Input("place", "data"),
        State("selection", "data"),
        State("iteration", "data"),
        prevent_initial_call=True,
    )
    def show_page(place: Any, values: Any, iteration: Any) -> Any:
        return shell.content(place, values, iteration)

    @app.callback(
        Output(part(MATCH, "graph"), "figure"),
        Output(part(MATCH, "caption"), "children"),
        Output(part(MATCH, "message"), "children"),
        Output(part(MATCH, "figure"), "className"),
        Output(part(MATCH, "frames"), "data"),
        Input(part(MATCH, "view"), "data"),
        State("selection", "data"),
        State("iteration", "data"),
        prevent_initial_call=True,
    )
    def draw_figure(_changed: Any, values: Any, iteration: Any) -> tuple[Any, ...]:
        return shell.figure(ctx.triggered_id["panel"], values, iteration)

    @app.callback(
        Output(part(MATCH, "body", "body"), "children"),
        Output(part(MATCH, "frames", "body"), "data"),
        Input(part(MATCH, "view", "body"), "data"),
        State("selection", "data"),
        State("iteration", "data"),
        prevent_initial_call=True,
    )
    def draw_body(_changed: Any, values: Any, iteration: Any) -> tuple[Any, Any]:
        return shell.body(ctx.triggered_id["panel"], values, iteration)

    @app.callback(
        Output({"control": "prompt"}, "data"),
        Input({"control": "prompt"}, "searchValue"),
        State("selection", "data"),
        prevent_initial_call=True,
    )
    def find_prompts(search: Any, values: Any) -> Any:
        view, selection = shell.current(values, None)
        if view.limits.prompts <= bar.MOST_PROMPTS:
            raise PreventUpdate
        found = bar.prompt_options(view, selection.prompt, str(search or "")[:200])
        return [{"value": value, "label": label} for value, label in found]

    _register_browser(app)
    for panel in shell.panels.values():
        if panel.register is not None:
            panel.register(app, shell.views)


def _register_browser(app: Dash) -> None:
    def browser(function: str, *arguments: Any, **options: Any) -> None:
        app.clientside_callback(ClientsideFunction("looplens", function), *arguments, **options)

    browser("readAddress", Output("address", "data"), Input("panel-keys", "data"))
    browser(
        "writeAddress",
        Input("selection", "data"),
        Input("iteration", "data"),
        State("defaults", "data"),
    )
    browser("theme", Output("provider", "forceColorScheme"), Input("selection", "data"))
    browser(
        "places",
        Output("place", "data"),
        Output("bar-place", "data"),
        Input("selection", "data"),
        State("place", "data"),
        State("bar-place", "data"),
    )
    browser(
        "route",
        Output(part(ALL, "view", ALL), "data"),
        Input("selection", "data"),
        State("panel-keys", "data"),
        State(part(ALL, "view", ALL), "id"),
        State(part(ALL, "view", ALL), "data"),
    )
    browser(
        "follow",
        Input("iteration", "data"),
        Input("selection", "data"),
        Input(part(ALL, "graph"), "figure"),
        Input(part(ALL, "frames", ALL), "data"),
        State(part(ALL, "frames", ALL), "id"),
    )
    # Not outputs of the server: Dash would hold back what is chosen until it has answered the last.
    browser(
        "agree",
        Input("selection", "data"),
        State({"control": ALL}, "value"),
        State({"control": ALL}, "id"),
    )
    browser("choose", Input({"control": ALL}, "value"), State({"control": ALL}, "id"))
    browser("speed", Input("speed", "value"))
