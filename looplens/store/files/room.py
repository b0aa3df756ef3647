"""Making room for a new run, without ever removing anything but a run, and that not too soon.

A run is built under a name of its own and appears under the real one at once, complete in its
metadata. A run that is replaced stays until the new one is whole: that one lies beside it. This
module knows directories and object stores, not what is in a run.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from looplens.errors import CorruptRunError, NotARunError, RunExistsError, StoreError
from looplens.store.files.local import is_alive

if TYPE_CHECKING:
    from looplens.store.files.location import RunLocation

_PARTS = (
    "zarr.json",
    "prompts",
    "tokens",
    "vocabulary",
    "loop",
    "states",
    "attention",
    "readout",
    "reduction",
    "discarded",
    "blocks",
    "analysis",
)
# On an object store a run is built under its own name; this file says that nothing else is there.
_BUILDING = ".looplens-building"
_MOVING = ".looplens-moving"
_PATIENCE = 120.0  # seconds that a copy on an object store may take while another process waits


@dataclass(frozen=True, kw_only=True, slots=True)
class Room:
    """What `make_room` found: where to write, and what becomes of it.

    Attributes
    ----------
    files : LocalFiles or RemoteFiles
        Where to build the run, or where the one lies that is gone on with.
    target : LocalFiles or RemoteFiles
        Where a run that was built appears.
    replaces : LocalFiles or RemoteFiles, optional
        The run whose place it takes in the end.
    joins : bool
        Whether there is a run to go on with.
    """

    files: Any
    target: Any
    replaces: Any = None
    joins: bool = False


def make_room(location: RunLocation, *, overwrite: bool, resume: bool, needed_bytes: int) -> Room:
    """Decide where a new run is written, and make that place; see `RunLocation.prepare`."""
    files = location.files
    partial = files.beside(f"{files.name}.partial")
    if resume and overwrite and _has_run(location, partial):
        return Room(files=partial, target=partial, replaces=files, joins=True)
    target, replaces = files, None
    if not _is_free(files):
        if resume and not overwrite and _has_run(location, files):
            return Room(files=files, target=files, joins=True)
        _check_replaceable(location, overwrite)
        target, replaces = partial, files
        if not resume:  # else it may be the run of another worker, which `publish` then joins
            _remove_leftover(target)
    _check_space(target, needed_bytes)
    if not files.is_local:
        target.write_atomic(_BUILDING, b"")
        return Room(files=target, target=target, replaces=replaces)
    return Room(files=_directory_to_build_in(target), target=target, replaces=replaces)


def publish(files: Any, target: Any, root: bytes, built: set[str]) -> bool:
    """Let a run appear under its name; see `RunLocation.publish`.

    Parameters
    ----------
    files, target : LocalFiles or RemoteFiles
        Where the run was built, and where it is to be; the same on an object store.
    root : bytes
        The document that makes it a run, written last.
    built : set of str
        Keys of the groups and arrays that were created.
    """
    if files.is_local:
        files.write_atomic("zarr.json", root)
        try:
            target.path.parent.mkdir(parents=True, exist_ok=True)
            files.path.rename(target.path)  # takes the place of an empty directory too
        except OSError as error:
            if not target.exists("zarr.json"):
                raise StoreError(f"The run cannot appear at {target} ({error}).") from error
            files.remove_tree()
            return False
        return True
    for group in {key.rpartition("/")[0] for key in built if key}:
        for name in files.directory_names(group):
            # What an interrupted attempt with other columns or sites left behind.
            if group and f"{group}/{name}" not in built:
                files.remove_tree(f"{group}/{name}")
    first = files.create_exclusive("zarr.json", root)
    files.remove(_BUILDING)
    return first


def finish_move(finished: Any, final: Any) -> None:
    """Put a finished run in the place of an old one, and remove that.

    Can be repeated after it was interrupted, and does nothing where another process did it.
    """
    if not finished.exists("zarr.json"):
        return
    if not finished.is_local:
        _move_remote(finished, final)
        return
    with _alone_in(final.path.parent):
        if not finished.exists("zarr.json"):
            return
        old = final.path.with_name(f"{final.name}.replaced")
        if final.path.exists():
            shutil.rmtree(old, ignore_errors=True)
            final.path.rename(old)
        finished.path.rename(final.path)
        shutil.rmtree(old, ignore_errors=True)


@contextlib.contextmanager
def _alone_in(directory: Path) -> Iterator[None]:
    """Keep other processes that ask for the same out, until done or dead."""
    try:
        import fcntl
    except ImportError:  # not a POSIX system
        yield
        return
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _move_remote(finished: Any, final: Any) -> None:
    if finished.create_exclusive(_MOVING, b""):
        final.take_from(finished)
        final.remove(_MOVING)
        return
    deadline = time.monotonic() + _PATIENCE
    while finished.exists("zarr.json"):
        if time.monotonic() > deadline:
            raise StoreError(
                f"{finished} is whole, and another process began to put it in the place of "
                f"{final}. If that process is gone, remove {finished.full(_MOVING)} and pass "
                "resume=True and overwrite=True again."
            )
        time.sleep(0.5)


def _has_run(location: RunLocation, files: Any) -> bool:
    try:
        type(location)(files.path).root_attributes()
    except NotARunError:
        return False
    return True


def _is_free(files: Any) -> bool:
    if not files.is_local:
        names = files.file_names()
        unfinished = _BUILDING in names and "zarr.json" not in names
        return unfinished or not (names or files.directory_names())
    path = files.path
    if path.is_symlink():
        return False
    return not path.exists() or (path.is_dir() and not any(path.iterdir()))


def _directory_to_build_in(target: Any) -> Any:
    host = socket.gethostname()
    prefix = f".{target.name}.building.{host}."
    building = target.beside(f"{prefix}{os.getpid()}")
    try:
        building.path.parent.mkdir(parents=True, exist_ok=True)
        for leftover in building.path.parent.glob(f"{prefix}*"):
            number = leftover.name.removeprefix(prefix)
            if number == str(os.getpid()) or not is_alive(number):
                shutil.rmtree(leftover)
        building.path.mkdir()
    except OSError as error:
        raise StoreError(f"The directory {target} cannot be made ({error}).") from error
    return building


def _check_space(target: Any, needed_bytes: int) -> None:
    free = target.free_bytes()
    if free is not None and needed_bytes > free:
        raise StoreError(
            f"The run needs {_shown(needed_bytes)}, but only {_shown(free)} "
            f"are free at {target}. Record fewer prompts, tokens, iterations, layers, restarts or "
            "sites, reduce the states, store float16, or pass check_space=False."
        )


def _shown(nbytes: int) -> str:
    return f"{nbytes / 2**30:.1f} GiB" if nbytes >= 2**30 else f"{nbytes / 2**20:.1f} MiB"


def _remove_leftover(files: Any) -> None:
    """Remove what an interrupted replacement left behind."""
    if _is_free(files) and files.is_local:
        return
    if not files.exists("zarr.json") and not _is_free(files):
        raise RunExistsError(
            f"{files} is in the way and is not a run. Remove it, or choose another path."
        )
    files.remove_tree()


def _check_replaceable(location: RunLocation, overwrite: bool) -> None:
    files = location.files
    if files.is_local and files.path.is_symlink():
        raise RunExistsError(
            f"{files} is a symbolic link, which is neither written through nor removed. Give "
            "the directory that it points to, or another one."
        )
    try:
        location.root_attributes()
    except (NotARunError, CorruptRunError) as error:
        raise RunExistsError(
            f"{files} exists and is not a looplens run, so it is left alone. Choose another "
            "path, or remove it yourself."
        ) from error
    if not overwrite:
        raise RunExistsError(
            f"A run exists already at {files}. Choose another path, or pass overwrite=True "
            "(--overwrite on the command line) to replace it, or resume=True (--resume) to go on "
            "with it."
        )
    foreign = sorted({*files.file_names(), *files.directory_names()} - set(_PARTS))
    foreign = [name for name in foreign if not name.endswith(".partial")]
    if foreign:
        raise RunExistsError(
            f"The run at {files} is not replaced: its directory also holds {', '.join(foreign)}"
            ", which looplens did not write. Move that elsewhere, or choose another path."
        )
