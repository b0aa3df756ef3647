"""The files of a run in a local directory.

`looplens.store.files.remote` has the same methods for object stores. Keys are relative, with ``/``.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import os
import secrets
import shutil
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from zarr.storage import LocalStore

_LONG_AGO = 3600.0  # seconds
_KEEP_SIZE = 1  # FALLOC_FL_KEEP_SIZE: the file grows as it is written


class LocalFiles:
    """Files under a directory.

    Parameters
    ----------
    path : str or path
        The directory; it need not exist.
    """

    is_local = True

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path).expanduser()

    def __str__(self) -> str:
        return str(self.path)

    @property
    def name(self) -> str:
        """Last part of the path."""
        return self.path.name

    def beside(self, name: str) -> LocalFiles:
        """Return the files of another directory of the same parent."""
        return LocalFiles(self.path.with_name(name))

    def full(self, key: str) -> str:
        """Return the path of a file, for messages."""
        return str(self.path / key)

    def exists(self, key: str) -> bool:
        """Return whether there is a file of that name."""
        return os.path.exists(self.path / key)

    def read_bytes(self, key: str) -> bytes:
        """Return all of a file; FileNotFoundError if there is none."""
        return (self.path / key).read_bytes()

    def size(self, key: str) -> int:
        """Return the size of a file in bytes; FileNotFoundError if there is none."""
        try:
            return os.stat(self.path / key).st_size
        except NotADirectoryError as error:
            raise FileNotFoundError(str(error)) from error

    def stamp(self, key: str) -> tuple[int, int, int] | None:
        """Return what changes when a file does: number, size and time; FileNotFoundError."""
        file = os.stat(self.path / key)
        return file.st_ino, file.st_size, file.st_mtime_ns

    @contextlib.contextmanager
    def reading(self, key: str) -> Iterator[LocalReader]:
        """Open a file for reads at any offset; FileNotFoundError if there is none."""
        try:
            descriptor = os.open(self.path / key, os.O_RDONLY)
        except NotADirectoryError as error:
            raise FileNotFoundError(str(error)) from error
        try:
            yield LocalReader(descriptor)
        finally:
            os.close(descriptor)

    def write(self, key: str, parts: Iterable[Sequence[np.ndarray]], nbytes: int) -> None:
        """Write a file of ``nbytes`` from groups of contiguous arrays; in place, not atomically."""
        file = self.path / key
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        try:
            descriptor = os.open(file, flags, 0o666)
        except FileNotFoundError:
            file.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(file, flags, 0o666)
        try:
            _reserve(descriptor, nbytes)
            for group in parts:
                _write_all(descriptor, group)
        finally:
            os.close(descriptor)

    def write_atomic(self, key: str, content: bytes) -> None:
        """Write a file that is there either as it was or as it will be, never in part."""
        file = self.path / key
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_name(f".{file.name}{_mine()}")
        try:
            partial.write_bytes(content)
            partial.replace(file)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise

    def create_exclusive(self, key: str, content: bytes) -> bool:
        """Write a file unless there is one; return whether it was written.

        Of several processes that try, one succeeds, and nobody sees the file in part.
        """
        file = self.path / key
        file.parent.mkdir(exist_ok=True)  # but not the run, which may have been moved
        partial = file.with_name(f".{file.name}{_mine()}")
        try:
            partial.write_bytes(content)
            try:
                os.link(partial, file)  # unlike a rename, refuses a name that is taken
            except PermissionError:  # a file system without hard links
                with open(file, "xb") as target:
                    target.write(content)
        except FileExistsError:
            return False
        finally:
            partial.unlink(missing_ok=True)
        return True

    def remove(self, key: str) -> None:
        """Remove a file, if there is one."""
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            os.unlink(self.path / key)

    def remove_partial(self, prefix: str = "") -> None:
        """Remove what processes left directly under a directory that died while they wrote."""
        for entry in self._entries(prefix):
            host, _, rest = entry.name.removesuffix(".partial").partition("@")[2].partition("@")
            if not entry.name.endswith(".partial") or not host:
                continue
            with contextlib.suppress(OSError):
                gone = host == socket.gethostname() and not is_alive(rest.partition("@")[0])
                # A process of another host cannot be seen, but such a file lives for seconds.
                if gone or time.time() - entry.stat().st_mtime > _LONG_AGO:
                    os.unlink(entry.path)

    def remove_tree(self, key: str = "") -> None:
        """Remove a directory with all that is in it, if there is one."""
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self.path / key)

    def move_tree(self, key: str, target: str) -> None:
        """Put a directory in the place of another one, which is removed when the new one is there.

        Of several processes that do so at once, the last one wins.
        """
        final = self.path / target
        replaced: list[Path] = []
        try:
            for attempt in range(10):
                replaced.append(final.with_name(f".{final.name}{_mine()}"))
                with contextlib.suppress(FileNotFoundError):
                    final.rename(replaced[-1])
                try:
                    (self.path / key).rename(final)
                except OSError as error:  # another one was faster, between the two
                    if error.errno not in (errno.ENOTEMPTY, errno.EEXIST) or attempt == 9:
                        raise
                else:
                    return
        finally:
            there = [old for old in replaced if old.exists()]
            if there and not final.exists():  # interrupted, between the two
                there.pop().rename(final)
            for old in there:
                shutil.rmtree(old, ignore_errors=True)

    def file_names(self, prefix: str = "") -> list[str]:
        """Return the names of the files directly under a directory, sorted; no partial ones."""
        return sorted(
            entry.name
            for entry in self._entries(prefix)
            if not entry.name.endswith(".partial") and entry.is_file()
        )

    def directory_names(self, prefix: str = "") -> list[str]:
        """Return the names of the directories directly under one, sorted."""
        return sorted(entry.name for entry in self._entries(prefix) if entry.is_dir())

    def _entries(self, prefix: str) -> list[os.DirEntry[str]]:
        try:
            with os.scandir(self.path / prefix) as entries:
                return list(entries)
        except (FileNotFoundError, NotADirectoryError):
            return []

    def free_bytes(self) -> int | None:
        """Return the free space of the disk, where the directory is or will be."""
        existing = next(p for p in (self.path, *self.path.absolute().parents) if p.exists())
        return shutil.disk_usage(existing).free

    def zarr_store(self, key: str = "", *, read_only: bool = False) -> LocalStore:
        """Return what Zarr reads and writes through."""
        return LocalStore(self.path / key, read_only=read_only)


class LocalReader:
    """An open file."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.size = os.fstat(descriptor).st_size

    def expect(self, start: int, stop: int) -> None:
        """Say which bytes will be asked for; a local file has no use for it."""

    def read_into(self, offset: int, parts: Sequence[np.ndarray]) -> bool:
        """Fill contiguous arrays from an offset on; return whether the file is long enough."""
        left = [part.data.cast("B") for part in parts if part.nbytes]
        while left:
            count = os.preadv(self._descriptor, left, offset)
            if count == 0:
                return False
            offset += count
            left = _after(left, count)
        return True


