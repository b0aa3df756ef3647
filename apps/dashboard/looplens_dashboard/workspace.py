"""The runs that the app was started on: listed, and opened when they are looked at.

A run is asked for by its key, which is looked up among the listed ones. No request holds a path, so
none can reach anything outside of what was named at the start.
"""

from __future__ import annotations

import os
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from looplens.errors import InputError, LoopLensError, NotARunError, near_matches
from looplens.run import Run, open_run
from looplens_dashboard.entries import Entry, describe, unusable, with_details
from looplens_dashboard.finding import (
    DEEPEST,
    MOST_FOLDERS,
    Location,
    exists,
    find_stores,
    is_foreign,
    is_store,
    leads_out,
    measure,
    name_of,
    resolved,
    stamp_of,
)
from looplens_dashboard.selection.choices import listed

MOST_OPEN = 8
"""Runs that are kept open; the one that was looked at longest ago makes room."""

_RESCAN_SECONDS = 2.0
_NAMED, _FOUND, _ADDED = "named", "found", "added"
RunPath = str | os.PathLike[str] | Run


@dataclass(kw_only=True, slots=True)
class _Place:
    """A listed run: where it lies, and what is known of it while its files stay as they are."""

    key: str
    path: Location
    origin: str
    outside: bool = False
    stamp: Any = None
    entry: Entry | None = None
    detailed: bool = False


