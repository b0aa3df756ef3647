"""How a map can be differentiated, found out once, on its first product with the Jacobian.

Reverse mode twice is taken where it gives what forward mode gives. Where it gives something else
(a part under ``no_grad``, say), forward mode is taken. Neither sees what a ``detach`` cuts off, so
the product is held against difference quotients as well. One that is zero or not finite says
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
_NEAR = 0.05  # of a product and its difference quotient
_LITTLE = 1e-3  # of the direction: as much of a quotient may be rounding
_SHARP = 0.02  # of a quotient: rounding in it, or its difference to one of another length
FITS, DIFFERS, UNCLEAR = "fits", "differs", "unclear"
_TRANSPOSED = (
    "reverse mode gives products with the transposed Jacobian that are not finite (a branch of "
    "torch.where that is not taken is enough): J is formed for them"
)
_DIFFERS = (
    "the derivative of this step differs from its difference quotients: a part of it is hidden "
    "from autograd (no_grad, detach), has a backward of its own, or is not smooth. Compute the "
    "step without these."
)
_NO_FORWARD = " An operation without forward-mode derivative keeps forward mode from being taken."
# Powers of the unit of rounding, times the state: the lengths of difference quotients.
_LENGTHS = (1 / 5, 1 / 4, 1 / 3, 1 / 2, 2 / 3, 4 / 5)


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
            continue  # nor need another state suit the map
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
        if _by_differences(function, x, v, found) != FITS:
            raise InputError(_DIFFERS + _NO_FORWARD)
        return found, [
            "an operation of the step has no forward-mode derivative: the first product was "
            "checked by a difference quotient"
        ]
    if _by_differences(function, x, v, reference) == DIFFERS:
        raise InputError(_DIFFERS)
    if agrees:
        pulled = _pulled(function, x, reference, ways)
        if bool(reference.isfinite().all()) and (pulled is None or not pulled.isfinite().all()):
            ways.is_hidden = True
        return reference, [_TRANSPOSED] if ways.is_hidden else []
    if found is not None:
        ways.is_hidden, why = True, "a part of the step is hidden from autograd (no_grad, detach)"
    elif _is_adjoint(function, x, v, reference, ways):
        why = "an operation of the step has no second derivative"
    else:
        ways.is_hidden, why = True, f"reverse mode fails ({failures[-1]})"
    return reference, [f"{why}: forward mode is taken"]


def _pulled(function: Function, x: Rows, u: Rows, ways: Ways) -> Rows | None:
    """Return J^T u by reverse mode, where it can be had."""
    return _attempt(Linearised(function, x, Ways.like(ways)).vjp, u, [])


def _is_adjoint(function: Function, x: Rows, v: Rows, product: Rows, ways: Ways) -> bool:
    """Return whether J^T u by reverse mode fits J v: u . J v = J^T u . v, with u = J v."""
    pulled = _pulled(function, x, product, ways)
    if pulled is None:
        return False
    inner, wanted = (pulled * v).sum(), product.square().sum()
    noise = _REPEATED * torch.finfo(x.dtype).eps * v.norm() * product.norm()
    return bool((inner - wanted).abs() <= _same(x) * wanted + noise)  # not if NaN


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
    """Return whether products are the same, where the wanted one is finite and no rounding."""
    finite = wanted.isfinite()
    gap = torch.where(finite, found - wanted, 0.0).norm()
    noise = _ROUNDING * torch.finfo(v.dtype).eps * v.norm()
    return bool(gap <= _same(v) * torch.where(finite, wanted, 0.0).norm() + noise)  # not if NaN


def _same(x: Rows) -> float:
    return _SAME.get(x.dtype, _SAME_IN_HALF)


@torch.no_grad()
def _by_differences(function: Function, x: Rows, v: Rows, product: Rows) -> str:
    """Hold a product against difference quotients of several lengths."""
    size = x.norm() if bool(x.any()) else v.norm()
    eps, verdict = torch.finfo(x.dtype).eps, UNCLEAR
    sharp: list[tuple[Rows, Tensor]] = []  # quotients that are no rounding, the finest last
    for power in _LENGTHS:
        h = eps**power * size / v.norm()
        try:
            ahead, behind = function(x + h * v), function(x - h * v)
        except Exception:  # states that nobody asked for need not suit the map
            continue
        quotient = (ahead - behind) / (2 * h)
        finite = quotient.isfinite() & product.isfinite()
        quotient = torch.where(finite, quotient, 0.0)
        gap = torch.where(finite, quotient - product, 0.0).norm()
        rounding = eps * torch.where(finite, ahead.abs() + behind.abs(), 0.0).norm() / h
        if gap <= _NEAR * quotient.norm() and rounding <= quotient.norm():
            return FITS
        if rounding <= _SHARP * quotient.norm():
            sharp.append((quotient, rounding))
        elif gap <= torch.minimum(rounding, _LITTLE * v.norm()):
            verdict = FITS
    if len(sharp) > 1:
        (coarse, left), (fine, right) = sharp[-2:]
        if (fine - coarse).norm() <= _SHARP * fine.norm() + left + right:
            return DIFFERS
    return verdict


def _unique(texts: list[str]) -> list[str]:
    return list(dict.fromkeys(texts))
