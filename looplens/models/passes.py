"""The passes of one site as a tensor whose first axis is counted like the loop: from 1.

Everything else about it is an ordinary tensor, and so is whatever is computed from it. It knows
neither models nor sites.
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


class Passes(Tensor):
    """Activations of a site, stacked over passes: ``passes[7]`` is pass 7, not row 7.

    Numbers follow site addresses: counted from 1, negative ones from the end, and a slice such as
    ``passes[4:]`` leaves its stop out. A slice or a list of passes keeps its numbers:
    ``passes[4:][4]`` is pass 4. There is no pass 0, the initial state is no activation.

    Functions and operators take it as the tensor it is and return plain tensors, whose row 0 is
    the first pass kept; so does :meth:`as_tensor`.

    Parameters
    ----------
    stacked : Tensor
        One row a pass.
    iterations : sequence of int
        The pass that each row holds.
    """

    # As torch.nn.Parameter does it: results are plain tensors.
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]
    iterations: tuple[int, ...]

    def __new__(cls, stacked: Tensor, iterations: Sequence[int]) -> Passes:  # noqa: D102
        passes = stacked.as_subclass(cls)
        passes.iterations = tuple(iterations)
        return passes

    def as_tensor(self) -> Tensor:
        """Return the same numbers as a plain tensor, indexed from 0."""
        return self.as_subclass(Tensor)

    def __getitem__(self, key: Any) -> Tensor:
        first, *rest = key if isinstance(key, tuple) and key else (key,)
        plain = self.as_tensor()
        if first is Ellipsis:
            return plain[key]
        if isinstance(first, slice):
            rows = self._rows(first)
        elif isinstance(first, list | tuple | range):
            rows = [self._row(number) for number in first]
        else:
            row = plain[self._row(first)]
            return row[tuple(rest)] if rest else row
        kept = plain[rows][(slice(None), *rest)]
        return Passes(kept, [self.iterations[row] for row in rows])

    def __setitem__(self, key: Any, value: Any) -> None:
        raise TypeError(
            "the passes of a cache are a copy and cannot be written to: change a pass with "
            "model.run_with_hooks, or take .as_tensor() or .clone()"
        )

    def _row(self, number: Any) -> int:
        try:
            wanted = operator.index(number)
        except TypeError:
            raise TypeError(
                f"expected the number of a pass, a slice or a list of them, got {number!r}; "
                ".as_tensor() takes any other index"
            ) from None
        if wanted == 0:
            raise IndexError(
                "passes are counted from 1, so there is no pass 0 (the initial state is no "
                "activation); .as_tensor() is indexed from 0"
            )
        if wanted < 0 and -wanted <= len(self.iterations):
            return len(self.iterations) + wanted
        if wanted not in self.iterations:
            raise IndexError(f"pass {wanted} was not kept (kept: {described(self.iterations)})")
        return self.iterations.index(wanted)

    def _rows(self, wanted: slice) -> list[int]:
        def resolve(edge: Any, default: int) -> int:
            if edge is None:
                return default
            return self.iterations[edge] if edge < 0 else edge

        if wanted.start == 0 or wanted.stop == 0:
            self._row(0)
        step = 1 if wanted.step is None else wanted.step
        if step < 1:
            raise IndexError(f"the step between passes must be at least 1, got {step}")
        last = max(self.iterations, default=0)
        numbers = range(resolve(wanted.start, 1), resolve(wanted.stop, last + 1), step)
        return [row for row, number in enumerate(self.iterations) if number in numbers]

    def __deepcopy__(self, memo: dict[int, Any]) -> Passes:
        return Passes(copy.deepcopy(self.as_tensor(), memo), self.iterations)

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        return f"Passes {described(self.iterations)} of {self.as_tensor()!r}"


def described(iterations: Sequence[int]) -> str:
    """Return pass numbers as a short text: ``1..8``, or ``1, 4, 8``."""
    if not iterations:
        return "none"
    if len(iterations) > 2 and list(iterations) == list(range(iterations[0], iterations[-1] + 1)):
        return f"{iterations[0]}..{iterations[-1]}"
    return ", ".join(map(str, iterations))
