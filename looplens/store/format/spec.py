"""What is known of a run before its first number is written.

A `RunSpec` validates itself, says how large the run will be, and renders the attributes that the
root of the store carries. It writes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from looplens.errors import InputError
from looplens.prompts import Prompt
from looplens.store.format import fingerprint, validation
from looplens.store.format.layout import Layout
from looplens.store.format.reduction import Reduction

STORE_DTYPES = validation.STORE_DTYPES


@dataclass(frozen=True, kw_only=True, slots=True)
class RunSpec:
    """Everything about a run that is known before recording.

    Parameters
    ----------
    prompts : sequence of Prompt
        At least one.
    iterations, n_layers, d_model : int
        T, k and the width of the states.
    restarts : int
        How many initial states.
    restart_seeds : tuple of int or None
        The seed of each restart; empty when the initial state has no randomness.
    initial_state : str
        Name of the scheme that drew the initial states.
    sites : tuple of str
        Site families to keep: resid_pre, resid_mid, resid_post, attn_out, mlp_out, q, k, v, z.
    n_heads, n_kv_heads, d_head : int, optional
        Shape of attention; needed for q, k, v, z and for attention patterns.
    inject : bool
        Whether the model injects a tensor at each iteration, which is then stored.
    attention_prompts : tuple of int
        Indices of the prompts whose attention patterns are stored.
    readout_top_k : int
        How many of the most probable tokens are stored an iteration; 0 stores no readout.
    exit_gate : bool
        Store what the model's exit gate says after each iteration, with the readout.
    dtype : {"float32", "float16"}
        Of stored states and attention patterns.
    source_dtype : str
        In which the model computed. It sets the noise floor of every analysis.
    model : mapping
        ``name``, ``source``, ``family``, ``config``; only values that JSON can hold.
    settings : mapping
        How the recording was made; only values that JSON can hold.
    vocabulary : mapping of int to str
        Texts of token ids, so that readouts of ids that occur in no prompt can be shown.
    seed : int, optional
        The seed from which those of the restarts were drawn.
    layers : sequence of int
        Numbers of the core layers to keep; empty for all.
    kept_iterations : sequence of int
        The iterations to keep, of 1..T; empty for all. Iteration 0 is kept only with all of them.
    token_positions : sequence of sequences of int, optional
        For each prompt the positions to keep, ascending; None for all. Attention patterns are
        always of all tokens.
    reduction : Reduction, optional
        What states are reduced by before they are stored; head sites never are.
    block_tokens : int, optional
        Tokens that are committed at once, rounded up to a power of two; by default about 128 MiB.

    Raises
    ------
    InputError
        If sizes are not positive, names collide, attention is asked for a prompt that does not
        exist, a selection names what is not there or the same twice, or a mapping cannot be
        written as JSON.
    SiteError
        If a site family is unknown.
    """

    prompts: Sequence[Prompt]
    iterations: int
    n_layers: int
    d_model: int
    restarts: int = 1
    restart_seeds: tuple[int | None, ...] = ()
    initial_state: str = "unknown"
    sites: tuple[str, ...] = ("resid_post",)
    n_heads: int | None = None
    n_kv_heads: int | None = None
    d_head: int | None = None
    inject: bool = False
    attention_prompts: tuple[int, ...] = ()
    readout_top_k: int = 0
    exit_gate: bool = False
    dtype: str = "float32"
    source_dtype: str = "float32"
    model: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    vocabulary: Mapping[int, str] = field(default_factory=dict)
    seed: int | None = None
    layers: Sequence[int] = ()
    kept_iterations: Sequence[int] = ()
    token_positions: Sequence[Sequence[int]] | None = None
    reduction: Reduction | None = None
    block_tokens: int | None = None

    def __post_init__(self) -> None:
        for name in ("restart_seeds", "sites", "attention_prompts", "prompts"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        for name in ("layers", "kept_iterations"):
            object.__setattr__(self, name, tuple(int(n) for n in getattr(self, name)))
        if self.token_positions is not None:
            rows = tuple(tuple(int(n) for n in row) for row in self.token_positions)
            object.__setattr__(self, "token_positions", rows)
        if not self.restart_seeds:
            object.__setattr__(self, "restart_seeds", (None,) * self.restarts)
        validation.check(self)
        self._forget_selections_of_all()
        self.attributes()  # fails now, and not after hours of recording, on what JSON cannot hold

    def _forget_selections_of_all(self) -> None:
        """Give one form to what is one thing: keeping all by name is keeping all."""
        if len(self.layers) == self.n_layers:
            object.__setattr__(self, "layers", ())
        if len(self.kept_iterations) == self.iterations:
            object.__setattr__(self, "kept_iterations", ())
        if self.n_tokens == sum(map(len, self.prompts)):
            object.__setattr__(self, "token_positions", None)

    @property
    def n_tokens(self) -> int:
        """Recorded tokens of all prompts together."""
        return sum(self.recorded_lengths)

    @property
    def recorded_lengths(self) -> tuple[int, ...]:
        """How many tokens of each prompt are recorded."""
        return tuple(
            map(len, self.prompts if self.token_positions is None else self.token_positions)
        )

    def positions(self, prompt: int) -> tuple[int, ...]:
        """Return the positions of a prompt that are recorded, ascending."""
        if self.token_positions is None:
            return tuple(range(len(self.prompts[prompt])))
        return tuple(self.token_positions[prompt])

    @property
    def layout(self) -> Layout:
        """The sizes from which every array of the run follows."""
        return Layout(
            n_tokens=self.n_tokens,
            iterations=self.iterations,
            n_layers=self.n_layers,
            d_model=self.d_model,
            restarts=self.restarts,
            sites=self.sites,
            n_heads=self.n_heads,
            n_kv_heads=self.n_kv_heads,
            d_head=self.d_head,
            inject=self.inject,
            attention_lengths={index: len(self.prompts[index]) for index in self.attention_prompts},
            readout_top_k=self.readout_top_k,
            exit_gate=self.exit_gate,
            dtype=self.dtype,
            layers=tuple(self.layers),
            kept_iterations=tuple(self.kept_iterations),
            width=None if self.reduction is None else self.reduction.width,
            block_tokens=self.block_tokens or 0,
        )

    def nbytes(self) -> dict[str, int]:
        """Return the uncompressed size of each array, in bytes, by path."""
        return {path: variable.nbytes for path, variable in self.layout.variables().items()}

    def fingerprint(self) -> dict[str, str]:
        """Return what must agree to go on with a run: a short text for each field, by its name.

        Two recordings with equal fingerprints have the same bytes.
        """
        return fingerprint.fingerprint(self)

    def attributes(self) -> dict[str, Any]:
        """Return what the root of the store says of the run, as JSON values."""
        layout = self.layout
        attributes = {
            "model": dict(self.model),
            "iterations": self.iterations,
            "n_layers": self.n_layers,
            "d_model": self.d_model,
            "n_heads": self.n_heads,
            "n_kv_heads": self.n_kv_heads,
            "d_head": self.d_head,
            "restarts": self.restarts,
            "restart_seeds": list(self.restart_seeds),
            "initial_state": self.initial_state,
            "source_dtype": self.source_dtype,
            "store_dtype": self.dtype,
            "sites": list(self.sites),
            "inject": self.inject,
            "attention_prompts": list(self.attention_prompts),
            "readout_top_k": self.readout_top_k,
            "exit_gate": self.exit_gate,
            "n_prompts": len(self.prompts),
            "n_tokens": self.n_tokens,
            "layers": list(layout.recorded_layers),
            "kept_iterations": list(layout.recorded_iterations),
            "width": layout.width,
            "reduction": None if self.reduction is None else self.reduction.describe(),
            "block_tokens": layout.block_tokens,
            "all_tokens": self.token_positions is None,
            "seed": self.seed,
            "settings": dict(self.settings),
        }
        return as_json(attributes, "The model, settings and seeds of a run")


def as_json(value: Any, what: str) -> Any:
    """Return ``value`` as plain JSON values: tuples as lists, numpy scalars as numbers.

    Raises
    ------
    InputError
        If a part of it has no JSON form, or is NaN or infinite.
    """

    def plain(item: Any) -> Any:
        if isinstance(item, (np.generic, np.ndarray)):
            return item.tolist()
        if isinstance(item, Mapping):
            return dict(item)
        raise TypeError(f"{item!r} is a {type(item).__name__}")

    try:
        return json.loads(json.dumps(value, default=plain, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise InputError(f"{what} must be values that JSON can hold, but {error}.") from error
