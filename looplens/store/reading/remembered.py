"""Stored analyses that were opened already, kept for as long as their files do not change.

A report asks for most results several times, and a dashboard for all of them at every click. What
is kept is the opened result and the chunks that were read of it; a look at whether the files are
still the same costs far less than reading them.
"""

from __future__ import annotations

import xarray as xr

from looplens.store.files.location import RunLocation
from looplens.store.reading.result_arrays import ChunkMemory
from looplens.store.reading.results import open_result, stored_names

MOST_BYTES = 128_000_000
"""Bytes of results that are kept at once; those that were read longest ago make room."""


class RememberedResults:
    """Opens the stored analyses of a run, each once while its files stay as they are.

    Parameters
    ----------
    location : RunLocation
        The run.
    """

    def __init__(self, location: RunLocation) -> None:
        self._location = location
        self._memory = ChunkMemory(MOST_BYTES)
        self._opened: dict[str, tuple[object, xr.Dataset]] = {}
        self._names: tuple[object, list[str]] = (None, [])

    def names(self) -> list[str]:
        """Return the names of the stored analyses; those in a group as ``group/name``."""
        stamp = self._stamp_of_names(self._names[1])
        if stamp is None or stamp != self._names[0]:
            found = stored_names(self._location)
            self._names = self._stamp_of_names(found), found
        return list(self._names[1])

    def stamp(self) -> tuple[tuple[str, object], ...]:
        """Return what changes whenever a result is added, replaced or removed."""
        return tuple((name, self._version(name)) for name in self.names())

    def open(self, name: str) -> xr.Dataset | None:
        """Return a stored analysis whose variables are read when they are indexed.

        None when there is none of that name. Everyone gets the same object: load a copy.

        Raises
        ------
        CorruptRunError
            If it is damaged; damage of the numbers shows when they are read.
        """
        version = self._version(name)
        opened = self._opened.get(name)
        if opened is None or opened[0] != version:
            found = open_result(self._location, name, self._memory, version)
            if found is None:
                return None
            opened = self._opened[name] = version, found
        return opened[1]

    def _stamp_of_names(self, names: list[str]) -> object:
        """Return what changes with a directory of results; None where it cannot be known."""
        groups = {name.partition("/")[0] for name in names if "/" in name}
        try:
            stamps = [
                self._location.files.stamp(key)
                for key in ("analysis", *(f"analysis/{group}" for group in sorted(groups)))
            ]
        except OSError:
            return None
        return None if None in stamps else stamps

    def _version(self, name: str) -> object:
        """Return what changes when a result is replaced, which is done as a whole."""
        key = f"analysis/{name}/zarr.json"
        try:
            return self._location.files.stamp(key) or self._location.read_bytes(key)
        except (OSError, ValueError):
            return None
