"""Version 2 of the store: its constants, the names of sites, and what describes one array.

Which arrays a run has is said by `looplens.store.format.layout`.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

SCHEMA_VERSION = 2

# About 1 MiB: large enough that a disk or an object store is read at full speed, small enough
# that looking at one token costs one small read.
CHUNK_BYTES = 2**20

# About what a block of all variables and restarts takes. The recorder holds two of them: smaller
# ones cost more files, larger ones more memory, and more work that a killed run does again.
BLOCK_BYTES = 2**27

RESIDUAL_SITES: Mapping[str, str] = MappingProxyType(
    {
        "resid_pre": "residual stream before the layer",
        "resid_mid": "residual stream between attention and MLP",
        "resid_post": "residual stream after the layer",
        "attn_out": "what attention adds to the residual stream",
        "mlp_out": "what the MLP adds to the residual stream",
    }
)
HEAD_SITES: Mapping[str, str] = MappingProxyType(
    {
        "q": "queries, before positions are rotated in",
        "k": "keys, before positions are rotated in",
        "v": "values",
        "z": "attention-weighted values of each head",
    }
)
SITES = (*RESIDUAL_SITES, *HEAD_SITES)

# Variables in which NaN says "there is none here" and not that a number was lost.
NAN_MEANS_NONE = frozenset({"readout/target_logprob", "readout/kl_to_previous"})


def looplens_version() -> str:
    """Return the version of this looplens."""
    # By name, because the root package names every layer, those above and those with torch too.
    return importlib.import_module("looplens").__version__


@dataclass(frozen=True, kw_only=True, slots=True)
class VariableSpec:
    """One array of the store.

    Attributes
    ----------
    path : str
        Where it lies, such as ``"states/resid_post"``.
    dims : tuple of str
        Names of the axes.
    shape, chunks : tuple of int
        Sizes of the array and of what is read at once.
    shards : tuple of int, optional
        Size of one file, where that holds several chunks; None where a file is one chunk.
    dtype : str
        ``"float32"``, ``"float16"`` or ``"int32"``.
    long_name, units : str
        What is written beside the array.
    compressed : bool
        Whether chunks go through Zstandard. Float32 states do not: moving ones hardly shrink.
    """

    path: str
    dims: tuple[str, ...]
    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    dtype: str
    long_name: str
    units: str = "1"
    compressed: bool = False
    shards: tuple[int, ...] | None = None

    @property
    def nbytes(self) -> int:
        """Size in bytes, uncompressed."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize

    def nbytes_of(self, region: tuple[slice, ...]) -> int:
        """Return the size in bytes of a part of it, given by start and stop along each axis."""
        lengths = (part.stop - part.start for part in region)
        return math.prod(lengths) * np.dtype(self.dtype).itemsize

    @property
    def token_axis(self) -> int | None:
        """Which axis counts tokens; None for attention patterns and reductions."""
        return self.dims.index("token") if "token" in self.dims else None

    @property
    def file_shape(self) -> tuple[int, ...]:
        """Size of what one file holds."""
        return self.shards or self.chunks

    @property
    def fill_value(self) -> float | int | str:
        """What an element that was never written reads as."""
        if self.dtype == "string":
            return ""
        return math.nan if self.dtype.startswith("float") else -1
