"""Making room for a new run, without ever removing anything but a run, and that not too soon.

A run that is replaced stays until the new one is whole: that one is written to a directory beside
it. This module knows directories, not what is in a run.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from looplens.errors import CorruptRunError, NotARunError, RunExistsError, StoreError

if TYPE_CHECKING:
    from looplens.store.location import RunLocation

_PARTS = (
    "zarr.json",
    "prompts",
    "tokens",
    "vocabulary",
    "loop",
    "states",
    "attention",
    "readout",
    "analysis",
)


def make_room(location: RunLocation, *, overwrite: bool, needed_bytes: int) -> Path:
    """Make the directory that a new run is written to.

    Returns
    -------
    Path
        The path of ``location``, or, where that holds a run that is to be replaced, a directory
        beside it with ``.partial`` at the end of its name.

    Raises
    ------
    RunExistsError
        If the path is taken, and either ``overwrite`` was not asked for or what is there is
        not a run.
    StoreError
        If the disk has no room for the run, or the directory cannot be made.
    """
    path = location.path
    if path.is_symlink() or (path.exists() and not _is_empty_directory(path)):
        _check_replaceable(location, overwrite)
        path = path.with_name(f"{path.name}.partial")
        if path.exists():
            _remove_leftover(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"The directory {path} cannot be made ({error}).") from error
    free = shutil.disk_usage(path).free
    if needed_bytes > free:
        raise StoreError(
            f"The run needs {needed_bytes / 2**30:.1f} GiB, but only {free / 2**30:.1f} GiB "
            f"are free at {path}. Record fewer prompts, iterations, restarts or sites, or "
            "store float16."
        )
    return path


def swap(finished: Path, final: Path) -> None:
    """Put a finished run in the place of an old one, and remove that."""
    old = final.with_name(f"{final.name}.replaced")
    final.rename(old)
    finished.rename(final)
    shutil.rmtree(old)


def _is_empty_directory(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())


def _remove_leftover(path: Path) -> None:
    """Remove what an interrupted replacement left behind."""
    if not (path / "zarr.json").is_file():
        raise RunExistsError(
            f"{path} is in the way and is not a run. Remove it, or choose another path."
        )
    shutil.rmtree(path)


def _check_replaceable(location: RunLocation, overwrite: bool) -> None:
    path = location.path
    if path.is_symlink():
        raise RunExistsError(
            f"{path} is a symbolic link, which is neither written through nor removed. Give "
            "the directory that it points to, or another one."
        )
    try:
        location.root_attributes()
    except (NotARunError, CorruptRunError) as error:
        raise RunExistsError(
            f"{path} exists and is not a looplens run, so it is left alone. Choose another "
            "path, or remove it yourself."
        ) from error
    if not overwrite:
        raise RunExistsError(
            f"A run exists already at {path}. Choose another path, or pass overwrite=True "
            "(--overwrite on the command line) to replace it."
        )
    foreign = sorted(e.name for e in path.iterdir() if e.name not in _PARTS)
    foreign = [name for name in foreign if not name.endswith(".partial")]
    if foreign:
        raise RunExistsError(
            f"The run at {path} is not replaced: its directory also holds {', '.join(foreign)}"
            ", which looplens did not write. Move that elsewhere, or choose another path."
        )
