"""The scripts of the gallery: finding them, reading what they say of themselves, loading one.

They are listed without being run: number, title and texts are read from the source, so that a
listing needs no torch.
"""

from __future__ import annotations

import ast
import importlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import looplens
from looplens.errors import InputError
from looplens.gallery.claim import Claim

PATTERN = "c[0-9][0-9]_*.py"
_FIELDS = ("number", "slug", "title", "paper")


@dataclass(frozen=True, kw_only=True, slots=True)
class Script:
    """A script of the gallery, as its source describes it."""

    number: int
    slug: str
    title: str
    paper: str
    path: Path


def folder() -> Path:
    """Return where the scripts are: in the package when installed, else in the checkout.

    Raises
    ------
    InputError
        When there are none.
    """
    package = Path(looplens.__file__).parent
    places = (package.parent / "examples" / "gallery", package / "gallery" / "claims")
    for place in places:
        if any(place.glob(PATTERN)):
            return place
    raise InputError(
        f"Found no scripts of the gallery in {places[0]} or {places[1]}; install looplens anew."
    )


def scripts(place: Path | None = None) -> dict[int, Script]:
    """Return the scripts by number.

    Parameters
    ----------
    place : Path, optional
        Their folder; the one of looplens when not given.

    Raises
    ------
    InputError
        When a script defines no claim, or another than its name says, or two have one number.
    """
    found: dict[int, Script] = {}
    for path in sorted((place or folder()).glob(PATTERN)):
        script = _read(path)
        if script.number in found:
            raise InputError(
                f"{path.name} and {found[script.number].path.name} both are number {script.number}."
            )
        found[script.number] = script
    return dict(sorted(found.items()))


def chosen(numbers: Sequence[int], place: Path | None = None) -> list[Script]:
    """Return the scripts of these numbers; the others are not read.

    Raises
    ------
    InputError
        When there is no such number.
    """
    place = place or folder()
    there = {int(path.name[1:3]): path for path in sorted(place.glob(PATTERN))}
    for number in numbers:
        if number not in there:
            raise InputError(
                f"There is no claim {number} in the gallery. The claims are "
                f"{', '.join(map(str, there))}; `looplens gallery` lists them."
            )
    return [_read(there[number]) for number in dict.fromkeys(numbers)]


def load(script: Script) -> Claim:
    """Import a script and return its claim.

    The folder of the scripts stays on the module search path, because the processes that train
    import the script by its name.
    """
    place = str(script.path.parent)
    if place not in sys.path:
        sys.path.append(place)
    return importlib.import_module(script.path.stem).CLAIM


def _read(path: Path) -> Script:
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if not isinstance(node, ast.Assign) or not isinstance(node.value, ast.Call):
            continue
        if [target.id for target in node.targets if isinstance(target, ast.Name)] == ["CLAIM"]:
            given = {keyword.arg: keyword.value for keyword in node.value.keywords}
            script = Script(path=path, **{name: _plain(given, name, path) for name in _FIELDS})
            if script.number != int(path.name[1:3]):
                raise InputError(
                    f"{path.name} has number={script.number}; its name says {int(path.name[1:3])}."
                )
            return script
    raise InputError(f"{path.name} defines no `CLAIM = Claim(...)` at its top level.")


def _plain(given: dict[str | None, ast.expr], name: str, path: Path) -> Any:
    try:
        return ast.literal_eval(given[name])
    except (KeyError, ValueError):
        raise InputError(
            f"{path.name}: write {name}= of CLAIM as a plain text or number, not as an expression; "
            "it is read without running the script."
        ) from None
