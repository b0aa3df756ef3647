"""A map of one state, such as a user writes it: how it runs on rows, and what is checked first."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from looplens.errors import InputError

_HALF = (torch.float16, torch.bfloat16)


class RowByRow:
    """A map of one state, over rows: by vmap, or one after the other where that is not possible.

    Parameters
    ----------
    f : callable
        Takes a state and returns the next.

    Attributes
    ----------
    notes : list of str
        Why rows run one after the other, where they do.
    """

    def __init__(self, f: Callable[[Tensor], Tensor]) -> None:
        self.f = f
        self.together = True
        self.notes: list[str] = []

    def __call__(self, states: Tensor) -> Tensor:
        """Map every state once."""
        if len(states) == 1:
            return self.f(states[0])[None]
        if self.together:
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", UserWarning)  # slow fallbacks of vmap
                    return torch.func.vmap(self.f)(states)
            except Exception as error:  # one that is not of vmap comes again below
                self.together = False
                reason = (str(error).strip() or type(error).__name__).splitlines()[0][:120]
                self.notes.append(f"f takes one state at a time, vmap cannot batch it: {reason}")
        return torch.stack([self.f(state) for state in states])


def dtype_of(f: Callable[[Tensor], Tensor], state: Tensor) -> tuple[torch.dtype, list[str]]:
    """Return the dtype to compute in, and what there is to say of it.

    Raises
    ------
    InputError
        If the state is no tensor of finite real numbers, or ``f`` does not keep shape and dtype.
    """
    if not isinstance(state, Tensor) or state.is_complex() or state.dtype == torch.bool:
        check_state(state)
    notes: list[str] = []
    wanted = state.dtype if state.is_floating_point() else torch.get_default_dtype()
    if wanted in _HALF:
        try:  # rounding in half precision hides the derivative
            value = _value(f, state.to(torch.float32))
            wanted = value.dtype
        except RuntimeError:
            value = _value(f, state)
            notes.append(f"f takes no other dtype than {wanted}: its derivatives are as coarse")
    else:
        value = _value(f, state.to(wanted))
    check_state(state.to(wanted))
    if value.dtype != wanted:
        wanted, seen = value.dtype, wanted
        is_real = wanted.is_floating_point and wanted not in _HALF
        if not is_real or _value(f, state.to(wanted)).dtype != wanted:
            raise InputError(
                f"f turns a state of {seen} into {wanted}: it must return the dtype that it is "
                "given"
            )
    if wanted != state.dtype:
        notes.append(f"the start of {state.dtype} was taken in {wanted}")
    return wanted, notes


@torch.no_grad()
def _value(f: Callable[[Tensor], Tensor], state: Tensor) -> Tensor:
    """Return f of a state, of the shape that it is given."""
    value = f(state.clone())  # it may write into what it is given
    if not isinstance(value, Tensor) or value.shape != state.shape:
        seen = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise InputError(
            f"f must return a tensor of the shape that it is given, {tuple(state.shape)}; got "
            f"{seen}"
        )
    return value


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
