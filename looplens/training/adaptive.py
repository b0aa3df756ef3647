"""Training of models whose layers loop by themselves: their recipe, and how they use their loops.

The loop of such a model is inside its layers, so there is one answer and no count of passes to
choose; the loss reaches the halting router through the weighted sum of states. The rest of training
(data, optimiser, resuming, cards) is that of every other recipe.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from looplens.models import AdaptiveConfig, AdaptiveTransformer
from looplens.models.health.numbers import masked_loss
from looplens.models.hook_point import HookPoint
from looplens.training.factories import label, recipe_of
from looplens.training.recipe import Recipe

TINY = 1e-12


def frey(
    task: str,
    *,
    layers: int = 3,
    max_steps: int = 3,
    local_slots: int = 64,
    global_slots: int = 32,
    d_model: int = 64,
    n_heads: int = 4,
    n_ctx: int | None = None,
    model: dict[str, Any] | None = None,
    **settings: Any,
) -> Recipe:
    """Return a recipe whose layers loop by themselves, halt by a router and read memory.

    Parameters
    ----------
    task : str
        A name that :func:`looplens.tasks.get_task` knows.
    layers, max_steps : int
        Layers, and how often each may run; 1 for no loops.
    local_slots, global_slots : int
        Memory of each layer, and of all together; 0 for none.
    d_model, n_heads, n_ctx : int
        Sizes, as in :func:`~looplens.training.k_by_l`.
    model : dict, optional
        Other fields of :class:`~looplens.models.AdaptiveConfig`.
    **settings
        Fields of :class:`Recipe`. By default 1000 steps, one stage at the task's own length and
        difficulties, and a name from the task and the sizes.

    Notes
    -----
    The step scales start at softplus(0). From softplus(-7), as in the paper, they would need
    thousands of steps to leave the identity: ``model={"scale_start": -7.0}``. There is no penalty
    on steps, as in the paper's main runs.

    References
    ----------
    Frey et al., arXiv:2603.08391 (12 layers, 3, 5 or 7 steps, 1024 and 512 slots).
    """
    fields = {
        "n_layers": layers,
        "max_steps": max_steps,
        "local_slots": local_slots,
        "global_slots": global_slots,
        "scale_start": 0.0,
        **(model or {}),
    }
    settings = {
        "name": f"{label(task)}-frey-{layers}x{max_steps}",
        "summary": f"{layers} layers of up to {max_steps} steps each, with gated memory.",
        **settings,
    }
    return recipe_of(task, d_model, n_heads, n_ctx, fields, settings, kind=AdaptiveConfig)


@dataclass(frozen=True, kw_only=True, slots=True)
class Usage:
    """How much each layer loops and reads its memory, mean over answered positions.

    Attributes
    ----------
    expected_steps : ndarray, shape (layer,)
        Steps under the halting distribution, from 1 to ``max_steps``.
    halting_entropy : ndarray, shape (layer,)
        Entropy of that distribution, in nats.
    memory : ndarray, shape (layer,)
        Length of what the banks add in a step over the length of the state it is added to, steps
        weighted by the probability of halting there; 0 without banks.
    ponder_cost : float
        Expected steps beyond the first, as a share of those allowed, mean over layers; 0 where
        there is but one.
    loss, accuracy : float
        Cross-entropy in nats and share of right answers.
    """

    expected_steps: np.ndarray
    halting_entropy: np.ndarray
    memory: np.ndarray
    ponder_cost: float
    loss: float
    accuracy: float

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        values = asdict(self)
        return {
            name: value.round(6).tolist() if isinstance(value, np.ndarray) else value
            for name, value in values.items()
        }


@torch.no_grad()
def adaptive_usage(model: AdaptiveTransformer, tokens: Tensor, targets: Tensor) -> Usage:
    """Measure how a model spends its steps and its memory on one batch.

    Parameters
    ----------
    model : AdaptiveTransformer
        The model.
    tokens, targets : Tensor of int64, shape (batch, position)
        The batch; only positions with a target (not -1) count.

    References
    ----------
    Frey et al., arXiv:2603.08391: early layers loop little and read memory little, later ones do
    both. The measures are ours; the paper's were not at hand.
    """
    added: dict[int, list[Tensor]] = {number: [] for number in range(model.cfg.n_layers)}

    def keep(value: Tensor, hook: HookPoint) -> None:
        parts = str(hook.name).split(".")  # layers.<number>.mem_gates.<bank>.hook_memory
        added[int(parts[1])].append(value)

    banks = bool(model.cfg.local_slots) + bool(model.cfg.global_slots)
    with model.hooks(fwd_hooks=[("layers.*.mem_gates.*.hook_memory", keep)] if banks else []):
        trace = model.trace(tokens)
    answered = targets >= 0
    halting = trace.halting[:, :, answered].double()  # [layer, step, answered]
    entropy = -(halting * halting.clamp(min=TINY).log()).sum(1)
    loss, accuracy = masked_loss(trace.logits, targets)
    memory = torch.zeros(model.cfg.n_layers, dtype=torch.float64)
    if banks:
        for number, values in added.items():
            # one entry a step and bank, banks of a step side by side
            read = torch.stack(values).unflatten(0, (-1, banks)).sum(1)[:, answered].double()
            state = trace.states[number, :-1][:, answered].double()
            share = read.norm(dim=-1) / state.norm(dim=-1).clamp(min=TINY)
            memory[number] = (halting[number] * share).sum(0).mean()
    steps = trace.expected_steps[:, answered].double().mean(-1)
    return Usage(
        expected_steps=steps.cpu().numpy(),
        halting_entropy=entropy.mean(-1).cpu().numpy(),
        memory=memory.numpy(),
        ponder_cost=float((steps - 1).mean() / max(model.cfg.max_steps - 1, 1)),
        loss=float(loss),
        accuracy=float(accuracy),
    )
