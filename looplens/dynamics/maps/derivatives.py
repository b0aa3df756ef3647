"""Products with the Jacobian of many rows at once, without the Jacobian.

Two ways lead to J v. Forward mode carries v along with the state; it is the definition, and costs
several times a step on each call. Reverse mode twice differentiates the product J^T u, which is
linear in u, once more: d(J^T u)/du applied to v is J v. The graph for that is built once at a point
and then serves any number of products, each at about the cost of a step. `python -m benchmarks
--only dynamics` compares them.

What autograd does not see (a part under ``no_grad``, a ``detach``) is silently missing in reverse
mode. :mod:`looplens.dynamics.maps.settling` finds that out, and which way is taken.

References
----------
Griewank and Walther, Evaluating Derivatives (2008), chapter 3, for both modes; that J v is two
vector-Jacobian products is an observation of J. Townsend (2017).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from looplens.errors import InputError

Rows: TypeAlias = Float[Tensor, "row n"]
Function: TypeAlias = Callable[[Rows], Rows]

FUSED = "as in the forward"
MATH = "math (the fused kernel lacks the derivative)"
REVERSE = "reverse mode twice"
FORWARD = "forward mode"
_MOST = 1024  # numbers in a state whose Jacobian is formed where there is no other way
_TOGETHER = 2**22  # numbers that one batched product moves


@dataclass(slots=True)
class Ways:
    """How a map is differentiated, and how often: one for all maps that are parts of another.

    Attributes
    ----------
    attention : str
        Which attention kernel the derivatives take.
    derivative : str
        ``reverse mode twice`` or ``forward mode``; empty before the first product.
    evaluations, derivatives : int
        Rows that were mapped, and that went through a derivative.
    notes : list of str
        What else a reader should know of how numbers came about.
    is_hidden : bool
        Whether J^T u by reverse mode misses a part of the map, or fails at it.
    """

    attention: str
    derivative: str
    evaluations: int
    derivatives: int
    notes: list[str]
    is_hidden: bool = False

    @classmethod
    def new(cls) -> Ways:
        """Begin with the kernel of the forward."""
        return cls(FUSED, "", 0, 0, [])

    @classmethod
    def like(cls, other: Ways | None) -> Ways:
        """Begin with what was found out for another map of the same operations."""
        if other is None:
            return cls.new()
        return replace(other, evaluations=0, derivatives=0, notes=[*other.notes])

    @contextmanager
    def kernel(self) -> Iterator[None]:
        """Choose the attention kernel."""
        if self.attention == MATH:
            with sdpa_kernel(SDPBackend.MATH):
                yield
        else:
            yield


class Linearised:
    """A map at some states: products with its Jacobian and the transpose of it.

    The graphs are built at the first product and live as long as this object.

    Parameters
    ----------
    function : callable
        Rows to rows.
    x : Float[Tensor, "row n"]
        The states.
    ways : Ways
        How to differentiate, settled before.
    breadth : int, optional
        Numbers that the function moves for a row, where these are more than the state.
    """

    def __init__(self, function: Function, x: Rows, ways: Ways, breadth: int | None = None) -> None:
        self.ways = ways
        self._together = max(1, _TOGETHER // max(1, len(x) * (breadth or x.shape[1])))
        self.x = x.detach().clone().requires_grad_()
        self._function: Function | None = function

    @property
    def is_forward(self) -> bool:
        """Whether J v comes from forward mode."""
        return self.ways.derivative == FORWARD

    def build(self) -> Linearised:
        """Build the graph now and let go of the function, where no product needs it any more.

        A map keeps this object without a reference cycle then; in one, its graph would stay in
        memory until the garbage collector comes by.
        """
        if not self.is_forward:
            assert self._value is not None
            self._function = None
        return self

    def jvp(self, v: Rows) -> Rows:
        """Return J v of every row."""
        self.ways.derivatives += len(v)
        if not self.is_forward:
            return self.twice(v)
        assert self._function is not None
        return forward(self._function, self.x, v)

    def vjp(self, u: Rows) -> Rows:
        """Return J^T u of every row."""
        self.ways.derivatives += len(u)
        if self.ways.is_hidden:
            return torch.einsum("rij,ri->rj", self._dense, u)
        return _gradient(self._value, self.x, u, allow_unused=True)

    def jvps(self, directions: Float[Tensor, "k row n"]) -> Float[Tensor, "k row n"]:
        """Return J v for several v of every row, together: far cheaper than one after the other."""
        if self.is_forward or len(directions) == 1:
            return torch.stack([self.jvp(v) for v in directions])
        self.ways.derivatives += directions.shape[0] * directions.shape[1]
        pulled, u = self._graph
        parts = directions.split(self._together)
        return torch.cat([_gradients(pulled, u, part) for part in parts])

    def jacobian(self) -> Float[Tensor, "row n n"]:
        """Return J itself, entry (i, j) being df_i / ds_j: for states of up to some hundreds."""
        rows, n = self.x.shape
        unit = torch.eye(n, dtype=self.x.dtype, device=self.x.device)
        every = unit[:, None].expand(n, rows, n)
        if self.is_forward or self.ways.is_hidden:
            return self.jvps(every).permute(1, 2, 0)
        self.ways.derivatives += n * rows
        parts = every.split(self._together)
        found = [_gradients(self._value, self.x, part, allow_unused=True) for part in parts]
        return torch.cat(found).permute(1, 0, 2)

    @cached_property
    def _dense(self) -> Float[Tensor, "row n n"]:
        """J, where it is the only way to a product with its transpose."""
        if self.x.shape[1] > _MOST:
            raise InputError(
                "a product with the transposed Jacobian needs reverse mode, which misses a part of "
                "this step or fails at it. Compute the step without torch.no_grad, detach, and "
                "writing into its own states."
            )
        return self.jacobian()

    def twice(self, v: Rows) -> Rows:
        """Return J v by reverse mode twice."""
        pulled, u = self._graph
        return _gradient(pulled, u, v)

    @cached_property
    def _value(self) -> Tensor:
        """f(x) with its graph."""
        assert self._function is not None
        with torch.enable_grad(), self.ways.kernel():
            return self._function(self.x.clone())  # foreign code may write into what it is given

    @cached_property
    def _graph(self) -> tuple[Tensor, Tensor]:
        """J^T u with its graph, and u."""
        with torch.enable_grad():
            u = torch.zeros_like(self._value, requires_grad=True)
            options = {"create_graph": True, "allow_unused": True}
            return _gradient(self._value, self.x, u, **options), u


def _gradient(value: Tensor, at: Tensor, u: Tensor, **options: bool) -> Tensor:
    if value.grad_fn is None:
        return torch.zeros_like(u)
    found = torch.autograd.grad(value, at, u, retain_graph=True, **options)[0]
    return torch.zeros_like(u) if found is None else found


def _gradients(value: Tensor, at: Tensor, us: Float[Tensor, "k row n"], **options: bool) -> Tensor:
    """Return the gradient for several u, by vmap where all operations can be batched."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # slow fallbacks of vmap
            return _gradient(value, at, us, is_grads_batched=True, **options)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError:
        return torch.stack([_gradient(value, at, u, **options) for u in us])


@torch.no_grad()
def forward(function: Function, x: Rows, v: Rows) -> Rows:
    """Return J(x) v by forward mode, with attention written out: no fused kernel has it."""
    # Foreign code that writes into what it is given writes into the direction as well.
    with sdpa_kernel(SDPBackend.MATH):
        return torch.func.jvp(function, (x.detach().clone(),), (v.detach().clone(),))[1]
