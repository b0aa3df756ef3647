"""The part of an activation that is meant: some tokens, some heads, or all of them.

Everything here is about axes and indices. It knows neither hooks nor what is done with the part.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

from looplens.errors import InputError
from looplens.models.addressing import Axes

Selection: TypeAlias = "int | Sequence[int] | slice | None"
_ALL = slice(None)


def described_selection(selection: Selection, what: str) -> Any:
    """Return a selection in values that JSON can hold: an int, a list, or a slice in words.

    Raises
    ------
    InputError
        If it is no selection.
    """
    if selection is None or _is_int(selection):
        return selection
    if isinstance(selection, slice):
        edges = (selection.start, selection.stop, selection.step)
        if all(edge is None or _is_int(edge) for edge in edges) and selection.step != 0:
            text = ":".join("" if edge is None else str(edge) for edge in edges[:2])
            return text if selection.step is None else f"{text}:{selection.step}"
    elif isinstance(selection, list | tuple | range) and all(map(_is_int, selection)):
        if not selection:
            raise InputError(f"{what} is empty: leave it out to mean all of them")
        return list(selection)
    raise InputError(
        f"{what} must be an int, a list of ints, a slice or None for all, got {selection!r}"
    )


def chosen(selection: Selection, size: int, what: str) -> list[int]:
    """Return the indices that a selection means along an axis of ``size``.

    Raises
    ------
    InputError
        If an index is out of range or named twice. Slices clip, as everywhere.
    """
    if selection is None:
        return list(range(size))
    if isinstance(selection, slice):
        return list(range(size))[selection]
    wanted = [selection] if isinstance(selection, int) else list(selection)
    outside = [index for index in wanted if not -size <= index < size]
    if outside:
        raise InputError(f"there is no {what} {outside[0]}: there are {size}, counted from 0")
    found = [index % size for index in wanted]
    if len(set(found)) < len(found):
        raise InputError(f"{what}s are named twice: {wanted}")
    return found


class Part:
    """Some tokens and heads of an activation.

    Parameters
    ----------
    shape : sequence of int
        Of the activation.
    axes : Axes
        Where its positions and heads lie.
    tokens, heads : int, sequence of int, slice or None
        What is meant; an int drops its axis.
    offset : int
        Position in the sequence of the activation's first one, while generating from a cache.

    Raises
    ------
    InputError
        If a token or head does not exist, or the activation has no heads.
    """

    def __init__(
        self,
        shape: Sequence[int],
        axes: Axes,
        tokens: Selection = None,
        heads: Selection = None,
        *,
        offset: int = 0,
    ) -> None:
        if len(shape) <= axes.pos:
            raise InputError(
                f"expected an activation with positions on axis {axes.pos}, got shape "
                f"{tuple(shape)}"
            )
        if heads is not None and axes.head is None:
            raise InputError("this site has no heads: leave heads= out")
        self.shape = tuple(shape)
        positions = chosen(tokens, offset + shape[axes.pos], "token")
        here = [position - offset for position in positions if position >= offset]
        self.is_empty = not here
        index: list[Any] = [_ALL] * len(shape)
        if tokens is not None:
            index[axes.pos] = _index(here, tokens)
        if heads is not None and axes.head is not None:
            index[axes.head] = _index(chosen(heads, shape[axes.head], "head"), heads)
            self.is_empty |= isinstance(index[axes.head], list) and not index[axes.head]
        # Two lists mean every token of every head, not pairs of them.
        lists = [axis for axis, choice in enumerate(index) if isinstance(choice, list)]
        for place, axis in enumerate(lists):
            numbers = torch.tensor(index[axis], dtype=torch.long)
            index[axis] = numbers.reshape(-1, 1) if place + 1 < len(lists) else numbers
        self.index = tuple(index)

    def read(self, activation: Tensor) -> Tensor:
        """Return the part of an activation of this shape."""
        return activation[self.index]

    def write(self, activation: Tensor, part: Tensor) -> Tensor:
        """Return a copy of the activation with the part exchanged."""
        changed = activation.clone()
        changed[self.index] = part
        return changed

    def fit(self, value: Tensor | float, activation: Tensor) -> Tensor:
        """Return a value in the shape, dtype and place of the part.

        Raises
        ------
        InputError
            If it neither broadcasts to the part nor has the shape of the whole activation.
        """
        given = torch.as_tensor(value).to(activation)
        if given.shape == activation.shape:
            return self.read(given)
        wanted = self.read(activation)
        try:
            return given.expand_as(wanted)
        except RuntimeError:
            raise InputError(
                f"a value of shape {tuple(given.shape)} fits neither the chosen part "
                f"{tuple(wanted.shape)} nor the whole activation {self.shape}"
            ) from None


def _index(numbers: list[int], selection: Selection) -> int | list[int]:
    return numbers[0] if isinstance(selection, int) and numbers else numbers


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
