"""How others keep the same states: every ``resid_post`` of a looped model, in float32, in a file.

Each is called with a model, tokens, a number of iterations and a file, as its documentation does
it. All keep everything in memory until the forward is over.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

import nnsight
import numpy as np
import torch
from torch import Tensor
from transformer_lens import HookedRootModule

from looplens.models import LoopedTransformer


@torch.no_grad()
def torch_hooks(model: LoopedTransformer, tokens: Tensor, iterations: int, file: Path) -> None:
    """PyTorch's forward hooks, then ``np.save``."""
    kept: list[list[Tensor]] = [[] for _ in model.core]
    with contextlib.ExitStack() as stack:
        for block, states in zip(model.core, kept, strict=True):

            def keep(_: object, __: object, out: Tensor, states: list[Tensor] = states) -> None:
                states.append(out)

            stack.callback(block.register_forward_hook(keep).remove)
        model(tokens, iterations=iterations)
    np.save(file, torch.stack([torch.stack(states) for states in kept]).numpy())


@torch.no_grad()
def transformer_lens(model: LoopedTransformer, tokens: Tensor, iterations: int, file: Path) -> None:
    """Hooks of TransformerLens, then ``torch.save``.

    Its ``run_with_cache`` keeps one activation a site, that of the last pass, so hooks it is.
    """
    kept: dict[str, list[Tensor]] = {}

    def keep(value: Tensor, hook: object) -> None:
        kept.setdefault(hook.name, []).append(value)  # type: ignore[attr-defined]

    names = [f"core.{layer}.hook_resid_post" for layer in range(len(model.core))]
    with HookedRootModule.hooks(model, fwd_hooks=[(name, keep) for name in names]):
        model(tokens, iterations=iterations)
    torch.save(kept, file)


class Nnsight:
    """``tracer.cache`` of nnsight, then ``torch.save``.

    Parameters
    ----------
    model : LoopedTransformer
        A model of its own: once wrapped, it stays instrumented.
    """

    def __init__(self, model: LoopedTransformer) -> None:
        self.model = nnsight.NNsight(model)
        self.layers = len(model.core)

    @torch.no_grad()
    def __call__(self, tokens: Tensor, iterations: int, file: Path) -> None:
        """Run the model and write."""
        with self.model.trace(tokens, iterations=iterations) as tracer:
            cache = tracer.cache(modules=list(self.model.core)).save()
        kept = [cache[layer.path].output for layer in self.model.core]
        if [len(states) for states in kept] != [iterations] * self.layers:
            raise RuntimeError("nnsight kept another number of passes than were run")
        torch.save(kept, file)
