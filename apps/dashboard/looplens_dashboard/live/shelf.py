"""Recordings among the runs of the app: a finished one is listed, and stays listed when it is kept.

It knows the recorder and the list of runs, and nothing of pages.
"""

from __future__ import annotations

import threading
from pathlib import Path

from looplens.errors import InputError
from looplens_dashboard.live.job import LiveState
from looplens_dashboard.live.session import LiveSession
from looplens_dashboard.workspace import Workspace


class LiveShelf:
    """The recordings of a session, listed in a workspace.

    Parameters
    ----------
    session : LiveSession
        Records.
    workspace : Workspace
        Lists the runs of the app.
    """

    def __init__(self, session: LiveSession, workspace: Workspace) -> None:
        self.session = session
        self.workspace = workspace
        self._lock = threading.RLock()
        self._keys: dict[str, str] = {}

    @property
    def folders(self) -> tuple[Path, ...]:
        """The folders that a recording can be kept in."""
        return self.workspace.folders

    def states(self) -> list[LiveState]:
        """Return where all recordings stand, the newest first; finished ones are listed now."""
        with self._lock:
            states = self.session.states()
            for state in states:
                if state.stage == "done" and state.id not in self._keys:
                    self._keys[state.id] = self._list(self.session.path(state.id))
            return states

    def key(self, id: str) -> str:
        """Return the key of a finished recording among the runs; empty before its end."""
        return self._keys.get(id, "")

    def keep(self, id: str, folder: int, name: str) -> str:
        """Move a finished recording into an opened folder; return its key there.

        Parameters
        ----------
        id : str
            Which.
        folder : int
            Place of the folder in `folders`.
        name : str
            Name of the run there.

        Raises
        ------
        InputError
            If it cannot be kept; it then stays where it is.
        """
        if not self.folders:
            raise InputError(
                "No folder is open to keep it in. Start the app with one: looplens app FOLDER"
            )
        if not 0 <= folder < len(self.folders):
            raise InputError("That folder is not open any more. Choose another one.")
        with self._lock:
            path = self.session.keep(id, self.folders[folder], name)
            self._unlist(id)
            self.workspace.rescan()
            found = [one.key for one in self.workspace.entries(seconds=0) if one.path == str(path)]
            return found[0] if found else self._list(path)

    def discard(self, id: str) -> str:
        """Throw a recording away; return the key that it had, empty where it was not finished."""
        with self._lock:
            key = self._unlist(id)
            self.session.discard(id)
            return key

    def _list(self, path: Path) -> str:
        taken = {entry.key for entry in self.workspace.entries(seconds=0)}
        key, number = path.name, 2
        while key in taken:
            key, number = f"{path.name}~{number}", number + 1
        return self.workspace.add(path, key).key

    def _unlist(self, id: str) -> str:
        key = self._keys.pop(id, "")
        if key:
            self.workspace.remove(key)
        return key
