"""How a map can be differentiated, found out once, on its first product with the Jacobian.

Reverse mode twice is taken where it gives what forward mode gives. Where it gives something else, a
part of the map is hidden from it, and forward mode is taken; where an operation has no forward
derivative, a difference quotient is the judge instead. A product that is zero or not finite says
nothing of either way, so another state is asked then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from looplens.dynamics.maps.derivatives import (
    FORWARD,
    FUSED,
    MATH,
    REVERSE,
    Function,
    Linearised,
    Rows,
    Ways,
    forward,
)
from looplens.errors import InputError

# Largest relative difference of two ways to the same product. Of models in float64 some parts
# compute in float32.
_SAME = {torch.float64: 1e-4, torch.float32: 2e-3}
_SAME_IN_HALF = 0.15
_ROUNDING = 10  # units of rounding of the direction, below which products are noise
_REPEATED = 100  # units of rounding between two results of the same state
_NEAR = 0.1  # of a product and its difference quotient
_LENGTHS = (
    1 / 3,
    1 / 2,
    1 / 5,
)  # powers of the unit of rounding, times the state: quotients' steps


def settle(probes: Iterable[tuple[Function, Rows]], v: Rows, ways: Ways) -> None:
    """Find out how a map can be differentiated.

    Parameters
    ----------
    probes : iterable of (function, Float[Tensor, "1 n"])
        The map at a state; others for when the product there says nothing.
    v : Float[Tensor, "1 n"]
        The direction of the product.
    ways : Ways
        What is found is written here.

    Raises
    ------
    InputError
        If there is no way, a part of the map is hidden from the only one, or the map gives other
        results for the same state.
    """
    said: list[str] = []
    for number, (function, x) in enumerate(probes):
        try:
            _check_repeats(function, x)  # an error of the map itself is not one of its derivative
        except InputError:
            raise
        except Exception:
            if not number:
                raise
            continue  # a state that nobody asked for need not suit the map
        product, said = _compared(function, x, v, ways)
        if bool(product.isfinite().all()) and bool(product.any()):
            break
    ways.notes.extend(said)


def _compared(function: Function, x: Rows, v: Rows, ways: Ways) -> tuple[Rows, list[str]]:
    """Compare the ways at a state and choose; return the product and what there is to say."""
    failures: list[str] = []
    reference = _attempt(lambda v: forward(function, x, v), v, failures)
    found, agrees = None, False
    for kernel in (FUSED, MATH):
        ways.attention = kernel
        again = _attempt(Linearised(function, x, ways).twice, v, failures)
        if again is not None:
            found, agrees = again, reference is None or _agree(again, reference, v)
            if agrees:
                break
    ways.is_hidden, ways.derivative = False, REVERSE if agrees else FORWARD
    if reference is None:
        if found is None:
            raise InputError(
                "a product with the Jacobian can be had neither by forward mode nor by reverse "
                f"mode twice, not even with written-out attention: {'; '.join(_unique(failures))}"
            )
        _check_by_difference(function, x, v, found)
        return found, [
            "an operation of the step has no forward-mode derivative: the first product was "
            "checked by a difference quotient"
        ]
    if agrees:
        return reference, []
    if found is not None:
        ways.is_hidden, why = True, "a part of the step is hidden from autograd (no_grad, detach)"
    elif _is_adjoint(function, x, v, reference, ways):
        why = "an operation of the step has no second derivative"
    else:
        ways.is_hidden, why = True, f"reverse mode fails ({failures[-1]})"
    return reference, [f"{why}: forward mode is taken"]


def _is_adjoint(function: Function, x: Rows, v: Rows, product: Rows, ways: Ways) -> bool:
    """Return whether J^T u by reverse mode fits J v: u . J v = J^T u . v, with u = J v."""
    pulled = _attempt(Linearised(function, x, ways).vjp, product, [])
    if pulled is None:
        return False
    inner, wanted = (pulled * v).sum(), product.square().sum()
    return bool((inner - wanted).abs() <= _same(x) * wanted)


@torch.no_grad()
def _check_repeats(function: Function, x: Rows) -> None:
    """Check that the same state gives the same result twice."""
    first, again = function(x.clone()), function(x.clone())
    gap = (again - first).nan_to_num(0.0, posinf=torch.inf).norm()
    allowed = _REPEATED * torch.finfo(x.dtype).eps * first.nan_to_num(0.0).norm()
    if gap > allowed:
        raise InputError(
            "the step gives different results for the same state (relative difference "
            f"{float(gap / first.norm()):.1e}): it draws random numbers (dropout, noise) or counts "
            "its calls, so it has no Jacobian. Switch that off, for example by model.eval()."
        )


def _attempt(product: Callable[[Rows], Rows], v: Rows, failures: list[str]) -> Tensor | None:
    try:
        return product(v)
    except torch.OutOfMemoryError:
        raise
    except (NotImplementedError, RuntimeError) as error:
        failures.append(str(error).strip().splitlines()[0][:160])
        return None


def _agree(found: Rows, wanted: Rows, v: Rows) -> bool:
    """Return whether products are the same, where they are finite and no rounding."""
    finite = found.isfinite() & wanted.isfinite()
    gap = torch.where(finite, found - wanted, 0.0).norm()
    noise = _ROUNDING * torch.finfo(v.dtype).eps * v.norm()
    return bool(gap <= _same(v) * torch.where(finite, wanted, 0.0).norm() + noise)


def _same(x: Rows) -> float:
    return _SAME.get(x.dtype, _SAME_IN_HALF)


@torch.no_grad()
def _check_by_difference(function: Function, x: Rows, v: Rows, found: Rows) -> None:
    """Hold a product against difference quotients; one of several steps has to agree."""
    size = x.norm() if bool(x.any()) else v.norm()
    direction = v / v.norm() * size
    for power in _LENGTHS:
        h = torch.finfo(x.dtype).eps ** power
        ahead, behind = function(x + h * direction), function(x - h * direction)
        quotient = (ahead - behind) / (2 * h) * (v.norm() / size)
        finite = quotient.isfinite() & found.isfinite()
        gap, wanted = (torch.where(finite, y, 0.0).norm() for y in (quotient - found, quotient))
        if gap <= _NEAR * wanted:
            return
    raise InputError(
        "the derivative of this step differs from its difference quotient: a part of it is "
        "hidden from autograd (no_grad, detach), has a backward of its own, or is not smooth, and "
        "an operation has no forward-mode derivative. Compute the step without these."
    )


def _unique(texts: list[str]) -> list[str]:
    return list(dict.fromkeys(texts))