def is_alive(process: str) -> bool:
    """Return whether a process of this machine runs, by its number."""
    try:
        os.kill(int(process), 0)
    except (ValueError, OverflowError, ProcessLookupError):
        return False
    except PermissionError:
        return True
    return True


def _mine() -> str:
    """Return an ending for a file that is not whole yet, with who writes it."""
    return f"@{socket.gethostname()}@{os.getpid()}@{secrets.token_hex(4)}.partial"


def _reserve(descriptor: int, nbytes: int) -> None:
    """Ask the file system for room at once: writing is faster, and a full disk shows before it.

    Only where that is quick: the emulation of the C library would write every block itself.
    """
    fallocate = _fallocate()
    if fallocate is not None and fallocate(descriptor, _KEEP_SIZE, 0, nbytes) != 0:
        number = ctypes.get_errno()
        if number in (errno.ENOSPC, errno.EDQUOT):
            raise OSError(number, os.strerror(number))


@functools.cache
def _fallocate() -> Callable[[int, int, int, int], int] | None:
    """Return Linux' fallocate, which Python has no name for; None elsewhere."""
    found = getattr(ctypes.CDLL(None, use_errno=True), "fallocate64", None)
    if found is not None:
        found.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
    return found


def _write_all(descriptor: int, parts: Sequence[np.ndarray]) -> None:
    left = [part.data.cast("B") for part in parts if part.nbytes]
    while left:
        left = _after(left, os.writev(descriptor, left))


def _after(parts: list[memoryview], count: int) -> list[memoryview]:
    """Return what is left of some buffers after their first ``count`` bytes."""
    for number, part in enumerate(parts):
        if count < part.nbytes:
            return [part[count:], *parts[number + 1 :]]
        count -= part.nbytes
    return []
