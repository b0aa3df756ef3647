"""The examples in the documentation run and print what the documentation says."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"
EXAMPLE = re.compile(r"```python\n(?P<code>.*?)```\n+```text\n(?P<shown>.*?)```", re.DOTALL)
EXAMPLES = [
    pytest.param(found["code"], found["shown"], id=f"{page.stem}-{number}")
    for page in sorted(DOCS.glob("*.md"))
    for number, found in enumerate(EXAMPLE.finditer(page.read_text(encoding="utf-8")))
]


@pytest.mark.parametrize(("code", "shown"), EXAMPLES)
def test_examples_print_what_is_shown_below_them(code: str, shown: str) -> None:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, "example", "exec"), {})
    assert printed.getvalue() == shown


def test_there_are_examples() -> None:
    assert EXAMPLES
