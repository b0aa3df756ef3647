"""The documentation holds together; its code blocks are tests of their own (``code_blocks.py``)."""

from __future__ import annotations

import doctest
import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from code_blocks import GENERATED, NOT_RUN, ROOT, SYBIL, commands, run_command, runs

import looplens.dynamics
from looplens.analysis import ANALYZERS

DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.glob("**/*.md"))]
WRITTEN = [page for page in PAGES if page.parent.name not in GENERATED]
WITH_EXAMPLES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for path in (ROOT / "looplens").rglob("*.py")
    if ">>> " in path.read_text(encoding="utf-8")
)
COMMAND = re.compile(r"`(?:python|make|looplens) [a-z-]|^```(?:console|text)", re.MULTILINE)
MEASURED = re.compile(r"^\|.*\d\.\d.*\|$", re.MULTILINE)


def test_blocks_that_do_not_run_say_why_and_are_few() -> None:
    idle, odd, total = [], [], 0
    for page in WRITTEN:
        for example in SYBIL.parse(page).examples():
            info = example.parsed["info"]
            total += 1
            if info and not NOT_RUN.fullmatch(info):
                odd.append(f"{page.name}:{example.line}: {info}")
            if not runs(example.parsed, page):
                idle.append(f"{page.name}:{example.line}: {info}")
    assert odd == [], 'the one remark that a block may have is title="not run: why"'
    assert len(idle) <= 16, "\n".join(idle)
    assert total >= 8 * len(idle)


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_examples_of_docstrings_print_what_they_say(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    options = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    found = doctest.testmod(importlib.import_module(name), optionflags=options)
    assert not found.failed


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_with_measured_numbers_names_the_command_that_makes_them(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert not MEASURED.search(text) or COMMAND.search(text), MEASURED.search(text)


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_in_the_text_exist(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for line in re.findall(r"`((?:looplens|make|python -m) [^`]+)`", text):
        (words,) = commands(re.sub(r"[\[\]\n]|\.\.\.", " ", line))
        try:
            run_command(words, run=False)
        except Exception as error:
            if not re.search("Missing parameter|requires an argument", str(error)):
                raise  # a name that does not exist; what is cut short in the text is fine


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.ipynb")), ids=lambda p: p.stem)
def test_the_page_of_a_notebook_has_its_cells(path: Path) -> None:
    page = (DOCS / "notebooks" / f"{path.stem}.md").read_text(encoding="utf-8")
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        assert "".join(cell["source"]) in page, "`make images` runs the notebooks anew"
    pictures = {picture.name for picture in (DOCS / "notebooks").glob(f"{path.stem}-*.png")}
    assert pictures == set(re.findall(rf"\(({path.stem}-\d+\.png)\)", page))
    assert not re.search(r"(?<![\w.])/(?:home|tmp|root|usr)/", page), "paths of a machine"


@pytest.mark.slow
def test_the_site_builds_strictly_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    pages = {page: page.read_text(encoding="utf-8") for page in tmp_path.rglob("*.html")}
    loads = re.compile(
        r"<(?:script|img|iframe)[^>]*\ssrc=\"?//|<(?:script|img|iframe|link)[^>]*\s(?:src|href)=\"?https?:"
    )
    assert [page.name for page, text in pages.items() if loads.search(text)] == []
    spectra = (tmp_path / "site/dynamics/maps.html").read_text(encoding="utf-8")
    assert "<math" in spectra
    reference = (tmp_path / "site/reference/analysis.html").read_text(encoding="utf-8")
    assert "looplens.analysis.classify" in reference
    assert ":math:" not in reference


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


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    targets = re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", text)
    assert [target for target in targets if not (page.parent / target).exists()] == []
