"""The recordings of one running app: one at a time, in a temporary folder that goes with it.

A finished one can be looked at where it lies, kept (moved into a folder that is open in the app),
or thrown away. It knows nothing of pages.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib.util
import os
import re
import secrets
import shutil
import tempfile
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from looplens.errors import InputError
from looplens_dashboard.live.job import WORKER, LiveJob, LiveState
from looplens_dashboard.live.models import LiveModel, find_models
from looplens_dashboard.live.request import LiveLimits, LiveRequest, check_memory, read_request

PREFIX = "looplens-live-"
_LOCK = "lock"
_SETTLED = 60.0  # seconds after which the folder of another app is locked if that is alive
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class LiveSession:
    """Records on request, and owns what was recorded until it is kept.

    Parameters
    ----------
    models : iterable of path
        Checkpoint directories, or folders of them, beside the bundled models.
    limits : LiveLimits
        Bounds of what may be recorded.
    command : tuple of str
        The program that records.

    Raises
    ------
    InputError
        If one of the directories holds no model.
    """

    def __init__(
        self,
        models: Iterable[str | os.PathLike[str]] = (),
        *,
        limits: LiveLimits | None = None,
        command: tuple[str, ...] = WORKER,
    ) -> None:
        self.models: dict[str, LiveModel] = find_models(models)
        self.limits = limits or LiveLimits()
        self._command = command
        self._lock = threading.RLock()
        self._jobs: dict[str, LiveJob] = {}
        self._number = 0
        self._folder: Path | None = None
        self._held: Any = None

    def start(self, values: dict[str, Any]) -> LiveState:
        """Start a recording.

        Parameters
        ----------
        values : dict
            What the page sent; see `read_request`.

        Raises
        ------
        InputError
            If the request cannot be used, torch is not installed, memory is short, another
            recording is running, or too many wait to be kept.
        """
        request = read_request(values, self.models, self.limits)
        _check_installed()
        check_memory(request.model, self.limits)
        with self._lock:
            self._check_free()
            return self._start(request).state

    def states(self) -> list[LiveState]:
        """Return where all recordings stand, the newest first; those that were kept are gone."""
        with self._lock:
            return [job.state for job in reversed(self._jobs.values())]

    def state(self, id: str) -> LiveState:
        """Return where a recording stands.

        Raises
        ------
        InputError
            If there is no such recording.
        """
        return self._job(id).state

    def path(self, id: str) -> Path:
        """Return where a finished recording lies.

        Raises
        ------
        InputError
            If there is no such recording, or it is not finished.
        """
        job = self._job(id)
        if job.state.stage != "done":
            raise InputError(f"This recording is not finished: {job.state.words}.")
        return job.path

    def cancel(self, id: str) -> LiveState:
        """End a recording that is running; nothing of it is left behind."""
        job = self._job(id)
        job.cancel()
        return job.state

    def discard(self, id: str) -> None:
        """Throw a recording away; one that is running is ended first."""
        with self._lock:
            job = self._job(id)
            job.cancel()
            del self._jobs[id]
            shutil.rmtree(job.path.parent, ignore_errors=True)

    def keep(self, id: str, folder: Path, name: str) -> Path:
        """Move a finished recording into a folder.

        Parameters
        ----------
        id : str
            Which.
        folder : Path
            A folder that is open in the app; whoever calls has looked it up.
        name : str
            Name of the run there.

        Returns
        -------
        Path
            Where it lies now.

        Raises
        ------
        InputError
            If the name cannot be used or is taken, or the run cannot be moved.
        """
        check_name(name)
        target = folder / name
        with self._lock:
            source = self.path(id)
            if target.exists() or target.is_symlink():
                raise InputError(
                    f"There is a {name!r} in {folder.name} already. Give another name."
                )
            try:
                os.stat(folder)  # a folder that is gone is not made again
                _move(source, target)
            except OSError as error:
                raise InputError(
                    f"The run cannot be kept in {folder.name}: {error.strerror or error}. It is "
                    "still here."
                ) from error
            job = self._jobs.pop(id)
            shutil.rmtree(job.path.parent, ignore_errors=True)
        return target

    def close(self) -> None:
        """End what is running and remove what was not kept."""
        with self._lock:
            for job in self._jobs.values():
                job.cancel()
            self._jobs.clear()
            if self._folder is not None:
                shutil.rmtree(self._folder, ignore_errors=True)
                self._held.close()
                self._folder = None
        atexit.unregister(self.close)

    def _start(self, request: LiveRequest) -> LiveJob:
        self._number += 1
        id = secrets.token_hex(8)
        try:
            job = LiveJob(
                id,
                request,
                self.limits,
                self._own_folder() / id,
                f"live-{self._number}",
                self._command,
            )
        except OSError as error:
            raise InputError(
                f"The recording cannot be started: {error.strerror or error}."
            ) from error
        self._jobs = {key: one for key, one in self._jobs.items() if one.state.stage == "done"}
        self._jobs[id] = job
        return job

    def _check_free(self) -> None:
        states = [job.state for job in self._jobs.values()]
        busy = next((state for state in states if state.running), None)
        if busy is not None:
            raise InputError(
                f"A recording of {busy.model} is running ({busy.words}). Wait for it, or cancel it."
            )
        if sum(state.stage == "done" for state in states) >= self.limits.waiting:
            raise InputError(
                f"{self.limits.waiting} recordings wait to be kept. Keep or throw away one of them "
                "first."
            )

    def _job(self, id: str) -> LiveJob:
        with self._lock:
            if id not in self._jobs:
                raise InputError("This recording is not here any more: it was kept or thrown away.")
            return self._jobs[id]

    def _own_folder(self) -> Path:
        if self._folder is None:
            remove_leftovers()
            self._folder = Path(tempfile.mkdtemp(prefix=PREFIX))
            self._held = (self._folder / _LOCK).open("w")
            _try_lock(self._held)
            atexit.register(self.close)
        return self._folder


def check_name(name: str) -> None:
    """Check the name of a run that is kept.

    Raises
    ------
    InputError
        If it is anything but a plain name.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InputError(
            "A name has 1 to 64 letters, digits, dots, dashes or underscores and begins with a "
            f"letter or digit, not {str(name)[:80]!r}."
        )


def remove_leftovers() -> None:
    """Remove the folders of apps that were killed: nobody holds the lock in them any more."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        lock = folder / _LOCK
        with contextlib.suppress(OSError):
            own = not hasattr(os, "getuid") or folder.lstat().st_uid == os.getuid()
            if folder.is_symlink() or not own or time.time() - lock.stat().st_mtime < _SETTLED:
                continue
            with lock.open("r+") as held:
                if _try_lock(held):
                    shutil.rmtree(folder, ignore_errors=True)


def _try_lock(file: Any) -> bool:
    """Hold a file's lock until it is closed; False where another process does, or none can."""
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (ImportError, OSError):
        return False
    return True


def _move(source: Path, target: Path) -> None:
    """Move a directory so that it appears whole, on whichever file system that is."""
    with contextlib.suppress(OSError):
        source.rename(target)
        return
    building = target.with_name(f".{target.name}.{secrets.token_hex(4)}.partial")
    try:
        shutil.copytree(source, building)
        building.rename(target)
    except OSError:
        shutil.rmtree(building, ignore_errors=True)
        raise


def _check_installed() -> None:
    missing = [name for name in ("torch", "safetensors") if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(
            f"Recording needs {' and '.join(missing)}, which this installation does not have. "
            "Install it with: pip install 'looplens-interp[record]'"
        )
