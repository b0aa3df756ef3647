"""Settings of a module that hold for one run: how deep it loops, how it writes attention out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import reduce
from typing import Any

from torch import nn

from looplens.errors import InputError
from looplens.loops.spec import LoopSpec


@contextmanager
def depth(module: nn.Module, spec: LoopSpec, outer: int) -> Iterator[dict[str, Any]]:
    """Have the outermost loop run so often; gives the keywords that the call needs for it.

    Raises
    ------
    InputError
        If the declared attribute does not exist.
    """
    keywords = {spec.iterations_keyword: outer} if spec.iterations_keyword else {}
    if spec.iterations is None:
        yield keywords
    elif callable(spec.iterations):
        done = spec.iterations(module, outer)
        if hasattr(done, "__enter__"):
            with done:
                yield keywords
        else:
            yield keywords
    else:
        path, _, name = spec.iterations.rpartition(".")
        try:
            owner = reduce(getattr, path.split("."), module) if path else module
            before = getattr(owner, name)
        except AttributeError:
            raise InputError(
                f"iterations={spec.iterations!r} is no attribute of {type(module).__name__}: "
                "name the attribute that holds the count of the outermost loop"
            ) from None
        setattr(owner, name, outer)
        try:
            yield keywords
        finally:
            setattr(owner, name, before)


@contextmanager
def written_out_attention(module: nn.Module) -> Iterator[None]:
    """Have a Hugging Face model compute attention patterns, which fused kernels never form."""
    config = getattr(module, "config", None)
    before = getattr(config, "_attn_implementation", None)
    if before in (None, "eager") or not hasattr(module, "set_attn_implementation"):
        yield
        return
    module.set_attn_implementation("eager")  # type: ignore[operator]
    try:
        yield
    finally:
        module.set_attn_implementation(before)  # type: ignore[operator]
