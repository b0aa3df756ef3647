"""Which code made a number: hashes for the names of kept results, and the commit for a page.

What is kept under these names is not known here.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import subprocess
from collections.abc import Iterable
from pathlib import Path

import looplens
from looplens.gallery.scripts import PATTERN

PACKAGE = Path(looplens.__file__).parent
# What a training runs through. A new file counts until it is left out here: files that build
# recipes (a recipe counts by itself), evaluate and describe, and those for foreign models.
WEIGHTS = ("training", "tasks", "models")
LEFT_OUT = {
    "training": "baselines capacity card drawn evaluate exit_evaluation factories recipes",
    "tasks": "describing prompting trained_on",
    "models": "addressing checkpoints hub layer_list loading loop_cache looped_layers looping "
    "native passes protocol repeating residuals tokenizer weight_cosine weight_files",
}
# What shows results and measures nothing.
SHOWING = ("cli", "gallery", "plots", "reports")


@functools.cache
def of_weights() -> str:
    """Hash the code that decides trained weights.

    That is the step, the loop, the losses and all else of ``looplens/training``, the generators of
    ``looplens/tasks`` and the modules of ``looplens/models`` but for ``LEFT_OUT``; folders below
    these three do not count, nor do comments, docstrings and layout. Scripts need not: a recipe
    says all that it gives to a training.
    """
    paths = [
        path
        for part in WEIGHTS
        for path in sorted((PACKAGE / part).glob("*.py"))
        if path.stem not in LEFT_OUT[part].split()
    ]
    return _digest((path, _code(path)) for path in paths)


@functools.cache
def of_measuring(script: Path) -> str:
    """Hash the code that decides a measured result: a script, and looplens but what only shows.

    Parameters
    ----------
    script : Path
        The file that defines what is measured. Files beside it that are no claims count too.
    """
    paths = [
        path
        for path in sorted(PACKAGE.rglob("*.py"))
        if path.relative_to(PACKAGE).parts[0] not in SHOWING
    ]
    helpers = sorted({*script.parent.glob("*.py")} - {*script.parent.glob(PATTERN)} - {script})
    return _digest((path, path.read_bytes()) for path in [script, *helpers, *paths])


@functools.cache
def commit() -> str:
    """Return the commit of looplens, such as ``abc1234`` or ``abc1234, modified``.

    Empty when looplens does not lie in a checkout of its own, or there is no git. Modified are
    sources of looplens and scripts of the gallery, whatever else was changed.
    """
    root = PACKAGE.parent
    if not _git(root, "ls-files", "looplens/__init__.py"):
        return ""
    name = _git(root, "rev-parse", "--short=7", "HEAD")
    changed = _git(root, "status", "--porcelain", "--", "looplens", "examples/gallery")
    return f"{name}, modified" if name and changed else name


def _git(root: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments],
            capture_output=True, text=True, timeout=10, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _code(path: Path) -> bytes:
    """Return a module as Python reads it, without its docstrings."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    with_text = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(tree):
        if isinstance(node, with_text) and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:]
    return ast.dump(tree).encode()


def _digest(parts: Iterable[tuple[Path, bytes]]) -> str:
    total = hashlib.sha256()
    for path, content in parts:
        total.update(f"{path.name}\n{hashlib.sha256(content).hexdigest()}\n".encode())
    return total.hexdigest()
