"""Claims to blocks: of several processes that write one run, one writes a block.

A claim is a small file beside the commit records, created exclusively and removed after the
commit. The claim of a process that died on this machine is taken over; what happens on another
machine cannot be seen from here, so the user has to say that a process there is gone.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
from pathlib import Path
from typing import Any

from looplens.errors import StoreError
from looplens.store.files.location import RunLocation
from looplens.store.format.blocks import claim_key


class Claims:
    """The claims of one writer.

    Parameters
    ----------
    location : RunLocation
        The run.
    takeover : bool
        Whether claims of processes on other machines are taken over too. For when it is known
        that they are gone.
    """

    def __init__(self, location: RunLocation, *, takeover: bool = False) -> None:
        self.location = location
        self.takeover = takeover
        self.held: set[int] = set()
        self._mine = {**_this_process(), "token": secrets.token_hex(8)}

    def claim(self, block: int) -> None:
        """Claim a block.

        Raises
        ------
        StoreError
            If another process writes it, or may.
        """
        if block not in self.held:
            self._acquire(claim_key(block), block)
            self.held.add(block)

    def release(self, block: int) -> None:
        """Give up the claim to a block, if it is held."""
        if block in self.held:
            self.held.discard(block)
            # Another writer may have been told that this process is gone.
            if self._holder(claim_key(block)) == self._mine:
                self.location.remove(claim_key(block))

    def release_all(self) -> None:
        """Give up all claims."""
        for block in sorted(self.held):
            self.release(block)

    def _acquire(self, key: str, block: int) -> None:
        content = json.dumps(self._mine).encode()
        while not self.location.create_exclusive(key, content):
            holder = self._holder(key)
            if holder is None:  # released in between
                continue
            self._check_gone(holder, block)
            # Of those that find the same claim abandoned one may replace it: the one that claims
            # the right to. It looks again, because another may have done so in between.
            right = f"{key}.{holder.get('token', 'damaged')}"
            self._acquire(right, block)
            try:
                if self._holder(key) == holder:
                    self.location.write_atomic(key, content)
                    return
            finally:
                self.location.remove(right)

    def _holder(self, key: str) -> dict[str, Any] | None:
        """Return who holds a claim; None when it is free."""
        try:
            document = json.loads(self.location.read_bytes(key))
        except FileNotFoundError:
            return None
        except ValueError:
            return {}
        return document if isinstance(document, dict) else {}

    def _check_gone(self, holder: dict[str, Any], block: int) -> None:
        """Raise unless the holder of a claim is a process that is gone."""
        if not holder:  # claims appear whole, so this one is of nobody
            return
        pid, host = holder.get("pid"), holder.get("host")
        namespace = holder.get("pid_namespace", self._mine["pid_namespace"])
        if (host, namespace) == (self._mine["host"], self._mine["pid_namespace"]):
            if holder.get("process_started") != process_started(pid):
                return
            raise StoreError(
                f"{self.location}: block {block} is being written by process {pid} on host {host}. "
                "Wait until it is done, or record another part."
            )
        if self.takeover:
            return
        raise StoreError(
            f"{self.location}: block {block} is claimed by process {pid} on host {host}, which "
            "cannot be seen from here. If that process is gone, pass takeover=True (--takeover on "
            "the command line)."
        )


def process_started(pid: object) -> str | None:
    """Return when a process of this machine started, in its own units; None when it is gone.

    Numbers of processes are used again; with the time of their start, and the boot that it counts
    from, they are not.
    """
    if not isinstance(pid, int) or pid < 1:
        return None
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        # Behind the name in brackets, which may hold anything: state is field 3, start field 22.
        fields = status.rpartition(")")[2].split()
    except FileNotFoundError:
        return _without_proc(pid)
    except OSError:
        return None
    # What was killed and not yet waited for writes nothing any more.
    return None if fields[0] in "ZX" else f"{boot} {fields[19]}"


def _without_proc(pid: int) -> str | None:
    """Return whether a process lives, where the system does not tell since when."""
    if Path("/proc/self/stat").exists():
        return None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return "unknown"


def _this_process() -> dict[str, Any]:
    pid = os.getpid()
    namespace = None
    with contextlib.suppress(OSError):
        # Containers on one machine may share its name, and do not see each other's processes.
        namespace = os.readlink("/proc/self/ns/pid")
    return {
        "host": socket.gethostname(),
        "pid_namespace": namespace,
        "pid": pid,
        "process_started": process_started(pid),
    }
