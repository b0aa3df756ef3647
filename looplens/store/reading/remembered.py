"""Stored analyses that were read already, kept for as long as their files do not change.

A report asks for most results several times, each figure for the whole of one. Reading one checks
every file of it, which costs far more than a look at whether the files are still the same.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import xarray as xr

from looplens.store.files.location import RunLocation
from looplens.store.reading.results import read_result

MOST_BYTES = 128_000_000
"""Bytes of results that are kept at once; those that were read longest ago make room."""


class RememberedResults:
    """Reads the stored analyses of a run, each once while its files stay as they are.

    Parameters
    ----------
    location : RunLocation
        The run.
    """

    def __init__(self, location: RunLocation) -> None:
        self._location = location
        self._kept: dict[str, tuple[Any, xr.Dataset]] = {}

    def read(self, name: str) -> xr.Dataset | None:
        """Return a stored analysis as `read_result` does, with numbers of the caller's own.

        Raises
        ------
        CorruptRunError
            If it is damaged.
        """
        stamp = self._stamp(name)
        kept = self._kept.pop(name, None)
        if kept is None or stamp is None or kept[0] != stamp:
            found = read_result(self._location, name)
            if found is None or stamp is None or found.nbytes > MOST_BYTES:
                return found
            kept = stamp, found
        self._kept[name] = kept  # the last one is the one read last
        for oldest in list(self._kept):
            if sum(found.nbytes for _, found in self._kept.values()) <= MOST_BYTES:
                break
            self._kept.pop(oldest, None)
        found = kept[1]
        return found.copy(data={key: values.values.copy() for key, values in found.items()})

    def _stamp(self, name: str) -> Any:
        """Return what changes with any file of a result; None where it cannot be known."""
        key = f"analysis/{name}"
        try:
            if not self._location.is_local:
                return self._location.files.read_bytes(f"{key}/zarr.json")
            return _files_below(Path(self._location.files.full(key)))
        except OSError:
            return None


def _files_below(path: Path) -> list[tuple[str, int, int, int]]:
    """Return name, number, size and time of every file below a directory, in order."""
    found = []
    for folder, _, names in os.walk(path):
        for name in names:
            place = os.path.join(folder, name)
            file = os.stat(place)
            found.append((place, file.st_ino, file.st_size, file.st_mtime_ns))
    return sorted(found)
