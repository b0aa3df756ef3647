"""Every code block of the documentation, as a test: the root ``conftest.py`` collects them.

The blocks of a page run in order, share their names and stand in an empty folder of their own:

- ``python`` runs, ``console`` runs too (``looplens`` in this process; of other programs it is
  checked that what they name is there);
- ``text`` directly below a block is what that block prints;
- ``yaml``, ``toml`` and ``json`` are parsed, and commands after ``run:`` checked.

A block that cannot run says so above it, where readers see it: ``title="not run: why"``. It is
still compiled, or its command line parsed. ``looplens app`` serves until it is stopped and is only
parsed. A page that names ``runs/demo`` finds a small synthetic run there.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shlex
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest import mock

import typer
import yaml
from sybil import Document, Example, Region, Sybil
from sybil.parsers.markdown.lexers import RawFencedCodeBlockLexer

from looplens.testing import synthetic_run

ROOT = Path(__file__).parents[1]
INFO = re.compile(r"(?P<language>\w*)[ \t]*(?P<info>[^\n]*)\n")
NOT_RUN = re.compile(r'title="not run: [^"]{8,}"')
SHELL = ("console", "bash", "sh")
LANGUAGES = ("python", "text", "yaml", "toml", "json", *SHELL, "")
GENERATED = ("gallery", "notebooks")
"""Folders of pages that programs write: scripts of the gallery and notebooks have their tests."""
SERVERS = ("app",)
"""Commands that end when they are interrupted."""


def parse_blocks(document: Document) -> Iterator[Region]:
    """Yield the fenced blocks of a page."""
    last: Region | None = None
    for region in RawFencedCodeBlockLexer(INFO)(document):
        if region.lexemes["language"] == "text" and last is not None:
            between = document.text[last.end : region.start].strip()
            region.lexemes["shows"] = not between and not NOT_RUN.search(last.lexemes["info"])
        region.parsed = region.lexemes
        region.evaluator = evaluate
        last = region
        yield region


def evaluate(example: Example) -> None:
    """Run a block, or check what can be checked of it."""
    block, page = example.parsed, Path(example.path)
    source, language, run = str(block["source"]), block["language"], runs(block, page)
    if language == "python":
        code = compile("\n" * example.line + source, str(page), "exec", dont_inherit=True)
        if run:
            if 'open_run("runs/demo")' in source and not Path("runs/demo").exists():
                synthetic_run("runs/demo")
            example.namespace["_printed"] = printed_by(lambda: exec(code, example.namespace))
    elif language in SHELL:
        example.namespace["_printed"] = "".join(
            run_command(words, run=run) for words in commands(source)
        )
    elif language == "text" and block.get("shows") and run:
        assert example.namespace.get("_printed") == source
    elif language == "yaml":
        for line in re.findall(r"^ *-? *run: (?!\|)(.*)$", source, re.MULTILINE):
            run_command(shlex.split(line), run=False)
        yaml.safe_load(source)
    elif language == "toml":
        tomllib.loads(source)
    elif language == "json":
        json.loads(source)
    else:
        assert language in LANGUAGES, f"no test knows what to do with a block in {language!r}"


def runs(block: dict[str, Any], page: Path) -> bool:
    """Return whether a block runs; what generated pages show has tests of its own."""
    return not NOT_RUN.search(block["info"]) and page.parent.name not in GENERATED


def printed_by(action: Any) -> str:
    """Return what a call prints."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        action()
    return printed.getvalue()


def commands(source: str) -> list[list[str]]:
    """Return the words of every command line, without prompts and comments."""
    lines = re.sub(r"^\$ ", "", source.replace("\\\n", " "), flags=re.MULTILINE).splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def run_command(words: list[str], *, run: bool) -> str:
    """Run a command line of looplens and return what it prints, or check it."""
    program, *arguments = words
    if program == "looplens":
        command = parse_looplens(arguments)
        return run_looplens(arguments) if run and command not in SERVERS else ""
    if program == "make":
        targets = (ROOT / "Makefile").read_text(encoding="utf-8")
        for target in (word for word in arguments if "=" not in word):
            assert re.search(rf"^{target}:", targets, re.MULTILINE), f"no target {target}"
    elif program == "pip":
        known = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        for extras in re.findall(r"looplens-interp\[([\w,]+)\]", " ".join(arguments)):
            assert set(extras.split(",")) <= set(known["optional-dependencies"]), extras
    elif program == "python" and arguments[0] == "-m":
        assert find_spec(arguments[1]) is not None, f"no module {arguments[1]}"
    elif program == "python":
        assert (ROOT / arguments[0]).exists(), f"no file {arguments[0]}"
    else:
        assert program in ("cd", "git", "jupyter", "sbatch", "dask", "srun"), (
            f"no test knows how to check {program!r}: see tests/code_blocks.py"
        )
    return ""


def parse_looplens(arguments: list[str]) -> str:
    """Parse a command line of looplens as it would, without running it; return the command."""
    from looplens.cli.main import app

    group: Any = typer.main.get_command(app)
    name, *rest = arguments
    while True:
        command = group.get_command(group.make_context("looplens", [name]), name)
        assert command is not None, f"looplens has no command {name!r}"
        if not hasattr(command, "commands") or not rest:
            break
        group, (name, *rest) = command, rest
    with contextlib.suppress(SystemExit):
        command.make_context(name, list(rest))
    return name


def run_looplens(arguments: list[str]) -> str:
    """Run a command of looplens in this process; it must end well."""
    from looplens.cli import main

    ended = 0

    def call() -> None:
        nonlocal ended
        try:
            main()
        except SystemExit as stop:
            ended = int(stop.code or 0)

    with (
        mock.patch.object(sys, "argv", ["looplens", *arguments]),
        mock.patch.dict(os.environ, COLUMNS="100"),
    ):
        printed = printed_by(call)
    assert ended == 0, f"looplens {shlex.join(arguments)} ended with {ended}: {printed}"
    return printed


def begin(namespace: dict[str, Any]) -> None:
    """Go to an empty folder."""
    folder = tempfile.TemporaryDirectory(prefix="looplens-docs-")
    namespace["_back"] = contextlib.ExitStack()
    namespace["_back"].enter_context(folder)
    namespace["_back"].enter_context(contextlib.chdir(folder.name))


def end(namespace: dict[str, Any]) -> None:
    """Go back."""
    namespace["_back"].close()


SYBIL = Sybil(
    parsers=[parse_blocks],
    patterns=["docs/*.md", "docs/**/*.md", "README.md", "CONTRIBUTING.md"],
    path=str(ROOT),
    setup=begin,
    teardown=end,
)
