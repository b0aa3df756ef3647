"""Version 1 of the store: which arrays a run has, with their shapes, axes, chunks and units.

The writer creates what this module lists and the reader checks a run against the same list, so
the two cannot drift apart. It knows nothing of files: a variable is a name and a shape here.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np

SCHEMA_VERSION = 1

# About 1 MiB: large enough that a disk or an object store is read at full speed, small enough
# that looking at one token costs one small read.
CHUNK_BYTES = 2**20

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
        Sizes of the array and of one chunk file.
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

    @property
    def nbytes(self) -> int:
        """Size in bytes, uncompressed."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize

    @property
    def token_axis(self) -> int | None:
        """Which axis counts tokens; None for attention patterns."""
        return self.dims.index("token") if "token" in self.dims else None

    @property
    def fill_value(self) -> float | int | str:
        """What an element that was never written reads as."""
        if self.dtype == "string":
            return ""
        return math.nan if self.dtype.startswith("float") else -1


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """The sizes from which every array of a run follows.

    Parameters
    ----------
    n_tokens : int
        Tokens of all prompts together.
    iterations, n_layers, d_model, restarts : int
        T, k, width of the states and number of initial states.
    sites : tuple of str
        Recorded site families, of ``SITES``.
    n_heads, n_kv_heads, d_head : int, optional
        Needed for the sites q, k, v, z (and ``n_heads`` for attention).
    inject : bool
        Whether the model injects its input at each iteration.
    attention_lengths : mapping of int to int
        Prompt index to its number of tokens, for the prompts whose attention is recorded.
    readout_top_k : int
        How many of the most probable tokens are kept; 0 when there is no readout.
    dtype : str
        Of states and attention; readouts are always float32.
    """

    n_tokens: int
    iterations: int
    n_layers: int
    d_model: int
    restarts: int
    sites: tuple[str, ...]
    n_heads: int | None = None
    n_kv_heads: int | None = None
    d_head: int | None = None
    inject: bool = False
    attention_lengths: Mapping[int, int] = field(default_factory=dict)
    readout_top_k: int = 0
    dtype: str = "float32"

    @property
    def token_block(self) -> int:
        """How many tokens one chunk of states holds."""
        itemsize = np.dtype(self.dtype).itemsize
        return _tokens_in_chunk((self.iterations + 1) * self.d_model * itemsize, self.n_tokens)

    def variables(self) -> dict[str, VariableSpec]:
        """Return every array of states, readouts and attention, by path."""
        found = [self._state(), *map(self._site, self.sites)]
        if self.inject:
            found.append(self._injected())
        if self.readout_top_k:
            found += self._readout()
        found += [self._pattern(index, n) for index, n in self.attention_lengths.items()]
        return {variable.path: variable for variable in found}

    def coordinates(self) -> dict[str, np.ndarray]:
        """Return the coordinate arrays by path; each has its own name as its only axis."""
        with_start = np.arange(self.iterations + 1, dtype=np.int32)
        layers = np.arange(self.n_layers, dtype=np.int32)
        coordinates = {"loop/iteration": with_start}
        if self.sites:
            coordinates |= {"states/iteration": with_start[1:], "states/layer": layers}
        if self.readout_top_k:
            coordinates["readout/iteration"] = with_start[1:]
        if self.attention_lengths:
            # On the parent of all patterns, from which the groups below inherit them.
            coordinates |= {"attention/iteration": with_start[1:], "attention/layer": layers}
        return coordinates

    def _state(self) -> VariableSpec:
        shape = (self.restarts, self.n_tokens, self.iterations + 1, self.d_model)
        return VariableSpec(
            path="loop/state",
            dims=("restart", "token", "iteration", "d_model"),
            shape=shape,
            chunks=(1, self.token_block, *shape[2:]),
            dtype=self.dtype,
            long_name="loop state at the end of each iteration; iteration 0 is the initial state",
        )

    def _injected(self) -> VariableSpec:
        itemsize = np.dtype(self.dtype).itemsize
        block = _tokens_in_chunk(self.d_model * itemsize, self.n_tokens)
        return VariableSpec(
            path="loop/injected",
            dims=("token", "d_model"),
            shape=(self.n_tokens, self.d_model),
            chunks=(block, self.d_model),
            dtype=self.dtype,
            long_name="what the model adds to the state at the start of every iteration",
        )

    def _site(self, name: str) -> VariableSpec:
        dims: tuple[str, ...] = ("d_model",)
        tail: tuple[int, ...] = (self.d_model,)
        if name in HEAD_SITES:
            heads = self.n_kv_heads or self.n_heads if name in "kv" else self.n_heads
            # One axis name has one size in a group, so fewer key heads need a name of their own.
            dims = ("head" if heads == self.n_heads else "kv_head", "d_head")
            tail = (heads or 0, self.d_head or 0)
        return VariableSpec(
            path=f"states/{name}",
            dims=("restart", "token", "layer", "iteration", *dims),
            shape=(self.restarts, self.n_tokens, self.n_layers, self.iterations, *tail),
            chunks=(1, self.token_block, 1, self.iterations, *tail),
            dtype=self.dtype,
            long_name={**RESIDUAL_SITES, **HEAD_SITES}[name],
        )

    def _readout(self) -> list[VariableSpec]:
        def scalar(name: str, long_name: str, units: str, dtype: str = "float32") -> VariableSpec:
            block = _tokens_in_chunk(self.iterations * 4, self.n_tokens)
            return VariableSpec(
                path=f"readout/{name}",
                dims=("restart", "token", "iteration"),
                shape=(self.restarts, self.n_tokens, self.iterations),
                chunks=(1, block, self.iterations),
                dtype=dtype,
                long_name=long_name,
                units=units,
            )

        def ranked(name: str, long_name: str, units: str, dtype: str = "float32") -> VariableSpec:
            rank = self.readout_top_k
            block = _tokens_in_chunk(self.iterations * rank * 4, self.n_tokens)
            return VariableSpec(
                path=f"readout/{name}",
                dims=("restart", "token", "iteration", "rank"),
                shape=(self.restarts, self.n_tokens, self.iterations, rank),
                chunks=(1, block, self.iterations, rank),
                dtype=dtype,
                long_name=long_name,
                units=units,
            )

        return [
            ranked("topk_ids", "ids of the most probable tokens, best first", "1", "int32"),
            ranked("topk_logprobs", "log-probabilities of the most probable tokens", "nat"),
            scalar("entropy", "entropy of the prediction", "nat"),
            scalar("target_logprob", "log-probability of the target; NaN without one", "nat"),
            scalar("target_rank", "rank of the target, 0 is best; -1 without one", "1", "int32"),
            scalar("kl_to_previous", "KL(p[t-1] || p[t]); NaN at iteration 1", "nat"),
            scalar("kl_to_last", "KL(p[T] || p[t])", "nat"),
        ]

    def _pattern(self, index: int, length: int) -> VariableSpec:
        heads = self.n_heads or 0
        one_iteration = heads * length * length * np.dtype(self.dtype).itemsize
        iterations = max(1, min(self.iterations, CHUNK_BYTES // max(1, one_iteration)))
        return VariableSpec(
            path=f"attention/{index}/pattern",
            dims=("restart", "layer", "iteration", "head", "query", "key"),
            shape=(self.restarts, self.n_layers, self.iterations, heads, length, length),
            chunks=(1, 1, iterations, heads, length, length),
            dtype=self.dtype,
            long_name="attention pattern; a query's row sums to one",
            compressed=True,
        )


def _tokens_in_chunk(bytes_per_token: int, n_tokens: int) -> int:
    """Return the largest power of two of tokens in about 1 MiB: so chunks of all arrays nest."""
    fitting = max(1, CHUNK_BYTES // bytes_per_token)
    return min(1 << (fitting.bit_length() - 1), n_tokens)
