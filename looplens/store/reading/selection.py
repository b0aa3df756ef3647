"""Checks of the numbers that a reader selects by, with messages that name the range."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from looplens.errors import InputError

Selection = int | slice | None
TokenSelection = int | slice | Sequence[int] | np.ndarray | None


def checked_index(index: object, size: int, what: str) -> int | slice:
    """Return a selection along one axis as an int or a slice.

    Raises
    ------
    InputError
        If it is something else, or an int that is out of range. Negative ints count from the end.
    """
    if isinstance(index, slice):
        return index
    if isinstance(index, (int, np.integer)) and not isinstance(index, bool):
        _check_range(int(index), int(index), size, what)
        return int(index)
    raise InputError(
        f"{what} must be an int or a slice, but is a {type(index).__name__}: {index!r}."
    )


def checked_tokens(
    tokens: int | slice | Sequence[int] | np.ndarray, size: int
) -> int | slice | np.ndarray:
    """Return a selection of tokens as an int, a slice or an array of non-negative ints.

    Raises
    ------
    InputError
        If a number is out of range, or an array is neither of ints nor one bool a token.
    """
    if isinstance(tokens, (int, np.integer, slice)):
        return checked_index(tokens, size, "token")
    numbers = np.asarray(tokens)
    if numbers.ndim == 0 and numbers.dtype.kind in "iu":
        return checked_index(int(numbers), size, "token")
    if numbers.ndim == 1 and numbers.size == 0:
        return numbers.astype(np.intp)
    if numbers.ndim == 1 and numbers.dtype == bool and numbers.size == size:
        return np.flatnonzero(numbers)
    if numbers.ndim != 1 or numbers.dtype.kind not in "iu":
        raise InputError(
            f"tokens must be an int, a slice, a row of ints or one bool for each of the {size} "
            f"tokens, but an array of {numbers.dtype} with the shape {numbers.shape} was given."
        )
    _check_range(int(numbers.min()), int(numbers.max()), size, "token")
    return np.where(numbers < 0, numbers.astype(np.intp) + size, numbers.astype(np.intp))


def _check_range(smallest: int, largest: int, size: int, what: str) -> None:
    for number in (smallest, largest):
        if not -size <= number < size:
            raise InputError(
                f"There is no {what} {number}: this run has {size}, counted 0 to {size - 1}."
            )
