"""What must hold of a `RunSpec`, with messages that say what to change."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

from looplens.errors import InputError, SiteError, near_matches
from looplens.store.format.schema import HEAD_SITES, SITES

if TYPE_CHECKING:
    from looplens.store.format.spec import RunSpec

STORE_DTYPES = ("float32", "float16")
PROMPT_COLUMNS = ("prompt", "text", "n_tokens", "first_token", "length")
TOKEN_COLUMNS = ("token", "prompt", "position", "token_id", "text", "target")


def check(spec: RunSpec) -> None:
    """Check all of a spec; see `RunSpec` for what it raises."""
    if not spec.prompts:
        raise InputError("A run needs at least one prompt, but none was given.")
    _check_sizes(spec)
    _check_sites(spec)
    _check_attention(spec)
    _check_selections(spec)
    _check_columns(spec)


def _check_sizes(spec: RunSpec) -> None:
    for name in ("iterations", "n_layers", "d_model", "restarts"):
        if getattr(spec, name) < 1:
            raise InputError(f"{name} must be at least 1, but is {getattr(spec, name)}.")
    if spec.readout_top_k < 0:
        raise InputError(f"readout_top_k must not be negative, but is {spec.readout_top_k}.")
    if spec.exit_gate and not spec.readout_top_k:
        raise InputError(
            "The exit gate is stored with the readout, and readout_top_k is 0. Give readout_top_k."
        )
    if spec.block_tokens is not None and spec.block_tokens < 1:
        raise InputError(
            f"block_tokens must be at least 1, or None for about 128 MiB, but is "
            f"{spec.block_tokens}."
        )
    if len(spec.restart_seeds) != spec.restarts:
        raise InputError(
            f"restart_seeds must name one seed for each of the {spec.restarts} restarts, but "
            f"has {len(spec.restart_seeds)}."
        )
    if spec.dtype not in STORE_DTYPES:
        raise InputError(
            f"dtype must be one of {', '.join(STORE_DTYPES)}, but is {spec.dtype!r}."
            + near_matches(str(spec.dtype), STORE_DTYPES)
        )


def _check_sites(spec: RunSpec) -> None:
    for site in spec.sites:
        if site not in SITES:
            hint = near_matches(site, SITES)
            if site == "pattern":
                hint = " Attention patterns are chosen with attention_prompts."
            raise SiteError(
                f"There is no site family {site!r}; a run can store {', '.join(SITES)}.{hint}"
            )
    if len(set(spec.sites)) != len(spec.sites):
        raise SiteError(f"sites names a family twice: {', '.join(spec.sites)}.")
    if (set(spec.sites) & set(HEAD_SITES)) and not (spec.n_heads and spec.d_head):
        raise InputError("The sites q, k, v and z need n_heads and d_head.")


def _check_attention(spec: RunSpec) -> None:
    if spec.attention_prompts and not spec.n_heads:
        raise InputError("Attention patterns need n_heads.")
    if len(set(spec.attention_prompts)) != len(spec.attention_prompts):
        raise InputError(f"attention_prompts names a prompt twice: {spec.attention_prompts}.")
    for index in spec.attention_prompts:
        if not 0 <= index < len(spec.prompts):
            raise InputError(
                f"attention_prompts names prompt {index}, but the {len(spec.prompts)} prompts "
                f"are counted 0 to {len(spec.prompts) - 1}."
            )


def _check_selections(spec: RunSpec) -> None:
    _check_numbers(spec.layers, 0, spec.n_layers - 1, "layers")
    _check_numbers(spec.kept_iterations, 1, spec.iterations, "kept_iterations")
    if spec.reduction is not None and spec.reduction.d_model != spec.d_model:
        raise InputError(
            f"The reduction is of states of {spec.reduction.d_model} dimensions, but those of this "
            f"model have {spec.d_model}."
        )
    if spec.token_positions is None:
        return
    if len(spec.token_positions) != len(spec.prompts):
        raise InputError(
            f"token_positions must have one row for each of the {len(spec.prompts)} prompts, but "
            f"has {len(spec.token_positions)}."
        )
    for index, (row, prompt) in enumerate(zip(spec.token_positions, spec.prompts, strict=True)):
        _check_numbers(row, 0, len(prompt) - 1, f"token_positions[{index}]")
    if not any(spec.token_positions):
        raise InputError(
            "token_positions keeps no token of any prompt: there is nothing to record."
        )


def _check_numbers(numbers: Sequence[int], first: int, last: int, what: str) -> None:
    """Check that numbers ascend, without one twice, within first..last."""
    if any(a >= b for a, b in itertools.pairwise(numbers)):
        raise InputError(f"{what} must ascend, and name nothing twice, but is {_short(numbers)}.")
    for number in (*numbers[:1], *numbers[-1:]):
        if not first <= number <= last:
            raise InputError(
                f"{what} names {number}, but there are only {first} to {last}. Leave it out."
            )


def _short(numbers: Sequence[int]) -> str:
    shown = ", ".join(map(str, numbers[:12]))
    return f"{shown}, ..." if len(numbers) > 12 else shown


def _check_columns(spec: RunSpec) -> None:
    for kind, taken, names in (
        ("metadata", PROMPT_COLUMNS, {n for p in spec.prompts for n in p.metadata}),
        ("token_metadata", TOKEN_COLUMNS, {n for p in spec.prompts for n in p.token_metadata}),
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
