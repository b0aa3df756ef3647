"""Looks for recorded runs under a folder, and measures one; it opens none.

Links are never followed. What a link leads to is either found where it lies, or outside of what was
opened, and then no request may reach it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from looplens.errors import StoreError

MOST_FOLDERS = 5_000
DEEPEST = 4
"""How many folders are looked into, and how deep below the one that was named."""


Location = Path | str
"""Where a run is: a directory of this machine, or a URL."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """A directory that holds Zarr metadata, or a link to one.

    Attributes
    ----------
    path : Path
        The directory, as it lies under the folder.
    below : str
        The same relative to the folder, with ``/``.
    outside : bool
        Whether it is a link that leads out of every opened folder.
    """

    path: Path
    below: str
    outside: bool = False


def resolved(path: str | os.PathLike[str]) -> Location:
    """Return an absolute path, its links resolved; a URL as it is."""
    text = os.fspath(path)
    for scheme in ("file://", "local://"):
        text = text.removeprefix(scheme)
    return text.rstrip("/") if "://" in text else Path(text).expanduser().resolve()


def exists(path: Location) -> bool:
    """Return whether there is something; nobody knows of a URL before it is read."""
    return not isinstance(path, Path) or path.exists()


def name_of(path: Location) -> str:
    """Return the last part of a path or URL."""
    return path.name if isinstance(path, Path) else path.rpartition("/")[2]


def is_store(path: Path) -> bool:
    """Return whether a directory holds Zarr metadata, as every run does."""
    return os.path.isfile(path / "zarr.json")


def is_foreign(path: Path) -> bool:
    """Return whether another program wrote the metadata; damaged ones may be those of a run."""
    try:
        content = (path / "zarr.json").read_bytes()
        return b'"looplens_version"' not in content and bool(json.loads(content))
    except (OSError, ValueError):
        return False


def is_below(path: Path, folders: Iterable[Path]) -> bool:
    """Return whether a resolved path is one of some resolved folders or lies below one."""
    return any(path.is_relative_to(folder) for folder in folders)


def find_stores(folder: Path, opened: Iterable[Path]) -> tuple[list[Found], bool]:
    """Return what may be runs below a folder, in order of their names.

    Directories whose names begin with a dot, and what lies in a store, are not looked at.

    Parameters
    ----------
    folder : Path
        Where to look.
    opened : iterable of Path
        All opened folders, resolved; a link to a place below one of them is left out, for its place
        is found by itself.

    Returns
    -------
    found : list of Found
    whole : bool
        False when there were more folders than are looked into.
    """
    opened = tuple(opened)
    found: list[Found] = []
    waiting = [(folder, "")]
    looked_into = 0
    while waiting:
        here, below = waiting.pop(0)
        looked_into += 1
        if looked_into > MOST_FOLDERS:
            return found, False
        for entry in _folders(here):
            path, name = here / entry.name, f"{below}{entry.name}"
            if entry.is_symlink():
                if not is_below(path.resolve(), opened) and is_store(path):
                    found.append(Found(path=path, below=name, outside=True))
            elif is_store(path):
                found.append(Found(path=path, below=name))
            elif name.count("/") < DEEPEST - 1:
                waiting.append((path, f"{name}/"))
    return sorted(found, key=lambda one: one.below), True


def measure(path: Path, opened: Iterable[Path]) -> tuple[int, str | None]:
    """Return the bytes of all files of a run, and a link in it that leads outside.

    Parameters
    ----------
    path : Path
        The directory of the run.
    opened : iterable of Path
        All opened folders, resolved.
    """
    opened = tuple(opened)
    total, leading_out = 0, None
    for entry in _all_below(path):
        if entry.is_symlink() and not is_below(Path(entry.path).resolve(), opened):
            leading_out = leading_out or os.path.relpath(entry.path, path)
        elif not entry.is_dir():
            try:
                total += entry.stat().st_size
            except FileNotFoundError:  # replaced meanwhile, by a recording that goes on
                continue
    return total, leading_out


def stamp_of(path: Location) -> Any:
    """Return what changes when a run is recorded further, analysed, replaced or taken away."""
    if not isinstance(path, Path):
        return path
    found = []
    for name in ("zarr.json", "blocks"):
        try:
            file = os.stat(path / name)
        except OSError:
            found.append(None)
        else:
            found.append((file.st_ino, file.st_size, file.st_mtime_ns))
    return tuple(found)


def leads_out(path: Location, link: str | None = None) -> StoreError:
    """Return the error for a run that lies, or a part of which lies, outside of what was opened."""
    what = f"{link} in {path} is a link" if link else f"{path} is a link"
    return StoreError(
        f"{what} that leads out of the opened folders, so it is not followed. Start the app on the "
        "place that it leads to as well."
    )


def _folders(path: Path) -> list[os.DirEntry[str]]:
    return [entry for entry in _entries(path) if not entry.name.startswith(".") and entry.is_dir()]


def _all_below(path: str | Path) -> Iterator[os.DirEntry[str]]:
    """Yield everything below a directory, in no order: a large run has tens of thousands."""
    left: list[str | Path] = [path]
    while left:
        try:
            with os.scandir(left.pop()) as entries:
                for entry in entries:
                    yield entry
                    if entry.is_dir(follow_symlinks=False):
                        left.append(entry.path)
        except OSError:
            continue


def _entries(path: str | Path) -> list[os.DirEntry[str]]:
    """Return what is in a directory; nothing where it is gone or may not be read."""
    try:
        with os.scandir(path) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError:
        return []
