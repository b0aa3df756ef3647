"""The files of a run, and the documents that say what is in it.

A run is a local directory or a URL that fsspec knows. What is different between the two is in
`looplens.store.files.local` and `looplens.store.files.remote`; the Zarr metadata is read and
written here.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from looplens.errors import CorruptRunError, NotARunError, StoreError
from looplens.store.files.local import LocalFiles
from looplens.store.files.remote import RemoteFiles

Names = list[str]  # in the class that follows, "list" is a method

RESTORE = "Restore the run from a copy, or record it again."


class RunDocuments:
    """The part of a `RunLocation` that is files by name, and Zarr metadata.

    Parameters
    ----------
    path : str or path
        A directory or a URL.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        text = os.fspath(path)
        for scheme in ("file://", "local://"):
            text = text.removeprefix(scheme)
        self.files: Any = RemoteFiles(text) if "://" in text else LocalFiles(text)
        # The documents of a run while it is built, until it appears under its name.
        self._built: dict[str, dict[str, Any]] = {}
        self._root: dict[str, Any] | None = None  # of a remote run: one read serves all metadata

    def __str__(self) -> str:
        return str(self.files)

    @property
    def path(self) -> Path | str:
        """The directory, or the URL as text."""
        return self.files.path

    @property
    def name(self) -> str:
        """Last part of the path."""
        return self.files.name

    @property
    def is_local(self) -> bool:
        """Whether the run is a directory of this machine."""
        return self.files.is_local

    # Files. Keys are relative to the run, with "/".

    def exists(self, key: str) -> bool:
        """Return whether there is a file of that name."""
        return self.files.exists(key)

    def read_bytes(self, key: str) -> bytes:
        """Return all of a file; FileNotFoundError if there is none."""
        return self.files.read_bytes(key)

    def write_atomic(self, key: str, content: bytes) -> None:
        """Write a file that is there either as it was or as it will be, never in part."""
        self.files.write_atomic(key, content)

    def create_exclusive(self, key: str, content: bytes) -> bool:
        """Write a file unless there is one; return whether it was written."""
        return self.files.create_exclusive(key, content)

    def remove(self, key: str) -> None:
        """Remove a file, if there is one."""
        self.files.remove(key)

    def list(self, prefix: str) -> Names:
        """Return the names of the files directly under a key, sorted."""
        return self.files.file_names(prefix)

    def remove_partial(self, prefix: str = "") -> None:
        """Remove what processes that are gone left half written directly under a key."""
        self.files.remove_partial(prefix)

    def size(self, key: str) -> int:
        """Return the size of a file in bytes; FileNotFoundError if there is none."""
        return self.files.size(key)

    def free_bytes(self) -> int | None:
        """Return the free space in bytes; None where nobody knows."""
        return self.files.free_bytes()

    # Documents

    def read_metadata(self, key: str = "") -> dict[str, Any] | None:
        """Return the Zarr metadata document of a group or array; None when there is none.

        Raises
        ------
        CorruptRunError
            If the document is there but cannot be read.
        StoreError
            If the storage cannot be reached.
        """
        if key and self._root is not None and not key.startswith("analysis"):
            gathered = self._root.get("consolidated_metadata") or {"metadata": {}}
            return gathered["metadata"].get(key)
        file = f"{key}/zarr.json" if key else "zarr.json"
        try:
            document = json.loads(self.files.read_bytes(file))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (ValueError, OSError) as error:
            raise CorruptRunError(
                f"{self.files.full(file)} cannot be read ({error}). {RESTORE}"
            ) from error
        except Exception as error:  # every backend has its own kinds of error
            raise unreachable(self.files, error) from error
        if not isinstance(document, dict):
            raise CorruptRunError(f"{self.files.full(file)} does not hold Zarr metadata. {RESTORE}")
        return document

    def root_attributes(self) -> dict[str, Any]:
        """Return the attributes of the run.

        Raises
        ------
        NotARunError
            If the directory does not exist or holds something else.
        CorruptRunError
            If its metadata cannot be read.
        """
        if isinstance(self.path, Path):
            if not self.path.exists():
                raise NotARunError(f"There is no run at {self}: the directory does not exist.")
            if not self.path.is_dir():
                raise NotARunError(
                    f"There is no run at {self}: a run is a directory, this is a file."
                )
        document = self.read_metadata()
        if document is None:
            raise NotARunError(
                f"There is no run at {self}: the directory has no zarr.json. Give the directory "
                "that the recording was written to."
            )
        attributes = document.get("attributes")
        # Other programs version their schemas too, so one of the two names alone proves nothing.
        if not isinstance(attributes, dict) or not {"schema_version", "looplens_version"} <= set(
            attributes
        ):
            raise NotARunError(
                f"There is no run at {self}: its zarr.json has no schema_version of looplens, so "
                "another program wrote it."
            )
        if not self.is_local:
            self._root = document
        return attributes

    def update_root_attributes(self, changes: dict[str, Any]) -> None:
        """Change attributes of the run, in one atomic write."""
        document = self.read_metadata()
        if document is None:
            raise NotARunError(f"There is no run at {self} any more: another process moved it.")
        document["attributes"] = {**document["attributes"], **changes}
        self._write_document("", document)

    def children(self, key: str) -> Names:
        """Return the names of the groups and arrays in a group, sorted."""
        if self._root is not None and not key.startswith("analysis"):
            gathered = self._root.get("consolidated_metadata") or {"metadata": {}}
            under = [name for name in gathered["metadata"] if name.rpartition("/")[0] == key]
            return sorted(name.rpartition("/")[2] for name in under)
        names = self.files.directory_names(key)
        return [name for name in names if self.exists(f"{key}/{name}/zarr.json".lstrip("/"))]

    def consolidate(self) -> None:
        """Gather the metadata of all groups and arrays in the root, where xarray looks for it."""
        root = self._built.get("") or self.read_metadata() or {}
        found = {key: document for key, document in self._built.items() if key}
        if not found:
            self._gather("", found)
        root["consolidated_metadata"] = {
            "kind": "inline",
            "must_understand": False,
            "metadata": _in_order(found),
        }
        self._write_document("", root)

    def consolidate_below(self, key: str) -> None:
        """Gather the metadata of one group that was replaced, without walking the whole run."""
        document = self.read_metadata() or {}
        gathered = document.get("consolidated_metadata")
        if gathered is None:
            self.consolidate()
            return
        entries = gathered["metadata"]
        for old in [name for name in entries if name == key or name.startswith(f"{key}/")]:
            del entries[old]
        above = key.split("/")
        for depth in range(1, len(above) + 1):  # its parents too, which may be new
            parent = "/".join(above[:depth])
            entries[parent] = self.read_metadata(parent)
        self._gather(key, entries)
        gathered["metadata"] = _in_order(entries)
        self._write_document("", document)

    def _gather(self, key: str, into: dict[str, dict[str, Any]]) -> None:
        for name in self.children(key):
            child = f"{key}/{name}".lstrip("/")
            document = self.read_metadata(child)
            if document is None:
                continue
            into[child] = document
            if document.get("node_type") == "group":
                self._gather(child, into)

    def _write_document(self, key: str, document: dict[str, Any]) -> None:
        if key or not self._built:
            content = json.dumps(document, indent=2).encode()
            self.write_atomic(f"{key}/zarr.json".lstrip("/"), content)
        if self._built:
            # The root of a run that is built is written last: with it the run is there.
            self._built[key] = document

    def ensure_group(self, key: str) -> None:
        """Create a group without attributes in a run that is there, unless it has one."""
        self.create_exclusive(f"{key}/zarr.json", json.dumps(_group({}), indent=2).encode())

    def create_group(self, key: str = "", attributes: dict[str, Any] | None = None) -> None:
        """Create a group."""
        document = _group(attributes or {})
        if not key:
            self._built = {"": document}
            return
        self._write_document(key, document)


def _group(attributes: dict[str, Any]) -> dict[str, Any]:
    return {"zarr_format": 3, "node_type": "group", "attributes": attributes}


def unreachable(files: Any, error: Exception) -> StoreError:
    """Return the error for a storage that cannot be used at all."""
    return StoreError(
        f"{files} cannot be reached ({type(error).__name__}: {error}). Check that the bucket "
        "exists, the address (FSSPEC_S3_ENDPOINT_URL and the like) and the credentials."
    )


def _in_order(documents: dict[str, Any]) -> dict[str, Any]:
    """Order metadata as Zarr wants it: parents first, and the children of one group together."""
    return dict(sorted(documents.items(), key=lambda item: (item[0].count("/"), item[0])))
