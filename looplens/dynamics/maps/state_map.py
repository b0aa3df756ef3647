"""A differentiable map of states, many at once: what every experiment of the lab is built on.

Rows are systems of their own: row r of the result depends on row r of the argument only. One row is
a plain map ``f(state) -> state``; many are many tokens, or many starts. What the rows are is not
known here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from looplens.dynamics.maps.derivatives import (
    FUSED,
    MATH,
    Function,
    Linearised,
    Rows,
    Ways,
    forward,
)
from looplens.dynamics.maps.given import RowByRow, check_state, dtype_of
from looplens.dynamics.maps.settling import settle
from looplens.errors import InputError

__all__ = ["FUSED", "MATH", "Rows", "StateMap", "check_state", "length"]

_PROBES = 4  # rows that are asked how the map is differentiated, if those before say nothing


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
    is_fixed : bool
        Whether the function stays the same for good: products at the very tensor that the last
        ones were asked at then reuse their graph. Leave it off for a function with a knob.
    ways : Ways, optional
        How to differentiate, shared with the map that this one is a part of.

    Attributes
    ----------
    size : int
        Numbers in a state, n.
    breadth : int
        Numbers that a step moves for a row: more than the state where the state is a part.
    """

    def __init__(
        self,
        function: Callable[[Tensor], Tensor],
        shape: torch.Size | tuple[int, ...],
        *,
        dtype: torch.dtype,
        device: torch.device | str = "cpu",
        is_fixed: bool = False,
        ways: Ways | None = None,
    ) -> None:
        self.function = function
        self.shape = torch.Size(shape)
        self.size = self.shape.numel()
        self.dtype, self.device = dtype, torch.device(device)
        self.is_fixed = is_fixed
        self.breadth = self.size
        self.ways = ways or Ways.new()
        self._last: tuple[Tensor, int, Linearised] | None = None

    @classmethod
    def of(cls, f: Callable[[Tensor], Tensor], state: Tensor) -> StateMap:
        """Take a map of one state, such as a user writes it.

        Several rows go through ``torch.func.vmap``, and one by one where that is not possible. A
        start of integers, of half precision, or of another dtype than ``f`` computes in is taken in
        the dtype of the results of ``f``, at least float32 where ``f`` can. ``notes`` say so.

        Raises
        ------
        InputError
            If `state` is no tensor of finite real numbers, or ``f`` returns another shape, no
            floating-point numbers, or always another dtype.
        """
        dtype, notes = dtype_of(f, state)
        row_by_row = RowByRow(f)
        found = cls(row_by_row, state.shape, dtype=dtype, device=state.device, is_fixed=True)
        found.ways.notes = row_by_row.notes = notes
        return found

    @property
    def evaluations(self) -> int:
        """Rows that were mapped so far, by this map and its parts."""
        return self.ways.evaluations

    @property
    def derivatives(self) -> int:
        """Rows that went through a forward or a backward derivative so far."""
        return self.ways.derivatives

    @property
    def attention(self) -> str:
        """Which attention kernel the derivatives take."""
        return self.ways.attention

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of the results should know of how they were computed."""
        return tuple(self.ways.notes)

    def flat(self, states: Tensor) -> Rows:
        """Return states of any shape as rows of this map's dtype and device."""
        return states.reshape(-1, self.size).to(dtype=self.dtype, device=self.device)

    def shaped(self, rows: Rows) -> Tensor:
        """Return rows as states."""
        return rows.reshape(-1, *self.shape)

    @torch.no_grad()
    def __call__(self, x: Rows) -> Rows:
        """Map every row once."""
        self.ways.evaluations += len(x)
        return self._flat_function(x.clone())  # foreign code may write into what it is given

    def rows(self, chosen: Tensor) -> StateMap:
        """Return the map of some of the rows: the same map, unless rows differ from each other."""
        return self

    def each(self, times: int) -> StateMap:
        """Return the map of rows of which each stands so many times in a row."""
        return self

    def residual(self, x: Rows) -> tuple[Rows, Float[Tensor, " row"]]:
        """Return f(x) - x and its norm."""
        r = self(x) - x
        return r, length(r)

    def linearised(self, x: Rows) -> Linearised:
        """Return the map at some states, for many products with its Jacobian there.

        Building it costs a few steps, and every product after that one to two.

        Raises
        ------
        InputError
            If the map cannot be differentiated; see :mod:`looplens.dynamics.maps.settling`.
        """
        if torch.is_inference_mode_enabled():
            raise InputError(
                "derivatives cannot be had within torch.inference_mode(), which switches autograd "
                "off for good: call this outside of it (torch.no_grad() does no harm)"
            )
        if not self.ways.derivative:
            draw = torch.randn(self.size, generator=torch.Generator().manual_seed(0))
            settle(self._probes(x.detach()), draw.to(x)[None], self.ways)
            self._note_ways()
        return Linearised(self._flat_function, x, self.ways, self.breadth)

    def _probes(self, x: Rows) -> Iterator[tuple[Function, Rows]]:
        """Yield single rows of the map at some states, and at last one near the first of them."""
        number = torch.arange(min(len(x), _PROBES), device=x.device)
        for row in number.split(1):
            yield self.rows(row)._flat_function, x[row]
        draw = torch.randn(self.size, generator=torch.Generator().manual_seed(1)).to(x)[None]
        near = x[:1].nan_to_num(0.0, 0.0, 0.0)
        spread = near.square().mean().sqrt()
        yield (
            self.rows(number[:1])._flat_function,
            near + torch.where(spread > 0, spread, 1.0) * draw,
        )

    def _note_ways(self) -> None:
        """Let others know how maps like this one are differentiated."""

    @torch.no_grad()
    def jvp(self, x: Rows, v: Rows) -> Rows:
        """Return J(x) v for every row.

        Raises
        ------
        InputError
            See :meth:`linearised`.
        """
        return self._at(x).jvp(v)

    @torch.no_grad()
    def vjp(self, x: Rows, u: Rows) -> Rows:
        """Return J(x)^T u for every row."""
        return self._at(x).vjp(u)

    def forward_jvp(self, x: Rows, v: Rows) -> Rows:
        """Return J(x) v by forward mode: the reference, and slower."""
        self.ways.derivatives += len(x)
        return forward(self._flat_function, x, v)

    def _at(self, x: Rows) -> Linearised:
        """Return the map at some states, the last one where these are the same tensor."""
        if not self.is_fixed or x.is_inference():  # these do not tell when they are written into
            return self.linearised(x)
        if self._last is not None and self._last[0] is x and self._last[1] == x._version:
            return self._last[2]
        self._last = None  # frees its graph before the next is built
        self._last = (x, x._version, self.linearised(x).build())
        return self._last[2]

    def _flat_function(self, x: Rows) -> Rows:
        return self.function(x.reshape(-1, *self.shape)).reshape(len(x), self.size)


def length(x: Float[Tensor, "*rows n"]) -> Float[Tensor, "*rows"]:
    """Return Euclidean norms of any size: squares of what is below 1e-19 vanish in float32."""
    largest = x.abs().amax(dim=-1, keepdim=True)
    scale = torch.where((largest > 0) & largest.isfinite(), largest, 1.0)
    return (x / scale).norm(dim=-1) * scale[..., 0]
