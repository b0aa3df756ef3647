"""A differentiable map of states, many at once: what every experiment of the lab is built on.

Rows are systems of their own: row r of the result depends on row r of the argument only. One row is
a plain map ``f(state) -> state``; many are many tokens, or many starts. What the rows are is not
known here.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from looplens.errors import InputError

Rows = Float[Tensor, "row n"]

FUSED = "as in the forward"
MATH = "math (the fused kernel has no forward-mode derivative)"


class StateMap:
    """Rows of flattened states and the map that takes each of them one step further.

    Parameters
    ----------
    function : callable
        Takes ``[row, *shape]`` and returns the same shape; rows do not see each other.
    shape : sequence of int
        Of the state of one row.
    dtype, device
        Of the states.

    Attributes
    ----------
    size : int
        Numbers in a state, n.
    evaluations : int
        Rows that were mapped so far.
    derivatives : int
        Rows that went through a forward or a backward derivative so far.
    attention : str
        Which attention kernel the derivatives take.
    """

    def __init__(
        self,
        function: Callable[[Tensor], Tensor],
        shape: torch.Size | tuple[int, ...],
        *,
        dtype: torch.dtype,
        device: torch.device | str = "cpu",
    ) -> None:
        self.function = function
        self.shape = torch.Size(shape)
        self.size = self.shape.numel()
        self.dtype, self.device = dtype, torch.device(device)
        self.evaluations = self.derivatives = 0
        self.attention = FUSED

    @classmethod
    def of(cls, f: Callable[[Tensor], Tensor], state: Tensor) -> StateMap:
        """Take a map of one state, such as a user writes it.

        Several rows go through ``torch.func.vmap``, and one by one where that is not possible.

        Raises
        ------
        InputError
            If `state` is no tensor of real floating-point numbers, or ``f`` returns another shape
            or dtype.
        """
        check_state(state)
        with torch.no_grad():
            value = f(state)
        if not isinstance(value, Tensor) or value.shape != state.shape:
            seen = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise InputError(
                f"f must return a tensor of the shape that it is given, {tuple(state.shape)}; got "
                f"{seen}"
            )
        if value.dtype != state.dtype:
            raise InputError(
                f"f turns a state of {state.dtype} into {value.dtype}: pass a start of the dtype "
                "that f computes in"
            )
        return cls(_RowByRow(f), state.shape, dtype=state.dtype, device=state.device)

    def flat(self, states: Tensor) -> Rows:
        """Return states of any shape as rows of this map's dtype and device."""
        return states.reshape(-1, self.size).to(dtype=self.dtype, device=self.device)

    def shaped(self, rows: Rows) -> Tensor:
        """Return rows as states."""
        return rows.reshape(-1, *self.shape)

    @torch.no_grad()
    def __call__(self, x: Rows) -> Rows:
        """Map every row once."""
        self.evaluations += len(x)
        return self._flat_function(x)

    def rows(self, chosen: Tensor) -> StateMap:
        """Return the map of some of the rows: the same map, unless rows differ from each other."""
        return self

    def each(self, times: int) -> StateMap:
        """Return the map of rows of which each stands so many times in a row."""
        return self

    def residual(self, x: Rows) -> tuple[Rows, Float[Tensor, " row"]]:
        """Return f(x) - x and its norm."""
        r = self(x) - x
        return r, r.norm(dim=-1)

    @torch.no_grad()
    def jvp(self, x: Rows, v: Rows) -> Rows:
        """Return J(x) v for every row, by forward-mode differentiation.

        Raises
        ------
        InputError
            If some operation of the map has no forward derivative even with written-out attention.
        """
        self.derivatives += len(x)
        if self.attention == FUSED:
            try:
                return torch.func.jvp(self._flat_function, (x,), (v,))[1]
            except (NotImplementedError, RuntimeError) as error:
                if not _no_forward_mode(error):
                    raise
                self.attention = MATH
        try:
            with sdpa_kernel(SDPBackend.MATH):
                return torch.func.jvp(self._flat_function, (x,), (v,))[1]
        except (NotImplementedError, RuntimeError) as error:
            if not _no_forward_mode(error):
                raise
            raise InputError(
                "an operation of this loop has no forward-mode derivative, with written-out "
                f"attention neither: {str(error).splitlines()[0][:200]}"
            ) from error

    @torch.no_grad()
    def vjp(self, x: Rows, u: Rows) -> Rows:
        """Return J(x)^T u for every row, by reverse-mode differentiation."""
        self.derivatives += len(x)
        with self._kernel():
            return torch.func.vjp(self._flat_function, x)[1](u)[0]

    def _kernel(self) -> AbstractContextManager[Any]:
        return sdpa_kernel(SDPBackend.MATH) if self.attention == MATH else nullcontext()

    def _flat_function(self, x: Rows) -> Rows:
        return self.function(x.reshape(-1, *self.shape)).reshape(len(x), self.size)


class _RowByRow:
    """A map of one state, over rows."""

    def __init__(self, f: Callable[[Tensor], Tensor]) -> None:
        self.f = f
        self.together = True

    def __call__(self, states: Tensor) -> Tensor:
        if len(states) == 1:
            return self.f(states[0])[None]
        if self.together:
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", UserWarning)  # slow fallbacks of vmap
                    return torch.func.vmap(self.f)(states)
            except RuntimeError:
                self.together = False
        return torch.stack([self.f(state) for state in states])


def check_state(state: object, name: str = "the state") -> None:
    """Check that something is a tensor of finite real floating-point numbers.

    Raises
    ------
    InputError
        Saying what was seen.
    """
    if not isinstance(state, Tensor):
        raise InputError(f"{name} must be a torch tensor, got {type(state).__name__}")
    if not state.is_floating_point():
        raise InputError(f"{name} must hold real floating-point numbers, got {state.dtype}")
    if not state.numel():
        raise InputError(f"{name} is empty, of shape {tuple(state.shape)}")
    bad = int((~state.isfinite()).sum())
    if bad:
        raise InputError(
            f"{name} holds {bad} of {state.numel()} numbers that are not finite: start from a "
            "state without them"
        )


def _no_forward_mode(error: Exception) -> bool:
    return "forward AD" in str(error) or "forward-mode" in str(error)
