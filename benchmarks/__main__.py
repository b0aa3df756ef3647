"""``python -m benchmarks``: run the measurements, print one table, write ``results.json``."""

from __future__ import annotations

import dataclasses
import datetime
import json
import platform
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks import recording, startup

RESULTS = Path(__file__).parent / "results.json"


def main() -> None:
    """Measure everything."""
    rows = [*startup.rows(), *recording.rows()]
    table = Table("what", "value", "goal", "met")
    for row in rows:
        table.add_row(
            row.name,
            f"{row.value:.3g} {row.unit}",
            f"<= {row.goal:g} {row.unit}",
            "yes" if row.met else "missed",
        )
    Console(width=120).print(table)
    document = {
        "date": datetime.date.today().isoformat(),
        "machine": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "command": "python -m benchmarks",
        "rows": [{**dataclasses.asdict(row), "met": row.met} for row in rows],
    }
    RESULTS.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
