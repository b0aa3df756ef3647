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

from looplens.errors import InputError, SiteError, near_matches
from looplens.prompts import Prompt
from looplens.store.schema import HEAD_SITES, SITES, Layout

STORE_DTYPES = ("float32", "float16")
PROMPT_COLUMNS = ("prompt", "text", "n_tokens", "first_token")
TOKEN_COLUMNS = ("token", "prompt", "position", "token_id", "text", "target")


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

    Raises
    ------
    InputError
        If sizes are not positive, names collide, attention is asked for a prompt that does not
        exist, or a mapping cannot be written as JSON.
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
    dtype: str = "float32"
    source_dtype: str = "float32"
    model: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    vocabulary: Mapping[int, str] = field(default_factory=dict)
    seed: int | None = None

    def __post_init__(self) -> None:
        for name in ("restart_seeds", "sites", "attention_prompts", "prompts"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if not self.restart_seeds:
            object.__setattr__(self, "restart_seeds", (None,) * self.restarts)
        if not self.prompts:
            raise InputError("A run needs at least one prompt, but none was given.")
        self._check_sizes()
        self._check_sites()
        self._check_attention()
        self._check_columns()
        self.attributes()  # fails now, and not after hours of recording, on what JSON cannot hold

    @property
    def n_tokens(self) -> int:
        """Tokens of all prompts together."""
        return sum(map(len, self.prompts))

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
            dtype=self.dtype,
        )

    def nbytes(self) -> dict[str, int]:
        """Return the uncompressed size of each array, in bytes, by path."""
        return {path: variable.nbytes for path, variable in self.layout.variables().items()}

    def attributes(self) -> dict[str, Any]:
        """Return what the root of the store says of the run, as JSON values."""
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
            "n_prompts": len(self.prompts),
            "n_tokens": self.n_tokens,
            "seed": self.seed,
            "settings": dict(self.settings),
        }
        return as_json(attributes, "The model, settings and seeds of a run")

    def _check_sizes(self) -> None:
        for name in ("iterations", "n_layers", "d_model", "restarts"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, but is {getattr(self, name)}.")
        if self.readout_top_k < 0:
            raise InputError(f"readout_top_k must not be negative, but is {self.readout_top_k}.")
        if len(self.restart_seeds) != self.restarts:
            raise InputError(
                f"restart_seeds must name one seed for each of the {self.restarts} restarts, but "
                f"has {len(self.restart_seeds)}."
            )
        if self.dtype not in STORE_DTYPES:
            raise InputError(
                f"dtype must be one of {', '.join(STORE_DTYPES)}, but is {self.dtype!r}."
                + near_matches(str(self.dtype), STORE_DTYPES)
            )

    def _check_sites(self) -> None:
        for site in self.sites:
            if site not in SITES:
                hint = near_matches(site, SITES)
                if site == "pattern":
                    hint = " Attention patterns are chosen with attention_prompts."
                raise SiteError(
                    f"There is no site family {site!r}; a run can store {', '.join(SITES)}.{hint}"
                )
        if len(set(self.sites)) != len(self.sites):
            raise SiteError(f"sites names a family twice: {', '.join(self.sites)}.")
        if (set(self.sites) & set(HEAD_SITES)) and not (self.n_heads and self.d_head):
            raise InputError("The sites q, k, v and z need n_heads and d_head.")

    def _check_attention(self) -> None:
        if self.attention_prompts and not self.n_heads:
            raise InputError("Attention patterns need n_heads.")
        if len(set(self.attention_prompts)) != len(self.attention_prompts):
            raise InputError(f"attention_prompts names a prompt twice: {self.attention_prompts}.")
        for index in self.attention_prompts:
            if not 0 <= index < len(self.prompts):
                raise InputError(
                    f"attention_prompts names prompt {index}, but the {len(self.prompts)} prompts "
                    f"are counted 0 to {len(self.prompts) - 1}."
                )

    def _check_columns(self) -> None:
        for kind, taken, names in (
            ("metadata", PROMPT_COLUMNS, {n for p in self.prompts for n in p.metadata}),
            ("token_metadata", TOKEN_COLUMNS, {n for p in self.prompts for n in p.token_metadata}),
        ):
            for name in sorted(names):
                if name in taken:
                    raise InputError(
                        f"{kind} cannot have a column {name!r}: the store uses that name itself "
                        f"({', '.join(taken)}). Choose another."
                    )
                if not name.isidentifier():
                    raise InputError(
                        f"{kind} columns must be named like Python variables, but one is {name!r}."
                    )


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
