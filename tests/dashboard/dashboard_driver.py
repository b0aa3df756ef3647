"""Two ways to use the app in tests: its callbacks over HTTP, and a page in a browser."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from looplens_dashboard import create_app, pages
from looplens_dashboard.selection import Selection, read, texts
from looplens_dashboard.serving import running
from looplens_dashboard.view import View, Views
from looplens_dashboard.workspace import Workspace

PAGES = [page.name for page in pages.PAGES]
LONGEST_ANSWER = 20.0
"""Seconds that a request of a page is waited for."""


def serving(*paths: Path) -> Any:
    """Serve runs on a free port for a ``with`` block; give the address."""
    return running(create_app(list(paths)))


def view_of(*paths: Path) -> View:
    """Return the view of the first of some runs, as panels get it."""
    workspace = Workspace(list(paths))
    return Views(workspace, pages.choices()).open(workspace.default_key or "")


def selected(view: View, address: str = "") -> Selection:
    """Return the selection of an address, which has to be one that the run can show."""
    values, notes = texts(address)
    selection, more = read(values, view.limits, PAGES)
    assert notes + more == []
    return selection


class Client:
    """Calls the callbacks of an app the way that the browser does."""

    def __init__(self, *paths: Path, **options: Any) -> None:
        self.app = create_app(list(paths), **options)
        self.http = self.app.server.test_client()
        self.dependencies = self.http.get("/_dash-dependencies").get_json()

    def call(
        self,
        output: str,
        changed: str,
        values: dict[str, Any],
        *,
        panel: str | None = None,
    ) -> dict[str, Any]:
        """Call the callback whose outputs contain a text; ``values`` by ``id.property``."""
        dependency = next(
            one
            for one in self.dependencies
            if output in one["output"] and not one["clientside_function"]
        )

        def named(identity: str) -> dict[str, Any]:
            return {**json.loads(identity), **({"panel": panel} if panel else {})}

        def filled(wanted: dict[str, str]) -> Any:
            key = f"{wanted['id']}.{wanted['property']}"
            identity = named(wanted["id"]) if wanted["id"].startswith("{") else wanted["id"]
            return {**wanted, "id": identity, "value": values.get(key)}

        def target(text: str) -> Any:
            component, prop = text.rsplit(".", 1)
            identity = named(component) if component.startswith("{") else component
            return {"id": identity, "property": prop}

        outputs = [target(text) for text in dependency["output"].strip(".").split("...")]
        response = self.http.post(
            "/_dash-update-component",
            json={
                "output": dependency["output"],
                "outputs": outputs if len(outputs) > 1 else outputs[0],
                "inputs": [filled(one) for one in dependency["inputs"]],
                "state": [filled(one) for one in dependency["state"]],
                "changedPropIds": [changed],
            },
        )
        if response.status_code == 204:
            return {}
        assert response.status_code == 200, response.get_data(as_text=True)
        return response.get_json()["response"]

    def select(
        self, address: str = "", *, selection: Any = None, picked: Any = None
    ) -> dict[str, Any]:
        """Open an address, or change a selection by what was clicked or chosen."""
        return self.call(
            "selection.data",
            "address.data" if selection is None else "picked.data",
            {"address.data": address, "picked.data": picked, "selection.data": selection},
        )

    def opened(self, address: str = "") -> tuple[dict[str, str], int]:
        """Return the selection and the iteration that an address opens."""
        response = self.select(address)
        return response["selection"]["data"], response["iteration"]["data"]

    def panel(self, name: str, address: str = "") -> dict[str, Any]:
        """Draw a panel for an address: what each of its parts gets, by the name of the part."""
        selection, iteration = self.opened(address)
        kind = pages.panels()[name].kind
        part = "graph" if kind == "figure" else "body"
        identity = {"kind": kind, "panel": name, "part": "view"}
        response = self.call(
            f'"kind":"{kind}","panel":["MATCH"],"part":"{part}"',
            json.dumps(identity, separators=(",", ":")) + ".data",
            {"selection.data": selection, "iteration.data": iteration},
            panel=name,
        )
        found: dict[str, Any] = {}
        for key, value in response.items():
            found[json.loads(key)["part"]] = next(iter(value.values()))
        return found

    def page(self, address: str) -> str:
        """Return the panels of the page of an address, as the text that the browser gets."""
        selection, iteration = self.opened(address)
        response = self.call(
            "content.children",
            "place.data",
            {"place.data": {}, "selection.data": selection, "iteration.data": iteration}
            | {"place.data": {"page": selection["page"]}},
        )
        return json.dumps(response)


class Visit:
    """A page of the app, with all that it asked for and complained about."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.requests: list[str] = []
        self._since: dict[Any, float] = {}
        self.complaints: list[str] = []
        page.on("request", self._began)
        page.on("requestfinished", self._ended)
        page.on("requestfailed", self._ended)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on(
            "console",
            lambda line: self.complaints.append(line.text) if line.type == "error" else None,
        )

    def _began(self, request: Any) -> None:
        self.requests.append(request.url)
        self._since[request] = time.monotonic()

    def _ended(self, request: Any) -> None:
        self._since.pop(request, None)

    @property
    def under_way(self) -> list[str]:
        """What was asked and not answered; the end of a request is not always told."""
        now = time.monotonic()
        return [one.url for one, since in self._since.items() if now - since < LONGEST_ANSWER]

    @property
    def updates(self) -> int:
        """How many callbacks the server was asked to run."""
        return sum("_dash-update-component" in url for url in self.requests)

    def open(self, url: str) -> Visit:
        """Open an address and wait until every panel of the page is drawn."""
        self.page.goto(url)
        self.page.wait_for_selector("#content > section, #content > .message")
        return self.drawn()

    def drawn(self) -> Visit:
        """Wait until no panel of the page waits for what it shows, and the page is at rest."""
        self.settle()
        self.page.wait_for_function(
            "[...document.querySelectorAll('[data-panel]')].every((panel) => "
            "!panel.textContent.includes('Drawing…'))",
            timeout=60_000,
        )
        self.settle()
        return self

    def settle(self) -> None:
        """Wait until the page has nothing to do and the address has been written."""
        quiet = 0
        deadline = time.monotonic() + 4 * LONGEST_ANSWER
        while quiet < 3:
            self.page.wait_for_timeout(60)
            self.page.evaluate("new Promise((done) => requestIdleCallback(done, {timeout: 10000}))")
            writing = self.page.evaluate("Boolean(window.looplens?.isWriting?.())")
            quiet = 0 if writing or self.under_way else quiet + 1
            assert time.monotonic() < deadline, f"no rest: writing {writing}, {self.under_way}"

    def eventually(self, probe: Callable[[], Any], expected: Any) -> None:
        """Assert that a value becomes the expected one; a busy machine may take its time."""
        deadline = time.monotonic() + 20
        while (seen := probe()) != expected and time.monotonic() < deadline:
            self.page.wait_for_timeout(50)
        assert seen == expected

    def slow_down(self, times: int) -> Visit:
        """Make the processor of the page that many times slower, as on a busy machine."""
        session = self.page.context.new_cdp_session(self.page)
        session.send("Emulation.setCPUThrottlingRate", {"rate": times})
        return self

    def wait_for_query(self, **expected: str) -> None:
        """Wait until the address says what is expected; it is written a little later."""
        conditions = [
            f"new URLSearchParams(location.search).get('{name}') === '{value}'"
            for name, value in expected.items()
        ]
        self.page.wait_for_function(" && ".join(conditions), timeout=30_000)

    def graph(self, name: str, expression: str) -> Any:
        """Evaluate JavaScript with ``graph`` bound to the plotly element of a panel."""
        return self.page.evaluate(
            f"(() => {{ const graph = looplens.graph('{name}'); return {expression}; }})()"
        )

    @property
    def query(self) -> dict[str, str]:
        """The parts of the address."""
        return dict(self.page.evaluate("[...new URLSearchParams(location.search)]"))
