"""Two ways to use the dashboard in tests: its callbacks over HTTP, and a page in a browser."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from looplens_dashboard import create_app
from looplens_dashboard.app import make_http_server
from looplens_dashboard.selection import parse
from looplens_dashboard.view import View

CONTROLS = (
    "prompt",
    "restart",
    "theme",
    "colour",
    "layer",
    "dims",
    "attention_layer",
    "head",
    "figure",
)


@contextlib.contextmanager
def serving(path: Path) -> Iterator[str]:
    """Serve a run on a free port of this machine; give its address."""
    server = make_http_server(create_app(path), port=0)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.port}/"
    server.shutdown()
    server.server_close()
    thread.join()


class Client:
    """Calls the callbacks of an app the way that the browser does."""

    def __init__(self, path: Path) -> None:
        self.app = create_app(path)
        self.http = self.app.server.test_client()
        self.dependencies = self.http.get("/_dash-dependencies").get_json()
        self.limits = View(path).limits

    def call(self, output: str, changed: str, **values: Any) -> dict[str, Any]:
        """Call the callback with that output; ``values`` by the ids of inputs and states."""
        dependency = next(
            one
            for one in self.dependencies
            if output in one["output"].strip(".").split("...") and not one["clientside_function"]
        )
        controls = values.pop("controls", {})

        def filled(wanted: dict[str, str]) -> Any:
            if wanted["id"].startswith("{"):
                return [
                    {"id": {"control": name}, "property": wanted["property"], "value": value}
                    for name, value in controls.items()
                ]
            name = wanted["id"].replace("-", "_")
            return {**wanted, "value": values.get(name)}

        def target(text: str) -> Any:
            component, prop = text.rsplit(".", 1)
            if component.startswith("{"):
                return [{"id": {"control": name}, "property": prop} for name in controls]
            return {"id": component, "property": prop}

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
        assert response.status_code == 200, response.get_data(as_text=True)
        return response.get_json()["response"]

    def select(
        self, query: str = "", *, selection: Any = None, picked: Any = None, control: Any = None
    ) -> dict[str, Any]:
        """Open an address, or change a selection by a click or a control."""
        start, _ = parse(query, self.limits)
        controls = {name: text for name, text in start.values().items() if name in CONTROLS}
        changed = "address.data" if selection is None else "picked.data"
        if control is not None:
            controls[control[0]] = control[1]
            changed = json.dumps({"control": control[0]}, separators=(",", ":")) + ".value"
        return self.call(
            "selection.data",
            changed,
            address=query,
            picked=picked,
            selection=selection,
            controls=controls,
        )

    def panel(self, name: str, output: str, query: str = "") -> dict[str, Any]:
        """Draw a panel for the selection of an address."""
        selection, _ = parse(query, self.limits)
        values = selection.values()
        iteration = int(values.pop("iteration"))
        return self.call(
            f"{name}-{output}",
            f"{name}-view.data",
            selection=values,
            iteration=iteration,
            **{f"{name}_view": {"changed": 1}},
        )


class Visit:
    """A page of the dashboard, with all that it asked for and complained about."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.requests: list[str] = []
        self.under_way = 0
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
        self.under_way += 1

    def _ended(self, _request: Any) -> None:
        self.under_way -= 1

    @property
    def updates(self) -> int:
        """How many callbacks the server was asked to run."""
        return sum("_dash-update-component" in url for url in self.requests)

    def open(self, url: str) -> Visit:
        """Open an address and wait until every panel is drawn."""
        self.page.goto(url)
        for name in ("heatmap", "trajectory", "steps", "restarts", "attention"):
            self.page.wait_for_selector(f"#{name}-graph .js-plotly-plot .plot-container")
        self.page.wait_for_selector("#readout-table table, #readout-table .message")
        self.page.wait_for_selector(".token.selected")
        self.settle()
        return self

    def settle(self) -> None:
        """Wait until the page has nothing to do and the address has been written."""
        quiet = 0
        while quiet < 3:
            self.page.wait_for_timeout(120)
            self.page.evaluate("new Promise((done) => requestIdleCallback(done))")
            quiet = 0 if self.under_way else quiet + 1

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
