"""How long a user waits for ``import looplens`` and for ``looplens --help``."""

from __future__ import annotations

import statistics
import subprocess
import sys

from benchmarks._rows import Row, interleaved


def rows() -> list[Row]:
    """Measure against a bare interpreter."""

    def python(code: str) -> object:
        return subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)

    start = "import sys; sys.argv = ['looplens', '--help']; from looplens.cli import main\n"
    seconds = interleaved(
        {
            "bare": lambda: python("pass"),
            "import": lambda: python("import looplens"),
            "help": lambda: python(start + "try: main()\nexcept SystemExit: pass"),
        },
        repeats=9,
    )
    middle = {name: statistics.median(values) for name, values in seconds.items()}
    return [
        Row(
            name="import looplens, over a bare interpreter",
            value=middle["import"] - middle["bare"],
            unit="s",
            goal=0.2,
            peers={"bare interpreter": middle["bare"]},
        ),
        Row(
            name="looplens --help",
            value=middle["help"],
            unit="s",
            goal=0.6,
            peers={"bare interpreter": middle["bare"]},
        ),
    ]
