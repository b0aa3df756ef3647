"""The examples in the documentation run and print what the documentation says."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import pytest

import looplens.dynamics
from looplens.analysis import ANALYZERS

DOCS = Path(__file__).parents[1] / "docs"
EXAMPLE = re.compile(r"```python\n(?P<code>.*?)```\n+```text\n(?P<shown>.*?)```", re.DOTALL)
EXAMPLES = [
    pytest.param(
        found["code"], found["shown"], id=f"{page.relative_to(DOCS).with_suffix('')}-{number}"
    )
    for page in sorted(DOCS.glob("**/*.md"))
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


def test_every_page_on_an_analysis_is_in_the_list() -> None:
    index = (DOCS / "analysis" / "index.md").read_text(encoding="utf-8")
    for page in (DOCS / "analysis").glob("*.md"):
        assert page.name == "index.md" or f"({page.name})" in index, page.name
    for name in ANALYZERS:
        assert f"`{name}`" in index, name


def test_every_page_and_part_of_the_dynamics_lab_is_in_the_list() -> None:
    parts = pytest.importorskip("looplens.dynamics.laboratory.parts").PARTS
    index = (DOCS / "dynamics" / "index.md").read_text(encoding="utf-8")
    for page in (DOCS / "dynamics").glob("*.md"):
        assert page.name == "index.md" or f"({page.name})" in index, page.name
    for part in parts.values():
        assert f"`{part.name}`" in index, part.name
        assert hasattr(looplens.dynamics, part.function), part.function
        assert part.most is None or f"at most {part.most} |" in index, part.name


@pytest.mark.parametrize("page", sorted(DOCS.glob("**/*.md")), ids=lambda page: page.stem)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    targets = re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", text)
    assert [target for target in targets if not (page.parent / target).exists()] == []
