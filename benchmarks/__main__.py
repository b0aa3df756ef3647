"""``python -m benchmarks``: run the measurements, print one table, write it down.

Every group runs in a process of its own: none finds memory or threads as another one left them,
and one that fails takes no other with it.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks._report import as_document, save, show
from benchmarks._rows import THREADS, use_two_threads

# Name of the group, and the module whose rows(quick=...) it is.
GROUPS = {
    "model": "model",
    "recording": "recording",
    "peak": "peak",
    "store": "store",
    "suite": "suite",
    "workers": "workers",
    "startup": "startup",
    "attention": "attention",
    "dynamics": "dynamics",
    "app": "app",
}


def measure(group: str, quick: bool, out: Path) -> None:
    """Measure one group in this process and write its rows as JSON."""
    use_two_threads()
    rows = importlib.import_module(f"benchmarks.{GROUPS[group]}").rows(quick=quick)
    out.write_text(json.dumps([as_document(row, group) for row in rows]))


def in_own_process(group: str, quick: bool) -> tuple[list[dict[str, Any]], str]:
    """Measure one group in a process of its own; rows, or the last line of what went wrong."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "rows.json"
        command = [sys.executable, "-m", "benchmarks", "--only", group, "--into", str(out)]
        child = subprocess.run(
            [*command, *(["--quick"] if quick else [])],
            # Before NumPy loads; a machine's own setting would tilt NumPy against PyTorch.
            env={**os.environ, "OMP_NUM_THREADS": str(THREADS)},
            stderr=subprocess.PIPE,
            text=True,
        )
        if child.returncode or not out.exists():
            sys.stderr.write(child.stderr)
            lines = child.stderr.strip().splitlines() or [f"exit code {child.returncode}"]
            return [], lines[-1][:300]
        return json.loads(out.read_text()), ""


def main() -> None:
    """Measure everything, or what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", action="append", choices=GROUPS, help="measure this group")
    parser.add_argument("--quick", action="store_true", help="small sizes; writes nothing")
    parser.add_argument("--into", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.into is not None:
        measure(options.only[0], options.quick, options.into)
        return
    console = Console(width=150)
    rows: list[dict[str, Any]] = []
    failures: dict[str, str] = {}
    began = time.perf_counter()
    for group in options.only or GROUPS:
        started = time.perf_counter()
        with console.status(f"measuring {group}"):
            found, reason = in_own_process(group, options.quick)
        console.print(f"{group}: {time.perf_counter() - started:.0f} s", highlight=False)
        rows += found
        if reason:
            failures[group] = reason
    show(rows, failures, console)
    if not options.quick:
        save(rows, list(GROUPS), time.perf_counter() - began)
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
