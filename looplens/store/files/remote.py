"""The files of a run behind a URL that fsspec knows: an object store, or memory.

The methods are those of `looplens.store.files.local`. Options such as an endpoint or credentials
come from fsspec's configuration (``FSSPEC_S3_ENDPOINT_URL`` and so on) and from the backend's own.
"""

from __future__ import annotations

import contextlib
import posixpath
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from zarr.storage import FsspecStore

from looplens.errors import InputError, near_matches


class RemoteFiles:
    """Files under a URL.

    Parameters
    ----------
    url : str
        Such as ``s3://bucket/run`` or ``memory://run``.

    Raises
    ------
    InputError
        If the scheme is unknown, or its package is not installed.
    """

    is_local = False

    def __init__(self, url: str) -> None:
        _check_scheme(url)
        from fsspec.core import url_to_fs

        self.path = url.rstrip("/")
        self._fs, self._root = url_to_fs(self.path)

    def __str__(self) -> str:
        return self.path

    @property
    def name(self) -> str:
        """Last part of the URL."""
        return posixpath.basename(self.path)

    def beside(self, name: str) -> RemoteFiles:
        """Return the files of another directory of the same parent."""
        return RemoteFiles(self.path[: len(self.path) - len(self.name)] + name)

    def full(self, key: str) -> str:
        """Return the URL of a file, for messages."""
        return f"{self.path}/{key}" if key else self.path

    def exists(self, key: str) -> bool:
        """Return whether there is a file of that name."""
        self._fs.invalidate_cache()
        return self._fs.exists(self._at(key))

    def read_bytes(self, key: str) -> bytes:
        """Return all of a file; FileNotFoundError if there is none."""
        return self._fs.cat_file(self._at(key))

    def size(self, key: str) -> int:
        """Return the size of a file in bytes; FileNotFoundError if there is none."""
        self._fs.invalidate_cache()
        return int(self._fs.info(self._at(key))["size"])

    def stamp(self, key: str) -> tuple[int, int, int] | None:
        """Return None: asking an object store for it costs as much as a small read."""
        return None

    @contextlib.contextmanager
    def reading(self, key: str) -> Iterator[RemoteReader]:
        """Open a file for reads at any offset; FileNotFoundError if there is none."""
        yield RemoteReader(self._fs, self._at(key), self.size(key))

    def write(self, key: str, parts: Iterable[Sequence[np.ndarray]], nbytes: int) -> None:
        """Write a file of ``nbytes`` from groups of contiguous arrays, in order; in one put."""
        self.write_atomic(key, b"".join(part.data.cast("B") for group in parts for part in group))

    def write_atomic(self, key: str, content: bytes) -> None:
        """Write a file that is there either as it was or as it will be, never in part."""
        self._fs.pipe_file(self._at(key), content)

    def create_exclusive(self, key: str, content: bytes) -> bool:
        """Write a file unless there is one; return whether it was written."""
        self._fs.invalidate_cache()
        if self._fs.exists(self._at(key)):
            return False
        try:
            self._fs.pipe_file(self._at(key), content, mode="create")
        except FileExistsError:
            return False
        return True

    def remove(self, key: str) -> None:
        """Remove a file, if there is one."""
        with contextlib.suppress(FileNotFoundError):
            self._fs.rm_file(self._at(key))

    def remove_tree(self, key: str = "") -> None:
        """Remove all files under a key."""
        self._fs.invalidate_cache()
        with contextlib.suppress(FileNotFoundError):
            self._fs.rm(self._at(key), recursive=True)

    def move_tree(self, key: str, target: str) -> None:
        """Put the files under a key in the place of others, which are removed.

        An object store cannot do so at once. The document that makes it a group comes last.
        """
        self._move(self._at(key), self._at(target))

    def take_from(self, other: RemoteFiles) -> None:
        """Put all files of another location in the place of those of this one."""
        self._move(other._root, self._root)

    def _move(self, source: str, target: str) -> None:
        self._fs.invalidate_cache()
        with contextlib.suppress(FileNotFoundError):
            self._fs.rm_file(f"{target}/zarr.json")
        with contextlib.suppress(FileNotFoundError):
            self._fs.rm(target, recursive=True)
        found = [f"/{file.strip('/')}" for file in self._fs.find(source)]
        names = [file.removeprefix(f"/{source.strip('/')}/") for file in found]
        names.sort(key=lambda name: name == "zarr.json")
        for name in names:
            self._fs.cp_file(f"{source}/{name}", f"{target}/{name}")
        # The source stops being a run before it loses anything else.
        self._fs.rm_file(f"{source}/zarr.json")
        if len(names) > 1:
            self._fs.rm(source, recursive=True)

    def file_names(self, prefix: str = "") -> list[str]:
        """Return the names of the files directly under a key, sorted."""
        return [name for name, kind in self._entries(prefix) if kind == "file"]

    def remove_partial(self, prefix: str = "") -> None:
        """Do nothing: a file of an object store is there whole or not at all."""

    def directory_names(self, prefix: str = "") -> list[str]:
        """Return the names of the directories directly under a key, sorted."""
        return [name for name, kind in self._entries(prefix) if kind == "directory"]

    def _entries(self, prefix: str) -> list[tuple[str, str]]:
        self._fs.invalidate_cache()
        try:
            found = self._fs.ls(self._at(prefix), detail=True)
        except (FileNotFoundError, NotADirectoryError):
            return []
        here = self._at(prefix).strip("/")
        entries = [(entry["name"].strip("/"), entry["type"]) for entry in found]
        # An object store may list the key itself, as an empty object that stands for a directory.
        return sorted((posixpath.basename(name), kind) for name, kind in entries if name != here)

    def free_bytes(self) -> int | None:
        """Return None: nobody knows how much an object store takes."""
        return None

    def zarr_store(self, key: str = "", *, read_only: bool = False) -> FsspecStore:
        """Return what Zarr reads and writes through."""
        store = FsspecStore.from_url(self.full(key), read_only=read_only)
        store.fs.invalidate_cache()
        return store

    def _at(self, key: str) -> str:
        return f"{self._root}/{key}" if key else self._root


