"""One recording: a process of its own, what it says of its progress, and its end.

The process leads a group, so that ending it ends all that it started. It ends by itself when this
one is gone, because its standard input closes then.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import looplens
from looplens_dashboard.live.request import LiveLimits, LiveRequest, summary

_log = logging.getLogger(__name__)

# This looplens, wherever it lies; appended, so that nothing beside it stands before the standard
# library, and without the current directory, whose files are none of ours.
WORKER = (
    sys.executable,
    "-P",
    "-c",
    f"import sys; sys.path.append({str(Path(looplens.__file__).parents[1])!r}); "
    "from looplens.cli.live_worker import main; sys.exit(main())",
)
_LONGEST_LINE = 64 * 1024
_LARGEST_LOG = 256 * 1024
_WORDS = {
    "starting": "starting a process",
    "loading": "loading the model",
    "recording": "recording",
    "analysing": "analysing",
    "done": "done",
    "failed": "failed",
    "cancelled": "cancelled",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class LiveState:
    """Where a recording stands.

    Attributes
    ----------
    id : str
        Of the recording.
    model, prompt : str
        What is recorded, in words.
    stage : str
        ``starting``, ``loading``, ``recording``, ``analysing``, ``done``, ``failed`` or
        ``cancelled``.
    share : float or None
        How much of the stage is done, where that is known; 0 to 1.
    message : str
        Why it failed.
    notes : tuple of str
        What to know of the run.
    seconds : float
        Since it was started, until its end.
    """

    id: str
    model: str
    prompt: str
    stage: str = "starting"
    share: float | None = None
    message: str = ""
    notes: tuple[str, ...] = ()
    seconds: float = 0.0

    @property
    def running(self) -> bool:
        """Whether it has not ended yet."""
        return self.stage not in ("done", "failed", "cancelled")

    @property
    def words(self) -> str:
        """The stage in words, with how much of it is done."""
        words = _WORDS[self.stage]
        return words if self.share is None else f"{words}, {self.share:.0%}"


class LiveJob:
    """Starts recording at once, in a process of its own.

    Parameters
    ----------
    id : str
        Its name.
    request : LiveRequest
        What to record.
    limits : LiveLimits
        Bounds of it.
    folder : Path
        A directory of its own, which is made, and removed if it does not succeed.
    name : str
        Name of the run in it.
    command : sequence of str
        The program that records.

    Raises
    ------
    OSError
        If the process cannot be started.
    """

    def __init__(
        self,
        id: str,
        request: LiveRequest,
        limits: LiveLimits,
        folder: Path,
        name: str,
        command: tuple[str, ...] = WORKER,
    ) -> None:
        self.path = folder / name
        self._folder, self._limits, self._started = folder, limits, time.monotonic()
        self._lock = threading.Lock()
        self._state = LiveState(id=id, model=request.model.key, prompt=summary(request.prompts))
        folder.mkdir(mode=0o700)
        self._log_path = folder / "log"
        asked = request.options() | {
            "model": str(request.model.path),
            "out": str(self.path),
            "memory_bytes": limits.memory(),
            "run_bytes": limits.run_bytes,
            "seconds": limits.seconds,
            "most_tokens": limits.tokens,
            "most_iterations": limits.iterations,
        }
        try:
            with self._log_path.open("wb") as log:
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    start_new_session=True,
                    env=os.environ | {"HF_HUB_OFFLINE": "1"},  # models are looked for here only
                )
        except OSError:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        self._deadline = threading.Timer(limits.seconds, self._too_late)
        self._deadline.daemon = True
        self._deadline.start()
        self._reader = threading.Thread(target=self._listen, args=(asked,), daemon=True)
        self._reader.start()

    @property
    def state(self) -> LiveState:
        """Where it stands now."""
        with self._lock:
            state = self._state
        if state.running:
            state = replace(state, seconds=time.monotonic() - self._started)
        return state

    def cancel(self) -> None:
        """End it, with all that it started and wrote; without effect after its end."""
        self._end("cancelled", "")
        self._reader.join(10)

    def wait(self, seconds: float) -> LiveState:
        """Return where it stands after its end, or after so many seconds."""
        self._reader.join(seconds)
        return self.state

    def _too_late(self) -> None:
        self._end(
            "failed",
            f"It took longer than {self._limits.seconds / 60:.3g} minutes, which is the most that "
            "is allowed here. Use fewer tokens, iterations or restarts.",
        )

    def _end(self, stage: str, message: str) -> None:
        self._finish(stage, message)
        self._kill()

    def _kill(self) -> None:
        # Until it is waited for, its number and its group belong to nobody else.
        with self._lock, contextlib.suppress(ProcessLookupError, PermissionError):
            if self._process.returncode is None and hasattr(os, "killpg"):
                os.killpg(self._process.pid, signal.SIGKILL)
            elif self._process.returncode is None:
                self._process.kill()

    def _wait(self) -> int:
        """Return its exit code, when all that it started has ended too."""
        if hasattr(os, "waitid"):
            os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)
            self._kill()
            with self._lock:
                return self._process.wait()
        return self._process.wait()

    def _listen(self, asked: Mapping[str, Any]) -> None:
        """Follow the process to its end, then clean up."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        with contextlib.suppress(OSError):  # it may be gone already, which shows below
            stdin.write(json.dumps(asked).encode() + b"\n")
            stdin.flush()
        said: dict[str, Any] = {}
        for line in iter(lambda: stdout.readline(_LONGEST_LINE), b""):
            said = self._hear(line) or said
        code = self._wait()
        self._deadline.cancel()
        stdout.close()
        with contextlib.suppress(OSError):
            stdin.close()
        if said.get("stage") == "done" and code == 0:
            self._finish("done", "")
        else:
            self._finish("failed", str(said.get("error") or _reason(code)))
        if self.state.stage != "done":
            if code > 0 and code != 2 and self.state.stage == "failed":
                _log.error("A live recording failed:\n%s", self._last_words())
            shutil.rmtree(self._folder, ignore_errors=True)

    def _finish(self, stage: str, message: str) -> None:
        with self._lock:
            if self._state.running:
                self._state = replace(
                    self._state,
                    stage=stage,
                    share=None,
                    message=message,
                    seconds=time.monotonic() - self._started,
                )

    def _hear(self, line: bytes) -> dict[str, Any] | None:
        """Take in one message; return it where it is the last one."""
        try:
            message = json.loads(line)
        except ValueError:
            return None
        if not isinstance(message, dict):
            return None
        with self._lock:
            if not self._state.running:
                return None
            if "note" in message:
                notes = tuple(dict.fromkeys((*self._state.notes, str(message["note"]))))
                self._state = replace(self._state, notes=notes[:8])
            elif message.get("stage") in ("loading", "recording", "analysing"):
                share = message.get("share")
                self._state = replace(self._state, stage=message["stage"], share=share)
        return message if "error" in message or message.get("stage") == "done" else None

    def _last_words(self) -> str:
        with contextlib.suppress(OSError), self._log_path.open("rb") as log:
            log.seek(max(0, self._log_path.stat().st_size - _LARGEST_LOG))
            return log.read().decode(errors="replace")
        return ""


def _reason(code: int) -> str:
    """Say why a process ended that said nothing itself."""
    if code == -getattr(signal, "SIGKILL", 9):
        return (
            "The system ended the recording, most likely because memory ran out. Use fewer "
            "iterations, restarts or tokens, or a smaller model."
        )
    if code < 0:
        return f"The recording crashed (signal {-code}). The terminal may show why."
    return f"The recording ended without a result (exit code {code}). The terminal shows why."
