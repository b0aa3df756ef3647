"""How fast the app answers on a run of 100,352 tokens, on a small one, and to many at once.

``python -m benchmarks.app [FOLDER]`` prints a table of every callback; the run is made below the
folder unless it is there (see `benchmarks._big_run`).

- *new*: a selection that nobody looked at before; *again*: the same one a second time. Each panel
  was asked for once before, so that nothing is imported while the clock runs; that first answer is
  the column *first*.
- *cpu*: what the processors spent on new selections, which neighbours on the machine leave alone.
- The small run has 256 tokens and else the same sizes.
- In the browser (1280 x 900): seconds from the address to a page whose panels in sight are drawn,
  WebGL contexts of every page, and requests while the scrubber moves over all iterations.
- Readers at once: each picks tokens and draws the panels of a page, one after the other.
"""

from __future__ import annotations

import math
import random
import statistics
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

from looplens_dashboard import pages

import looplens
from benchmarks._app_browser import Seen, look
from benchmarks._app_client import Answer, Page, served
from benchmarks._big_run import big_run, small_run
from benchmarks._rows import Row

SELECTIONS = 20
READERS = 30
LOAD_SECONDS = 40
GOAL_MS = 150.0

Answers = dict[str, list[float]]


def rows(quick: bool = False) -> list[Row]:
    """Measure the app; the runs are made in a temporary folder."""
    with tempfile.TemporaryDirectory() as folder:
        return measured(Path(folder), quick=quick)


def measured(folder: Path, *, quick: bool = False, show: bool = False) -> list[Row]:
    """Measure the app on runs below a folder.

    Parameters
    ----------
    folder : Path
        Where the runs lie, or are made.
    quick : bool
        The small run alone, a few selections, few readers.
    show : bool
        Print a table of all callbacks.
    """
    selections = 4 if quick else SELECTIONS
    small = small_run(folder)
    big = small if quick else big_run(folder)
    few = _callbacks(small, selections)
    many = few if quick else _callbacks(big, selections)
    seen, loaded = _seen(big), _under_load(big, 5 if quick else READERS, 8 if quick else None)
    if show:
        _print(few, many, seen, loaded)
    new = {name: p95(values) for name, values in many["new"].items()}
    cpu = max(p95(values) for values in many["cpu"].values())
    slowest = sorted(new, key=lambda name: -new[name])
    tokens = looplens.open_run(big, lazy=True).n_tokens
    problems = sorted({answer.problem for answer in loaded if answer.problem})
    latencies = [answer.seconds for answer in loaded]
    return [
        Row(
            name=f"app, {tokens:,} tokens: p95 of the slowest callback, new selections",
            value=1e3 * new[slowest[0]],
            unit="ms",
            goal=GOAL_MS,
            peers={f"{name}, ms": 1e3 * new[name] for name in slowest[:4]}
            | {
                "all callbacks, ms": 1e3 * p95([v for row in many["new"].values() for v in row]),
                "processor time of the slowest, ms": 1e3 * cpu,
            },
        ),
        Row(
            name=f"app: processor time of all panels on {tokens:,} tokens, on 256 tokens = 1",
            value=_sum(many["cpu"]) / _sum(few["cpu"]),
            unit="x",
            goal=1.5,
            peers={"all panels once on the small run, ms": 1e3 * _sum(few["cpu"])},
        ),
        Row(
            name=f"app, {tokens:,} tokens: first page in a browser, panels in sight drawn",
            value=seen[0].seconds,
            unit="s",
            goal=2.0,
            limit="the main thread of the browser, which draws the figures with plotly.js; loading "
            "that earlier gained nothing.",
            peers={"all of its panels, s": seen[0].whole}
            | {f"{one.page}, s": one.seconds for one in seen[1:]},
        ),
        Row(
            name="app: requests to the server while scrubbing, all pages",
            value=float(sum(one.requests for one in seen)),
            unit="requests",
            goal=0.0,
        ),
        Row(
            name="app: WebGL contexts of the page with the most",
            value=float(max(one.contexts for one in seen)),
            unit="contexts",
            goal=2.0,
        ),
        Row(
            name=f"app: errors with {5 if quick else READERS} readers at once",
            value=float(sum(bool(answer.problem) for answer in loaded)),
            unit="errors",
            goal=0.0,
            peers={
                "answers": float(len(loaded)),
                "p50, ms": 1e3 * statistics.median(latencies),
                "p95, ms": 1e3 * p95(latencies),
            },
            limit="; ".join(problems)[:300],
        ),
    ]


