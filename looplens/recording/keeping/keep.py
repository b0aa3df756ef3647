"""Which layers, iterations and tokens of a recording are kept, resolved into plain numbers.

Nobody has to store what they will not read. Everything is checked here, before anything is
written. This module knows neither disk nor tensors: it turns what the caller says into numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from looplens.errors import InputError
from looplens.models.inputs import whole_number
from looplens.models.protocol import LoopedModel
from looplens.prompts import Prompt

LayerChoice = int | Sequence[int] | slice | None
IterationChoice = str | int | Sequence[int]
TokenChoice = str | int | Sequence[int] | Callable[[Prompt], Any]

_ITERATIONS_HELP = "'all', 'every:4', 'last:8' or iterations counted from 1"
_TOKENS_HELP = "'all', 'last', positions, or a function of a Prompt"


@dataclass(frozen=True, kw_only=True, slots=True)
class Kept:
    """What is kept, as numbers.

    Attributes
    ----------
    layers : tuple of int
        Core layers, ascending.
    iterations : tuple of int
        Iterations of 1..T, ascending. Iteration 0, the initial state, is kept beside them if and
        only if `all_iterations`.
    token_positions : tuple of tuple of int, optional
        The positions of each prompt, ascending; None where all are kept.
    n_layers, total_iterations : int
        How many there are to choose from: k and T.
    """

    layers: tuple[int, ...]
    iterations: tuple[int, ...]
    token_positions: tuple[tuple[int, ...], ...] | None
    n_layers: int
    total_iterations: int

    @property
    def all_layers(self) -> bool:
        """Whether every core layer is kept."""
        return len(self.layers) == self.n_layers

    @property
    def all_iterations(self) -> bool:
        """Whether every iteration is kept."""
        return len(self.iterations) == self.total_iterations

    def options(self) -> dict[str, Any]:
        """Return ``layers``, ``kept_iterations`` and ``token_positions`` as a RunSpec has them.

        Where everything is kept they are empty or None, so that saying "all" in two ways makes
        the same run.
        """
        return {
            "layers": () if self.all_layers else self.layers,
            "kept_iterations": () if self.all_iterations else self.iterations,
            "token_positions": self.token_positions,
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Keep:
    """What to keep of a recording.

    Parameters
    ----------
    layers : int, sequence of int or slice, optional
        Core layers whose sites and attention patterns are kept; negative numbers count from the
        last. All by default. The loop state is kept whatever the layers are.
    iterations : str or sequence of int
        ``"all"``; ``"every:n"``, which keeps the last iteration and every n-th before it;
        ``"last:n"``; or the numbers themselves, counted from 1. Iteration 0, the initial state, is
        kept only with all the others.
    tokens : str, int, sequence of int or callable
        ``"all"``; ``"last"``, the last token of each prompt; positions, the same ones in each
        prompt, negative from the end; or a function that is given a
        :class:`looplens.Prompt` and returns one bool a token, or positions.

    Raises
    ------
    InputError
        From `resolve`, if something does not exist or nothing would be kept.
    """

    layers: LayerChoice = None
    iterations: IterationChoice = "all"
    tokens: TokenChoice = "all"

    def resolve(self, model: LoopedModel, prompts: Sequence[Prompt], iterations: int) -> Kept:
        """Return what is kept of these prompts, run for so many iterations.

        Parameters
        ----------
        model : LoopedModel
            Says how many layers the core has.
        prompts : sequence of Prompt
            All prompts of the run.
        iterations : int
            T of the run.

        Raises
        ------
        InputError
            If a layer, iteration or position does not exist, or nothing would be kept.
        """
        return Kept(
            layers=kept_layers(self.layers, model.n_layers),
            iterations=kept_iterations(self.iterations, iterations),
            token_positions=kept_positions(self.tokens, prompts),
            n_layers=model.n_layers,
            total_iterations=iterations,
        )


def kept_layers(choice: LayerChoice, n_layers: int) -> tuple[int, ...]:
    """Return the core layers that are kept, ascending; see `Keep`."""
    everything = range(n_layers)
    if choice is None:
        return tuple(everything)
    if isinstance(choice, slice):
        found = {*everything[choice]}
    else:
        listed = _listed(choice, "layers must be core layers: an int, several, or a slice")
        found = {_counted(number, n_layers, "layers", "the core") for number in listed}
    if not found:
        raise InputError(
            f"layers={choice!r} keeps none of the {n_layers} core layers (0 to {n_layers - 1}). "
            "To keep the loop state alone, pass sites=()."
        )
    return tuple(sorted(found))


def kept_iterations(choice: IterationChoice, total: int) -> tuple[int, ...]:
    """Return the iterations of 1..total that are kept, ascending; see `Keep`."""
    if isinstance(choice, str):
        kind, _, number = choice.strip().partition(":")
        if choice.strip() == "all":
            return tuple(range(1, total + 1))
        if kind not in ("every", "last") or not number.isdecimal() or int(number) < 1:
            raise InputError(f"keep_iterations must be {_ITERATIONS_HELP}, got {choice!r}")
        if kind == "last":
            return tuple(range(max(1, total - int(number) + 1), total + 1))
        return tuple(t for t in range(1, total + 1) if (total - t) % int(number) == 0)
    found: set[int] = set()
    for item in _listed(choice, f"keep_iterations must be {_ITERATIONS_HELP}"):
        asked = whole_number(item, "an iteration to keep", least=0)
        if asked == 0:
            raise InputError(
                "keep_iterations cannot name iteration 0: the initial state is kept only with "
                "keep_iterations='all'. Restarts can be drawn again from their seeds."
            )
        if asked > total:
            raise InputError(
                f"keep_iterations names iteration {asked}, but the loop runs 1 to {total}. "
                "'last:1' keeps the last one, whichever it is."
            )
        found.add(asked)
    if not found:
        raise InputError(f"keep_iterations keeps nothing: expected {_ITERATIONS_HELP}")
    return tuple(sorted(found))


def kept_positions(
    choice: TokenChoice, prompts: Sequence[Prompt]
) -> tuple[tuple[int, ...], ...] | None:
    """Return the positions kept of each prompt, ascending; None for all of all. See `Keep`."""
    if isinstance(choice, str):
        if choice.strip() == "all":
            return None
        if choice.strip() != "last":
            raise InputError(f"tokens must be {_TOKENS_HELP}, got {choice!r}")
        choice = (-1,)
    if not callable(choice):
        listed = _listed(choice, f"tokens must be {_TOKENS_HELP}")
        kept = tuple(_positions(listed, prompt, i) for i, prompt in enumerate(prompts))
    else:
        kept = tuple(_said_by(choice, prompt, i) for i, prompt in enumerate(prompts))
    whole = all(len(row) == len(prompt) for row, prompt in zip(kept, prompts, strict=True))
    return None if whole else kept


def _said_by(choose: Callable[[Prompt], Any], prompt: Prompt, index: int) -> tuple[int, ...]:
    """Return the positions that the caller's function keeps of a prompt."""
    said = choose(prompt)
    # A tensor or a generator may come back as well: whatever can be listed.
    said = said.tolist() if hasattr(said, "tolist") else said
    said = list(said) if isinstance(said, Iterable) and not isinstance(said, str) else said
    if isinstance(said, list) and said and all(isinstance(item, bool | np.bool) for item in said):
        if len(said) != len(prompt):
            raise InputError(
                f"the function given as tokens returned {len(said)} bools for prompt {index}, "
                f"which has {len(prompt)} tokens. Return one a token, or positions."
            )
        said = [position for position, keep in enumerate(said) if keep]
    asked = "the function given as tokens must return one bool a token, or positions"
    return _positions(_listed(said, asked), prompt, index)


def _positions(listed: list[Any], prompt: Prompt, index: int) -> tuple[int, ...]:
    if not listed:
        raise InputError(
            f"tokens keeps nothing of prompt {index} ({prompt.text[:40]!r}). Leave the prompt out, "
            "or keep at least one of its tokens."
        )
    where = f"prompt {index}"
    return tuple(sorted({_counted(item, len(prompt), "tokens", where) for item in listed}))


def _listed(choice: Any, expected: str) -> list[Any]:
    if isinstance(choice, str | bool) or not isinstance(choice, int | np.integer | Iterable):
        raise InputError(f"{expected}; got {choice!r}")
    return list(choice) if isinstance(choice, Iterable) else [choice]


def _counted(item: Any, size: int, name: str, where: str) -> int:
    """Return a number of 0..size-1, of one that may count from the end."""
    integer = isinstance(item, int | np.integer) and not isinstance(item, bool)
    if not integer or not -size <= item < size:
        raise InputError(
            f"{name} names {item!r}, but {where} has {size}, counted 0 to {size - 1} "
            f"(or -{size} to -1 from the end)"
        )
    return int(item) % size
