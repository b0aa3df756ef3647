"""Which arrays a run has, with their shapes, axes, chunks and units.

The writer creates what this module lists and the reader checks a run against the same list, so
the two cannot drift apart. It knows nothing of files: a variable is a name and a shape here.

A *block* of tokens is what is committed at once: one file holds one (restart, layer) slice of one
variable over one block. Where that is more than a chunk, the file is a shard of chunks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from looplens.store.format import schema
from looplens.store.format.schema import HEAD_SITES, RESIDUAL_SITES, VariableSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """The sizes from which every array of a run follows.

    Parameters
    ----------
    n_tokens : int
        Recorded tokens of all prompts together.
    iterations, n_layers, d_model, restarts : int
        T, k, width of the model's states and number of initial states.
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
    exit_gate : bool
        Whether what the model's exit gate says is kept with the readout.
    dtype : str
        Of states and attention; readouts are always float32.
    layers : tuple of int
        Numbers of the recorded core layers; empty for all.
    kept_iterations : tuple of int
        Recorded iterations, of 1..T; empty for all. Only with all of them is iteration 0 recorded.
    width : int, optional
        Dimensions that states are reduced to before they are stored; None for ``d_model``.
    block_tokens : int
        Tokens of a block, rounded up to a power of two; 0: about 128 MiB, at least a chunk.
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
    exit_gate: bool = False
    dtype: str = "float32"
    layers: tuple[int, ...] = ()
    kept_iterations: tuple[int, ...] = ()
    width: int | None = None
    block_tokens: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "block_tokens", self._block_tokens())

    @property
    def recorded_layers(self) -> tuple[int, ...]:
        """Numbers of the recorded layers of the core."""
        return self.layers or tuple(range(self.n_layers))

    @property
    def recorded_iterations(self) -> tuple[int, ...]:
        """Recorded iterations of 1..T: the axis of every site, readout and attention pattern."""
        return self.kept_iterations or tuple(range(1, self.iterations + 1))

    @property
    def all_iterations(self) -> bool:
        """Whether every iteration is recorded."""
        return len(self.recorded_iterations) == self.iterations

    @property
    def state_iterations(self) -> tuple[int, ...]:
        """Recorded iterations of the loop state: with 0, the initial state, if all are recorded."""
        return (0,) * self.all_iterations + self.recorded_iterations

    @property
    def is_reduced(self) -> bool:
        """Whether states are stored in fewer dimensions than the model's."""
        return self.width is not None

    @property
    def n_blocks(self) -> int:
        """How many blocks the tokens make."""
        return -(-self.n_tokens // self.block_tokens)

    def variables(self) -> dict[str, VariableSpec]:
        """Return every array of states, readouts, attention and the reduction, by path."""
        found = [self._state(), *map(self._site, self.sites)]
        if self.inject:
            found.append(self._injected())
        if self.is_reduced:
            found += self._reduction()
        if self.readout_top_k:
            found += self._readout()
        found += [self._pattern(index, n) for index, n in self.attention_lengths.items()]
        return {variable.path: variable for variable in found}

    def coordinates(self) -> dict[str, np.ndarray]:
        """Return the coordinate arrays by path; each has its own name as its only axis."""
        with_start = np.array(self.state_iterations, dtype=np.int32)
        iterations = np.array(self.recorded_iterations, dtype=np.int32)
        layers = np.array(self.recorded_layers, dtype=np.int32)
        coordinates = {"loop/iteration": with_start}
        if self.sites:
            coordinates |= {"states/iteration": iterations, "states/layer": layers}
        if self.is_reduced:
            coordinates["discarded/state_iteration"] = with_start
            if set(self.sites) & set(RESIDUAL_SITES):
                coordinates |= {"discarded/iteration": iterations, "discarded/layer": layers}
        if self.readout_top_k:
            coordinates["readout/iteration"] = iterations
        if self.attention_lengths:
            # On the parent of all patterns, from which the groups below inherit them.
            coordinates |= {"attention/iteration": iterations, "attention/layer": layers}
        return coordinates

    def _state(self) -> VariableSpec:
        return self._variable(
            "loop/state",
            ("restart", "token", "iteration", self._width_axis),
            "loop state at the end of each iteration; iteration 0 is the initial state",
        )

    def _injected(self) -> VariableSpec:
        what = "what the model adds to the state at the start of every iteration"
        return self._variable("loop/injected", ("token", self._width_axis), what)

    def _site(self, name: str) -> VariableSpec:
        axes: tuple[str, ...] = (self._width_axis,)
        if name in HEAD_SITES:
            heads = self.n_kv_heads or self.n_heads if name in "kv" else self.n_heads
            # One axis name has one size in a group, so fewer key heads need a name of their own.
            axes = ("head" if heads == self.n_heads else "kv_head", "d_head")
        return self._variable(
            f"states/{name}",
            ("restart", "token", "layer", "iteration", *axes),
            {**RESIDUAL_SITES, **HEAD_SITES}[name],
            longest=self._state_chunk,  # reads that end with a chunk of states end with these
        )

    def _reduction(self) -> list[VariableSpec]:
        what = "share of the squared norm, after the mean, that the reduction leaves out of "
        reduced = [site for site in self.sites if site in RESIDUAL_SITES]
        # Two axes of iterations cannot share a name in a group, and only that of the state has 0.
        rows: list[tuple[str, tuple[str, ...], str]] = [
            ("discarded/state", ("restart", "token", "state_iteration"), f"{what}the loop state"),
            *(
                (f"discarded/{site}", ("restart", "token", "layer", "iteration"), f"{what}{site}")
                for site in reduced
            ),
            ("reduction/basis", ("component", "d_model"), "orthonormal directions of components"),
            ("reduction/mean", ("d_model",), "what is subtracted from states before"),
        ]
        return [self._variable(*row, dtype="float32") for row in rows]

    def _readout(self) -> list[VariableSpec]:
        def array(
            name: str, long_name: str, units: str, *rank: str, dtype: str = "float32"
        ) -> VariableSpec:
            axes = ("restart", "token", "iteration", *rank)
            return self._variable(f"readout/{name}", axes, long_name, units=units, dtype=dtype)

        ids = "ids of the most probable tokens, best first"
        gate = "what the exit gate says of the state, before the sigmoid"
        found = [
            array("topk_ids", ids, "1", "rank", dtype="int32"),
            array("topk_logprobs", "log-probabilities of the most probable tokens", "nat", "rank"),
            array("entropy", "entropy of the prediction", "nat"),
            array("target_logprob", "log-probability of the target; NaN without one", "nat"),
            array("target_rank", "rank of the target, from 0; -1 without one", "1", dtype="int32"),
            array("kl_to_previous", "KL(p[t-1] || p[t]); NaN at iteration 1", "nat"),
            array("kl_to_last", "KL(p[T] || p[t])", "nat"),
        ]
        return found + [array("exit_gate", gate, "1")] * self.exit_gate

    def _pattern(self, index: int, length: int) -> VariableSpec:
        heads = self.n_heads or 0
        one_iteration = heads * length * length * np.dtype(self.dtype).itemsize
        kept = len(self.recorded_iterations)
        iterations = max(1, min(kept, schema.CHUNK_BYTES // max(1, one_iteration)))
        tail = (heads, length, length)
        return VariableSpec(
            path=f"attention/{index}/pattern",
            dims=("restart", "layer", "iteration", "head", "query", "key"),
            shape=(self.restarts, len(self.recorded_layers), kept, *tail),
            chunks=(1, 1, iterations, *tail),
            dtype=self.dtype,
            long_name="attention pattern; a query's row sums to one",
            compressed=True,
        )

    def _variable(
        self,
        path: str,
        dims: tuple[str, ...],
        long_name: str,
        *,
        units: str = "1",
        dtype: str | None = None,
        longest: int | None = None,
    ) -> VariableSpec:
        """Cut an array into chunks of about 1 MiB, no longer than given, and files of a block."""
        sizes = self._sizes(path)
        chosen = dtype or self.dtype
        # Of restarts, layers and tokens a chunk holds one, or as many as fit.
        chunk = {dim: 1 if dim in ("restart", "layer", "token") else sizes[dim] for dim in dims}
        shards = None
        if "token" in dims:
            fitting = _tokens_in_chunk(math.prod(chunk.values()) * np.dtype(chosen).itemsize)
            file = min(self.block_tokens, self.n_tokens)
            # Chunks and blocks are powers of two, so that they nest. Only a file that is a single
            # chunk ends with the tokens, because a chunk is padded and a shard is not.
            chunk["token"] = min(fitting, longest or fitting, file)
            if chunk["token"] < file:
                shards = tuple((chunk | {"token": self.block_tokens}).values())
        return VariableSpec(
            path=path,
            dims=dims,
            shape=tuple(sizes[dim] for dim in dims),
            chunks=tuple(chunk.values()),
            shards=shards,
            dtype=chosen,
            long_name=long_name,
            units=units,
        )

    def _sizes(self, path: str) -> dict[str, int]:
        """Return the length of each axis of an array."""
        heads, of_state = self.n_heads or 0, self.state_iterations
        return {
            "restart": self.restarts,
            "token": self.n_tokens,
            "layer": len(self.recorded_layers),
            "iteration": len(of_state if path == "loop/state" else self.recorded_iterations),
            "state_iteration": len(of_state),
            "d_model": self.d_model,
            "component": self.width or 0,
            "head": heads,
            "kv_head": self.n_kv_heads or heads,
            "d_head": self.d_head or 0,
            "rank": self.readout_top_k,
        }

    @property
    def _width_axis(self) -> str:
        return "component" if self.is_reduced else "d_model"

    @property
    def _state_chunk(self) -> int:
        numbers = len(self.state_iterations) * (self.width or self.d_model)
        return _tokens_in_chunk(numbers * np.dtype(self.dtype).itemsize)

    def _block_tokens(self) -> int:
        most = _power_of_two_from(self.n_tokens)
        if self.block_tokens:
            return min(_power_of_two_from(self.block_tokens), most)
        object.__setattr__(self, "block_tokens", 1)
        per_token = sum(
            variable.nbytes // self.n_tokens
            for variable in self.variables().values()
            if variable.token_axis is not None
        )
        fitting = _power_of_two_to(max(1, schema.BLOCK_BYTES // per_token))
        return min(max(fitting, self._state_chunk), most)


def _tokens_in_chunk(bytes_per_token: int) -> int:
    """Return the largest power of two of tokens in about 1 MiB: so chunks of all arrays nest."""
    return _power_of_two_to(max(1, schema.CHUNK_BYTES // bytes_per_token))


def _power_of_two_to(number: int) -> int:
    return 1 << (number.bit_length() - 1)


def _power_of_two_from(number: int) -> int:
    return 1 << (number - 1).bit_length()
