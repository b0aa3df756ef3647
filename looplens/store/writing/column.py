"""What is done to numbers before they are stored: checked, cast, and looked over for NaN."""

from __future__ import annotations

import numpy as np

from looplens.errors import InputError, StoreError
from looplens.store.format.schema import NAN_MEANS_NONE, VariableSpec


def to_stored_dtype(data: np.ndarray, variable: VariableSpec) -> np.ndarray:
    """Return ``data`` in the dtype of the variable.

    Raises
    ------
    InputError
        If the numbers are of another kind, such as floats for an array of ids.
    StoreError
        If a finite number becomes infinite.
    """
    if data.dtype == variable.dtype:
        return data
    kinds = "iu" if variable.dtype == "int32" else "fiu"
    if data.dtype.kind not in kinds:
        raise InputError(
            f"{variable.path} is stored as {variable.dtype}, but {data.dtype} was given."
        )
    with np.errstate(over="ignore"):
        stored = data.astype(variable.dtype)
    if _has_non_finite(stored):
        overflowed = np.isinf(stored) & np.isfinite(data)
        if overflowed.any():
            largest = np.abs(data[overflowed]).max()
            limit = np.finfo(variable.dtype).max
            raise StoreError(
                f"{variable.path} holds {int(overflowed.sum())} numbers too large for "
                f"{variable.dtype}: the largest is {largest:.6g}, and the format ends at "
                f"{limit:.6g}. Record with dtype='float32'."
            )
    return stored


def count_non_finite(data: np.ndarray, variable: VariableSpec) -> int:
    """Count NaN and infinite numbers; only infinite ones where NaN says "there is none"."""
    if not _has_non_finite(data):
        return 0
    if variable.path in NAN_MEANS_NONE:
        return int(np.isinf(data).sum())
    return data.size - int(np.isfinite(data).sum())


def _has_non_finite(data: np.ndarray) -> bool:
    """Whether there may be NaN or infinite numbers; a sum is fast, it makes no big array."""
    if data.dtype.kind != "f":
        return False
    with np.errstate(all="ignore"):
        return not np.isfinite(data.sum(dtype=np.result_type(data.dtype, np.float32)))


def whole(variable: VariableSpec) -> tuple[slice, ...]:
    """Return the region of all of an array."""
    return tuple(slice(0, size) for size in variable.shape)


def tokens_of(variable: VariableSpec, start: int, stop: int) -> tuple[slice, ...]:
    """Return the region of an array that some tokens take."""
    region = [*whole(variable)]
    assert variable.token_axis is not None
    region[variable.token_axis] = slice(start, stop)
    return tuple(region)


def shape_message(variable: VariableSpec, expected: tuple[int, ...], seen: tuple[int, ...]) -> str:
    """Say which shape was expected, with the names of the axes, and which was given."""
    axes = ", ".join(f"{name} {size}" for name, size in zip(variable.dims, expected, strict=True))
    return f"{variable.path} must have the shape {expected} ({axes}), but {seen} was given."
