"""The app in a process of its own, and its callbacks called over HTTP as a page calls them."""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import json
import math
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from looplens_dashboard import pages

_SERVE = "import sys; from looplens_dashboard import serve; serve(sys.argv[1:], port=0)"
UPDATE = "/_dash-update-component"


@contextlib.contextmanager
def served(*paths: Path) -> Iterator[tuple[str, int]]:
    """Serve runs from a process of its own for a ``with`` block; give address and process."""
    process = subprocess.Popen(
        [sys.executable, "-u", "-c", _SERVE, *map(str, paths)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.search(r"http://\S+", line)
        if found is None:
            raise RuntimeError(f"The app did not start: {line!r}")
        yield found[0].rstrip("/"), process.pid
    finally:
        process.terminate()
        process.wait(20)


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """One answered callback.

    Attributes
    ----------
    callback : str
        ``select``, ``page``, ``bar``, or the name of a panel.
    seconds : float
        From the request to the last byte.
    cpu : float
        Seconds that the processors spent on it; NaN where that cannot be told.
    nbytes : int
        Size of the answer.
    problem : str
        What went wrong, or the message that stands in the place of a figure; empty for none.
    """

    callback: str
    seconds: float
    cpu: float = math.nan
    nbytes: int = 0
    problem: str = ""


class Page:
    """One reader of the app, with a connection that is kept.

    Parameters
    ----------
    address : str
        Of the app.
    process : int, optional
        Number of the process that answers, if nobody else asks it anything.
    """

    def __init__(self, address: str, process: int | None = None) -> None:
        self._process = process
        self._connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=60)
        self._origin = address
        self._dependencies = [
            one for one in self._get("/_dash-dependencies") if not one["clientside_function"]
        ]
        self.selection: dict[str, str] = {}
        self.iteration: Any = 0

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def open(self, path: str) -> list[Answer]:
        """Open an address: the selection, the bar and the panels' places; no panel yet."""
        answers = [self._select("address.data", {"address.data": path})]
        values = {"place.data": {}, "bar-place.data": {}, **self._state()}
        for name, output in (("bar", "bar.children"), ("page", "content.children")):
            values |= {"place.data": {"of": path}, "bar-place.data": {"of": path}}
            changed = "bar-place.data" if name == "bar" else "place.data"
            answers.append(self._call(name, output, changed, values)[0])
        return answers

    def choose(self, **chosen: str) -> Answer:
        """Choose parts of the selection, as a click does."""
        given = {"picked.data": chosen, "selection.data": self.selection}
        return self._select("picked.data", given)

    def panel(self, name: str) -> Answer:
        """Ask for a panel of what is selected."""
        kind = pages.panels()[name].kind
        part = "graph" if kind == "figure" else "body"
        view = json.dumps({"kind": kind, "panel": name, "part": "view"}, separators=(",", ":"))
        output = f'"kind":"{kind}","panel":["MATCH"],"part":"{part}"'
        answer, response = self._call(name, output, f"{view}.data", self._state(), panel=name)
        text = json.dumps(response)
        if not answer.problem and "could not be drawn" in text:
            return dataclasses.replace(answer, problem=text[:300])
        return answer

    def _state(self) -> dict[str, Any]:
        return {"selection.data": self.selection, "iteration.data": self.iteration}

    def _select(self, changed: str, values: dict[str, Any]) -> Answer:
        answer, response = self._call("select", "selection.data", changed, values)
        if (found := response.get("selection")) is not None:
            self.selection = found["data"]
        if (found := response.get("iteration")) is not None:
            self.iteration = found["data"]
        return answer

    def _call(
        self, name: str, output: str, changed: str, values: dict[str, Any], panel: str = ""
    ) -> tuple[Answer, dict[str, Any]]:
        dependency = next(one for one in self._dependencies if output in one["output"])

        def target(text: str) -> Any:
            component, _, prop = text.rpartition(".")
            if "ALL" in component:
                return []
            if component.startswith("{"):
                return {"id": {**json.loads(component), "panel": panel}, "property": prop}
            return {"id": component, "property": prop}

        def filled(one: dict[str, str]) -> Any:
            place = target(f"{one['id']}.{one['property']}")
            key = f"{one['id']}.{one['property']}"
            return place if place == [] else {**place, "value": values.get(key)}

        outputs = [target(text) for text in dependency["output"].strip(".").split("...")]
        body = {
            "output": dependency["output"],
            "outputs": outputs if len(outputs) > 1 else outputs[0],
            "inputs": [filled(one) for one in dependency["inputs"]],
            "state": [filled(one) for one in dependency["state"]],
            "changedPropIds": [changed],
        }
        sent = json.dumps(body)
        before, started = self._cpu(), time.perf_counter()
        self._connection.request(
            "POST",
            UPDATE,
            sent,
            {"Content-Type": "application/json", "Origin": self._origin},
        )
        response = self._connection.getresponse()
        content = response.read()
        seconds = time.perf_counter() - started
        found: dict[str, Any] = {}
        problem = ""
        if response.status == 200:
            found = json.loads(content)["response"]
        elif response.status != 204:
            problem = f"{response.status}: {content[:200]!r}"
        answer = Answer(
            callback=name,
            seconds=seconds,
            cpu=self._cpu() - before,
            nbytes=len(content),
            problem=problem,
        )
        return answer, found

    def _cpu(self) -> float:
        """Return the seconds of processor that the answering process took so far (Linux)."""
        if self._process is None:
            return math.nan
        with contextlib.suppress(OSError):
            return time.clock_gettime((~self._process << 3) | 2)  # the clock of a process
        return math.nan

    def _get(self, path: str) -> Any:
        self._connection.request("GET", path)
        return json.loads(self._connection.getresponse().read())