class RemoteReader:
    """A file that is read in as few requests as possible."""

    def __init__(self, filesystem: Any, path: str, size: int) -> None:
        self._fs, self._path, self.size = filesystem, path, size
        self._start, self._content = 0, b""

    def expect(self, start: int, stop: int) -> None:
        """Fetch bytes ``start:stop``, which will be asked for."""
        self._start = start
        self._content = self._fs.cat_file(self._path, start=start, end=min(stop, self.size))

    def read_into(self, offset: int, parts: Sequence[np.ndarray]) -> bool:
        """Fill contiguous arrays from an offset on; return whether the file is long enough."""
        stop = offset + sum(part.nbytes for part in parts)
        if stop > self.size:
            return False
        if offset < self._start or stop > self._start + len(self._content):
            self.expect(offset, stop)
        position = offset - self._start
        for part in parts:
            target = part.data.cast("B")
            target[:] = self._content[position : position + part.nbytes]
            position += part.nbytes
        return True


def _check_scheme(url: str) -> None:
    """Raise InputError unless the backends of a URL can be used."""
    try:
        from fsspec.registry import get_filesystem_class, known_implementations
    except ImportError as error:
        raise InputError(f"{url} needs the package fsspec: pip install fsspec") from error
    for scheme in url.split("://", 1)[0].split("::"):
        try:
            get_filesystem_class(scheme)
        except ImportError as error:
            package = known_implementations[scheme]["class"].split(".")[0]
            if package == "fsspec":
                package = error.name or (error.__cause__ and getattr(error.__cause__, "name", ""))
            raise InputError(
                f"{scheme}://... needs the package {package}: pip install {package}"
            ) from error
        except ValueError as error:
            known = sorted(name for name in known_implementations if name.isalnum())
            raise InputError(
                f"There is no kind of storage {scheme!r}, in {url!r}."
                f"{near_matches(scheme, known)} Give a directory, or a URL that begins with one "
                f"of: {', '.join(known)}."
            ) from error