def _callbacks(path: Path, selections: int) -> dict[str, Answers]:
    """Return the seconds of every callback: first, of new selections, and of the same again."""
    found: dict[str, Answers] = {
        kind: defaultdict(list) for kind in ("first", "new", "again", "cpu", "kB")
    }
    with served(path) as (address, process):
        page = Page(address, process)
        for shown in pages.PAGES:
            if not shown.of_run:
                continue
            _keep(found["first"], page.open(f"/{shown.name}"))
            names = [panel.name for panel in (*pages.BAR, *shown.panels)]
            _keep(found["first"], (page.panel(name) for name in names))
            for chosen in _selections(path, selections):
                _keep(found["new"], [page.choose(**chosen)])
                drawn = [page.panel(name) for name in names]
                _keep(found["new"], drawn)
                _keep(found["again"], (page.panel(name) for name in names))
                for answer in drawn:
                    found["cpu"][answer.callback].append(answer.cpu)
                    found["kB"][answer.callback].append(answer.nbytes / 1000)
            _keep(found["new"], page.open(f"/{shown.name}"))
        page.close()
    return found


def _selections(path: Path, count: int) -> list[dict[str, str]]:
    """Return tokens of all of a run, with restarts and layers in turn; the same at every call.

    Every third is of the first prompts, which have attention.
    """
    run = looplens.open_run(path, lazy=True)
    chance = random.Random(1)
    attended = run.token_range(run.attention_prompts[-1]).stop
    return [
        {
            "token": str(chance.randrange(run.n_tokens if number % 3 else attended)),
            "restart": str(number % run.restarts),
            "layer": ("state", *map(str, run.recorded_layers))[number % (run.n_layers + 1)],
        }
        for number in range(count)
    ]


def _keep(found: Answers, answers: Iterable[Answer]) -> None:
    for answer in answers:
        if answer.problem:
            raise RuntimeError(f"{answer.callback}: {answer.problem}")
        found[answer.callback].append(answer.seconds)


def _seen(path: Path) -> list[Seen]:
    """Return what a browser sees of every page, the first one right after the start."""
    with served(path) as (address, _):
        names = [page.name for page in pages.PAGES if page.of_run]
        return look(address, [*names, *(f"{name}?dims=3" for name in names)])


def _under_load(path: Path, readers: int, seconds: float | None) -> list[Answer]:
    """Return the answers to many readers who click at once for some seconds."""
    answers: list[Answer] = []
    until = time.monotonic() + (seconds or LOAD_SECONDS)
    tokens = looplens.open_run(path, lazy=True).n_tokens
    shown = [page for page in pages.PAGES if page.of_run]

    def read(number: int) -> None:
        chance = random.Random(number)
        mine = shown[number % len(shown)]
        try:
            page = Page(address)
            answers.extend(page.open(f"/{mine.name}"))
            while time.monotonic() < until:
                answers.append(page.choose(token=str(chance.randrange(tokens))))
                for panel in (*pages.BAR, *mine.panels):
                    answers.append(page.panel(panel.name))
            page.close()
        except Exception as error:  # whatever it is, it is what is counted here
            problem = f"{type(error).__name__}: {error}"
            answers.append(Answer(callback=mine.name, seconds=0.0, problem=problem))

    with served(path) as (address, _):
        threads = [threading.Thread(target=read, args=(number,)) for number in range(readers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return answers


def p95(values: list[float]) -> float:
    """Return the value that 95 % of the values do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, -(-95 * len(ordered) // 100) - 1)]


def _sum(found: Mapping[str, list[float]]) -> float:
    """Return what all callbacks together take, each at its p95: not every prompt has attention."""
    return sum(p95(values) for values in found.values())


def _print(
    few: Mapping[str, Answers], many: Mapping[str, Answers], seen: list[Seen], loaded: list[Answer]
) -> None:
    head = ("first", "p50", "p95", "max", "cpu p95", "again p95", "small p50", "small p95", "kB")
    print(f"{'callback, ms':26}" + "".join(f"{name:>11}" for name in head))
    for name in sorted(many["new"], key=lambda name: -p95(many["new"][name])):
        new, again = many["new"][name], many["again"].get(name, [float("nan")])
        small, cpu = few["new"][name], many["cpu"].get(name, [math.nan])
        sizes = many["kB"].get(name, [float("nan")])
        cells = (
            *(1e3 * value for value in (max(many["first"].get(name, [0])), statistics.median(new))),
            *(1e3 * value for value in (p95(new), max(new), p95(cpu), p95(again))),
            *(1e3 * value for value in (statistics.median(small), p95(small))),
            statistics.median(sizes),
        )
        print(f"{name:26}" + "".join(f"{cell:11.0f}" for cell in cells))
    for one in seen:
        print(
            f"page {one.page:20} {one.seconds:6.2f} s, all panels {one.whole:.2f} s, "
            f"{one.contexts} WebGL contexts, {one.requests} requests while scrubbing, "
            f"{len(one.complaints)} complaints {'; '.join(one.complaints)[:200]}"
        )
    for callback in sorted({answer.callback for answer in loaded}):
        values = [answer.seconds for answer in loaded if answer.callback == callback]
        print(f"load {callback:20} {len(values):5} answers, p95 {1e3 * p95(values):7.0f} ms")


if __name__ == "__main__":
    for row in measured(Path(sys.argv[1] if len(sys.argv) > 1 else "/tmp/looplens"), show=True):
        print(f"{row.name}: {row.value:.4g} {row.unit} (goal {row.goal:g})", dict(row.peers))
