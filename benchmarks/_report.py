"""The table on the screen, ``results.json``, and ``docs/performance.md`` made from it."""

from __future__ import annotations

import dataclasses
import datetime
import importlib.metadata
import json
import os
import platform
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks._rows import THREADS, Row

RESULTS = Path(__file__).parent / "results.json"
PAGE = Path(__file__).parents[1] / "docs" / "performance.md"
COMMAND = "python -m benchmarks"
PACKAGES = ("torch", "numpy", "zarr", "zarrs", "transformers", "transformer-lens", "nnsight")


def as_document(row: Row, group: str) -> dict[str, Any]:
    """Return a row as JSON holds it."""
    return {"group": group, **dataclasses.asdict(row), "peers": dict(row.peers), "met": row.met}


def show(rows: list[dict[str, Any]], failures: dict[str, str], console: Console) -> None:
    """Print the table, and what could not be measured."""
    table = Table("what", "value", "goal", "met", "beside")
    for row in rows:
        table.add_row(row["name"], _value(row), _goal(row), _met(row), _peers(row))
    console.print(table)
    for group, reason in failures.items():
        console.print(f"[bold]{group} could not be measured:[/bold] {reason}", highlight=False)


def save(rows: list[dict[str, Any]], groups: list[str], seconds: float) -> None:
    """Write ``results.json``, keeping the rows of groups that were not measured now, and the page.

    Parameters
    ----------
    rows : list of dict
        What was measured.
    groups : list of str
        All groups, in the order of the table.
    seconds : float
        How long it took.
    """
    measured = {row["group"] for row in rows}
    today = datetime.date.today().isoformat()
    kept = [row for row in _earlier() if row.get("group") not in measured]
    rows = [*kept, *({**row, "date": today} for row in rows)]
    rows.sort(key=lambda row: groups.index(row["group"]) if row.get("group") in groups else -1)
    whole = len(measured) == len(groups)
    document = {
        "date": today,
        "machine": machine(),
        "command": COMMAND,
        "seconds": round(seconds) if whole else _earlier_seconds(),
        "rows": [row for row in rows if row.get("group") in groups],
    }
    RESULTS.write_text(json.dumps(document, indent=2) + "\n")
    PAGE.write_text(page(document))


def page(document: dict[str, Any]) -> str:
    """Return the text of ``docs/performance.md``."""
    rows = document["rows"]
    took = document.get("seconds")
    lines = [
        "# Performance",
        "",
        f"Written by `make bench` (`{document['command']}`) on {document['date']}. Everything here "
        "is a ratio or a difference of things measured in turn in one run; ratios are medians over "
        "rounds. Rerun it before you quote it: another machine has another balance of disk and "
        "processor.",
        "",
        f"- Machine: {document['machine']}.",
        f"- PyTorch uses {THREADS} threads."
        + (f" The whole table took {took / 60:.1f} minutes." if took else ""),
        "- `python -m benchmarks --only NAME` measures one group again, `--quick` measures smaller "
        "sizes and writes nothing.",
        "",
        "| what | value | goal | met | beside |",
        "| --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        cells = (row["name"], _value(row), _goal(row), _met(row), _peers(row))
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    missed = [row for row in rows if not row["met"]]
    lines += ["", "## What limits the goals that were missed", ""]
    if not missed:
        lines.append("None was missed in this run.")
    lines += [
        f"- **{row['name']}** ({_value(row)}, goal {_goal(row)}): "
        f"{row['limit'] or 'not looked into yet.'}"
        for row in missed
    ]
    return "\n".join([*lines, "", *_NOTES, ""])


_NOTES = """\
## How to read the rows

Recording is measured against a forward of the same model with nobody listening ("bare"). The peers
keep the same states in their own way and write them at the end: PyTorch's forward hooks with
`np.save`, TransformerLens hooks with `torch.save`, nnsight's `tracer.cache` with `torch.save`.
`forward + np.save` is a bare forward, then one write of as many bytes from memory that is already
filled. A run also holds the loop state of every iteration, with its start, and what is injected:
"bytes of the run" against "bytes of the states" says how much more it writes than the peers.

Writes end in the page cache, for looplens and for the peers; nothing is flushed to the disk.

The suite is every analysis that a run has the data for. Its trajectories are one of each kind of
system in `looplens.testing` in turn: fixed points, cycles, drifts, chaos and noise. Most of them
are harder on the detector of cycles than what a trained model does.

The app is asked over HTTP, from another process, for every panel of every page: selections that
nobody looked at before, on a run of 100,352 tokens and on one of 256 with the same other sizes.
`python -m benchmarks.app FOLDER` prints every callback. The processor time beside the slowest one
is what the server itself took, whatever else runs on the machine.

`benchmarks/gpu.py` measures recording on a GPU at Huginn's published width, with asynchronous
copies and without, and `benchmarks/memory.py` what loading a large checkpoint takes in memory.
Neither is part of the table.""".splitlines()


def machine() -> str:
    """Return processor, cores, memory, system and versions in one line."""
    processor = platform.processor() or platform.machine()
    information = Path("/proc/cpuinfo")
    if information.exists():
        lines = information.read_text().splitlines()
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        processor = names[0] if names else processor
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES)
    return (
        f"{processor}, {os.cpu_count()} cores, {memory:.0f} GiB of memory, "
        f"{platform.system()} {platform.machine()}, Python {platform.python_version()}, {versions}"
    )


def _earlier() -> list[dict[str, Any]]:
    return json.loads(RESULTS.read_text())["rows"] if RESULTS.exists() else []


def _earlier_seconds() -> float | None:
    return json.loads(RESULTS.read_text()).get("seconds") if RESULTS.exists() else None


def _value(row: dict[str, Any]) -> str:
    return f"{row['value']:.3g} {row['unit']}"


def _goal(row: dict[str, Any]) -> str:
    return f"{'≥' if row['at_least'] else '≤'} {row['goal']:g} {row['unit']}"


def _met(row: dict[str, Any]) -> str:
    return "yes" if row["met"] else "missed"


def _peers(row: dict[str, Any]) -> str:
    return "; ".join(f"{name} {value:.4g}" for name, value in row["peers"].items())