class Workspace:
    """The opened runs, and folders of runs.

    Parameters
    ----------
    paths : path, looplens.Run, or several
        Runs, which may be URLs, and folders in which runs lie, down to four levels.
    may_be_empty : bool
        Accept folders without a run, because some will be recorded into them.

    Attributes
    ----------
    folders : tuple of Path
        Those of the paths that are folders of runs.
    notes : tuple of str
        What to say beside the list: that not every folder was looked into.

    Raises
    ------
    NotARunError
        If a path holds no run, and no runs lie below it.
    SchemaVersionError, CorruptRunError
        If the only run cannot be opened. One of several is listed with what is wrong with it.
    """

    def __init__(self, paths: RunPath | Iterable[RunPath], *, may_be_empty: bool = False) -> None:
        given = [paths] if isinstance(paths, str | os.PathLike | Run) else list(paths)
        if not given:
            raise InputError("There is nothing to show: give a run, or a folder of runs.")
        self._lock = threading.RLock()
        self._places: dict[str, _Place] = {}
        self._opened: OrderedDict[str, Run] = OrderedDict()
        self._scanned = 0.0
        self.notes: tuple[str, ...] = ()
        paths_given = dict.fromkeys(
            resolved(path.path if isinstance(path, Run) else path) for path in given
        )
        self.folders = tuple(
            path
            for path in paths_given
            if isinstance(path, Path) and path.is_dir() and not is_store(path)
        )
        self._roots = {path.resolve() for path in paths_given if isinstance(path, Path)}
        for path in paths_given:
            if path not in self.folders:
                self._list(path, name_of(path), _NAMED)
        self.rescan()
        for place in self._places.values():
            if len(self._places) == 1 or not exists(place.path):
                self.open(place.key)
        if not self._places and not may_be_empty:
            raise NotARunError(
                f"There is no run in {', '.join(map(str, self.folders))}, down to {DEEPEST} "
                "folders deep. Give the directory of a run, or a folder above it."
            )

    @property
    def default_key(self) -> str | None:
        """Key of the run that is shown first: the first that can be opened; None without a run."""
        with self._lock:
            for place in self._places.values():
                if self._entry(place).problem is None:
                    return place.key
            return next(iter(self._places), None)

    def entries(self, *, seconds: float = 0.4) -> list[Entry]:
        """Return the listed runs: those that were named, those found in folders, those added.

        New and changed ones are looked for when the last look was some seconds ago.

        Parameters
        ----------
        seconds : float
            How long to spend on sizes and regimes that are not known yet; later calls go on.
        """
        with self._lock:
            if time.monotonic() - self._scanned > _RESCAN_SECONDS:
                self.rescan()
            until = time.monotonic() + seconds
            return [
                self._detailed(place) if time.monotonic() < until else self._entry(place)
                for place in self._places.values()
            ]

    def entry(self, key: str) -> Entry:
        """Return one listed run, with its size and regimes.

        Raises
        ------
        InputError
            If no run has that key.
        """
        with self._lock:
            return self._detailed(self._place(key))

    def rescan(self) -> None:
        """Look for runs in the opened folders again; those that are gone leave the list."""
        with self._lock:
            notes, there = [], set()
            for folder in self.folders:
                found, whole = find_stores(folder, self._roots)
                listed = {place.path for place in self._places.values()}
                for one in found:
                    if one.outside or one.path in listed or not is_foreign(one.path):
                        there.add(self._list(one.path, one.below, _FOUND, outside=one.outside))
                if not whole:
                    notes.append(
                        f"Only the first {MOST_FOLDERS:,} folders in {folder} were looked into."
                    )
            for place in list(self._places.values()):
                if place.origin == _FOUND and place.key not in there:
                    self._forget(place)
            self.notes = tuple(notes)
            self._scanned = time.monotonic()

    def open(self, key: str) -> Run:
        """Return a listed run, opened: the same object for as long as its files do not change.

        Raises
        ------
        InputError
            If no run has that key.
        NotARunError, SchemaVersionError, CorruptRunError
            If it cannot be opened.
        StoreError
            If a link in it leads out of what was opened.
        """
        with self._lock:
            place = self._place(key)
            self._entry(place)
            if key not in self._opened:
                self._opened[key] = self._checked(place)
            self._opened.move_to_end(key)
            while len(self._opened) > MOST_OPEN:
                self._opened.popitem(last=False)
            return self._opened[key]

    def add(self, path: str | os.PathLike[str], key: str) -> Entry:
        """List one more run, such as one that was recorded just now.

        Raises
        ------
        InputError
            If another run has that key.
        """
        with self._lock:
            place = resolved(path)
            if key in self._places and self._places[key].path != place:
                raise InputError(f"There is a run {key!r} already: choose another name.")
            if isinstance(place, Path):
                self._roots.add(place.resolve())
            return self._detailed(self._places[self._list(place, key, _ADDED)])

    def remove(self, key: str) -> None:
        """Take a run that was added from the list. Its files stay as they are.

        Raises
        ------
        InputError
            If no run has that key, or it is one of those that the app was started on.
        """
        with self._lock:
            place = self._place(key)
            if place.origin != _ADDED:
                raise InputError(f"{key!r} lies in what the app was started on, and stays listed.")
            if isinstance(place.path, Path):
                self._roots.discard(place.path.resolve())
            self._forget(place)

    # What is known of a place. The lock is held by who calls.

    def _place(self, key: str) -> _Place:
        if key not in self._places:
            self.rescan()
        if not self._places:
            raise InputError(
                f"No run lies in {', '.join(map(str, self.folders))} yet. Record one into it, or "
                "on the page Live: it is listed by itself."
            )
        if key not in self._places:
            raise InputError(
                f"There is no run {key!r} here.{near_matches(key, self._places)} "
                f"The runs are: {listed(list(self._places))}."
            )
        return self._places[key]

    def _list(self, path: Location, key: str, origin: str, *, outside: bool = False) -> str:
        """Put a run on the list, unless it is there; return its key."""
        for place in self._places.values():
            if place.path == path:
                return place.key
        number, free = 1, key
        while free in self._places:
            number += 1
            free = f"{key}~{number}"
        self._places[free] = _Place(key=free, path=path, origin=origin, outside=outside)
        return free

    def _forget(self, place: _Place) -> None:
        del self._places[place.key]
        self._opened.pop(place.key, None)

    def _entry(self, place: _Place) -> Entry:
        """Describe a run from its metadata, again only when its files have changed."""
        stamp = stamp_of(place.path)
        if place.entry is None or stamp != place.stamp:
            self._opened.pop(place.key, None)
            place.stamp, place.detailed = stamp, False
            try:
                if place.outside:
                    raise leads_out(place.path)
                place.entry = describe(place.key, open_run(place.path))
            except LoopLensError as error:
                place.entry = unusable(place.key, place.path, str(error))
        return place.entry

    def _detailed(self, place: _Place) -> Entry:
        """Describe a run with its size and regimes, which takes longer."""
        entry = self._entry(place)
        if entry.problem is None and not place.detailed:
            size, out = self._measured(place)
            if out is None:
                run = self._opened.get(place.key) or open_run(place.path, lazy=True)
                entry = with_details(entry, run, size)
            else:
                entry = unusable(place.key, place.path, str(leads_out(place.path, out)))
            place.entry = entry
        place.detailed = True
        return entry

    def _checked(self, place: _Place) -> Run:
        """Open a run after looking whether all of it lies in what was opened."""
        if place.outside:
            raise leads_out(place.path)
        _, out = self._measured(place)
        if out is not None:
            raise leads_out(place.path, out)
        return open_run(place.path, lazy=True)

    def _measured(self, place: _Place) -> tuple[int | None, str | None]:
        return measure(place.path, self._roots) if isinstance(place.path, Path) else (None, None)
