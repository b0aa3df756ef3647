"""What a recording will take, before it is made: bytes, files, blocks, time.

Bytes are exact, as the store lays its files; time is that of a short forward and a small file,
scaled up. This module writes nothing but that file, which it removes.
"""

from __future__ import annotations

import math
import os
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from looplens.recording.preparing import Recording
from looplens.store.files.location import RunLocation
from looplens.store.format.layout import Layout
from looplens.store.format.schema import VariableSpec

_PROBE_TOKENS = 256
_PROBE_BYTES = 16 * 2**20
_CHECKSUM_BYTES, _INDEX_BYTES = 4, 16


@dataclass(frozen=True, kw_only=True, slots=True)
class VariablePlan:
    """What one variable takes.

    Attributes
    ----------
    dims, shape, dtype : tuple of str, tuple of int, str
        As it will be stored.
    nbytes : int
        Bytes on disk; for compressed variables (attention patterns) the most it can be, about.
    files : int
        How many files.
    compressed : bool
        Whether it is.
    """

    dims: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str
    nbytes: int
    files: int
    compressed: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class RecordingPlan:
    """What a recording will take; printed, it is a table.

    Attributes
    ----------
    out : str
        Where it would be written.
    variables : mapping of str to VariablePlan
        By path in the store.
    n_prompts, n_tokens : int
        Prompts, and recorded tokens.
    n_blocks, block_tokens : int
        How many blocks are committed one after the other, and the tokens of one.
    free_bytes : int or None
        Room at ``out``; None where there is no telling, as on an object store.
    compute_seconds, write_seconds : float or None
        Estimates for one process like this one; None where nothing was measured.
    """

    out: str
    variables: Mapping[str, VariablePlan]
    n_prompts: int
    n_tokens: int
    n_blocks: int
    block_tokens: int
    free_bytes: int | None
    compute_seconds: float | None
    write_seconds: float | None

    @property
    def total_bytes(self) -> int:
        """Bytes of all variables."""
        return sum(variable.nbytes for variable in self.variables.values())

    @property
    def files(self) -> int:
        """Files of all variables, and the record of each block."""
        return sum(variable.files for variable in self.variables.values()) + self.n_blocks

    @property
    def fits(self) -> bool:
        """Whether there is room, as far as can be told."""
        return self.free_bytes is None or self.total_bytes <= self.free_bytes

    @property
    def seconds(self) -> float | None:
        """Estimated seconds: forwards and writing one after the other, at worst."""
        if self.compute_seconds is None:
            return None
        return self.compute_seconds + (self.write_seconds or 0)

    def __str__(self) -> str:
        rows = [("variable", "shape", "dtype", "files", "bytes", "")]
        for path, variable in self.variables.items():
            axes = zip(variable.dims, variable.shape, strict=True)
            shape = ", ".join(f"{name} {size}" for name, size in axes)
            bytes_ = f"{variable.nbytes:,}"
            at_most = "at most" if variable.compressed else ""
            rows.append((path, shape, variable.dtype, f"{variable.files:,}", bytes_, at_most))
        rows.append(("total", "", "", f"{self.files:,}", f"{self.total_bytes:,}", ""))
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        lines = [
            "  ".join(
                cell.rjust(width) if column in (3, 4) else cell.ljust(width)
                for column, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in rows
        ]
        free = "unknown" if self.free_bytes is None else shown_bytes(self.free_bytes)
        verdict = "it fits" if self.fits else "it does NOT fit"
        lines += [
            "",
            f"prompts   {self.n_prompts:,} of {self.n_tokens:,} recorded tokens",
            f"blocks    {self.n_blocks:,} of {self.block_tokens:,} tokens",
            f"size      {shown_bytes(self.total_bytes)}; free at {self.out}: {free}; {verdict}",
            f"time      {_shown_seconds(self)}",
        ]
        return "\n".join(lines)


def plan_recording(recording: Recording, out: str | os.PathLike[str]) -> RecordingPlan:
    """Return what a recording to ``out`` will take.

    Raises
    ------
    InputError
        If ``out`` cannot be written to because of its kind.
    """
    spec, layout = recording.spec, recording.spec.layout
    location = RunLocation(out)
    variables = {
        path: VariablePlan(
            dims=variable.dims,
            shape=variable.shape,
            dtype=variable.dtype,
            nbytes=stored_bytes(variable),
            files=_files(variable),
            compressed=variable.compressed,
        )
        for path, variable in layout.variables().items()
    }
    total = sum(variable.nbytes for variable in variables.values())
    speed = _bytes_per_second(location)
    return RecordingPlan(
        out=os.fspath(out),
        variables=variables,
        n_prompts=len(spec.prompts),
        n_tokens=spec.n_tokens,
        n_blocks=_n_blocks(layout),
        block_tokens=layout.block_tokens,
        free_bytes=location.free_bytes(),
        compute_seconds=_compute_seconds(recording),
        write_seconds=None if speed is None else total / speed,
    )


def stored_bytes(variable: VariableSpec) -> int:
    """Return the exact size of all files of a variable that is not compressed.

    A chunk is whole even where the array ends in it and is followed by a checksum; a shard leaves
    out chunks behind the end, and ends with an index of all and a checksum.
    """
    if variable.compressed:
        return variable.nbytes
    chunk = math.prod(variable.chunks) * _itemsize(variable) + _CHECKSUM_BYTES
    chunks = math.prod(
        -(-size // length) for size, length in zip(variable.shape, variable.chunks, strict=True)
    )
    if variable.shards is None:
        return chunks * chunk
    inside = math.prod(
        shard // length for shard, length in zip(variable.shards, variable.chunks, strict=True)
    )
    return chunks * chunk + _files(variable) * (inside * _INDEX_BYTES + _CHECKSUM_BYTES)


def shown_bytes(number: float) -> str:
    """Return a size for people: ``1.3 GiB``."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if number < 1024:
            return f"{number:.0f} B" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1024
    return f"{number:.1f} TiB"


def _files(variable: VariableSpec) -> int:
    lengths = variable.shards or variable.chunks
    return math.prod(
        -(-size // length) for size, length in zip(variable.shape, lengths, strict=True)
    )


def _itemsize(variable: VariableSpec) -> int:
    return variable.nbytes // math.prod(variable.shape)


def _n_blocks(layout: Layout) -> int:
    return -(-layout.n_tokens // layout.block_tokens)


@torch.no_grad()
def _compute_seconds(recording: Recording) -> float:
    """Return the seconds that all forwards take, by one of about 256 tokens."""
    looped, prompts, spec = recording.looped, recording.prompts, recording.spec
    typical = sorted(prompts, key=len)[len(prompts) // 2].token_ids[:_PROBE_TOKENS]
    alone = looped.exits_early or len(typical) == _PROBE_TOKENS
    rows = 1 if alone else min(len(prompts), _PROBE_TOKENS // len(typical))
    ids = torch.tensor([typical] * rows, device=looped.device)
    start = recording.plan.starts[:1]
    taken = []
    for _ in range(2):  # the first one also fetches code and memory
        before = time.perf_counter()
        looped.run_loop(ids, start, recording.plan.asked, {})
        if looped.device.type == "cuda":
            torch.cuda.synchronize(looped.device)
        taken.append(time.perf_counter() - before)
    total = sum(map(len, prompts)) * spec.restarts
    return min(taken) * total / ids.numel()


def _bytes_per_second(location: RunLocation) -> float | None:
    """Return how fast a small file is written where the run will lie, on a local disk."""
    if not location.is_local:
        return None
    directory = Path(location.path)
    while not directory.is_dir():
        directory = directory.parent
    content = bytes(_PROBE_BYTES)
    try:
        with tempfile.TemporaryFile(dir=directory) as file:
            before = time.perf_counter()
            file.write(content)
            file.flush()
            return _PROBE_BYTES / (time.perf_counter() - before)
    except OSError:  # full, or read-only: recording will say so
        return None


def _shown_seconds(plan: RecordingPlan) -> str:
    def shown(seconds: float) -> str:
        if seconds < 90:
            return f"{seconds:.1f} s"
        return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"

    if plan.compute_seconds is None:
        return "not estimated"
    text = f"about {shown(plan.compute_seconds)} of forwards without the readout"
    if plan.write_seconds is not None:
        text += f" and {shown(plan.write_seconds)} of writing, which overlap"
    return text
