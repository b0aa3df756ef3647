"""A hook point that costs next to nothing while nobody listens."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformer_lens import hook_points


class HookPoint(hook_points.HookPoint):
    """TransformerLens' hook point, which hands its value through at once while it has no hooks.

    A layer passes eleven of them. Calling a module costs PyTorch's whole way to ``forward``, more
    than the arithmetic of a narrow model on a short prompt can hide. Hooks that are registered
    globally, for all modules, are not called here while there are no others.
    """

    @property
    def is_heard(self) -> bool:
        """Whether a forward hook listens."""
        return bool(self._forward_hooks or self._forward_pre_hooks)

    def __call__(self, value: Tensor) -> Any:
        """Return the value, or what the hooks made of it."""
        if (
            self._forward_hooks
            or self._backward_hooks
            or self._forward_pre_hooks
            or self._backward_pre_hooks
        ):
            return super().__call__(value)
        return value
