"""The whole trajectory of a few prompts in memory, for a notebook cell.

For more than fits into memory there is :func:`looplens.record`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from looplens.errors import InputError
from looplens.loops.clock import FiringCounts
from looplens.models import InitialState, LoopedTransformer


@dataclass(frozen=True, kw_only=True, slots=True)
class Trace:
    """What one forward of a looped model went through.

    Attributes
    ----------
    token_ids : Int[Tensor, "batch pos"]
        What was run.
    states : Float[Tensor, "iteration+1 batch pos d_model"]
        The loop state; index 0 is the initial state, index ``t`` the state after iteration ``t``.
    layer_states : Float[Tensor, "iteration layer batch pos d_model"]
        ``hook_resid_post`` of every core layer; index 0 is iteration 1.
    logits : Float[Tensor, "iteration batch pos d_vocab"]
        The model's own readout after each iteration; index 0 is iteration 1.
    attention : Float[Tensor, "iteration layer batch head query key"] or None
        Attention patterns of the core layers, where asked for; index 0 is iteration 1.
    """

    token_ids: Int[Tensor, "batch pos"]
    states: Float[Tensor, "iteration_and_initial batch pos d_model"]
    layer_states: Float[Tensor, "iteration layer batch pos d_model"]
    logits: Float[Tensor, "iteration batch pos d_vocab"]
    attention: Float[Tensor, "iteration layer batch head query key"] | None = None

    @property
    def iterations(self) -> int:
        """Passes of the loop."""
        return len(self.logits)

    def trajectories(self, layer: int | None = None) -> np.ndarray:
        """Return trajectories in the axis order of :mod:`looplens.analysis`.

        Parameters
        ----------
        layer : int, optional
            A core layer; by default the loop state.

        Returns
        -------
        Float[ndarray, "batch pos iteration d_model"]
            Iterations 0..T of the loop state, or 1..T of a layer.
        """
        source = self.states if layer is None else self.layer_states[:, layer]
        return source.movedim(0, -2).float().cpu().numpy()


@torch.no_grad()
def trace(
    model: LoopedTransformer,
    input_ids: Int[Tensor, "batch pos"] | Sequence[int] | str,
    iterations: int | None = None,
    initial_state: str | int | InitialState | Tensor | None = None,
    attention: bool = False,
) -> Trace:
    """Run a looped model and keep every state of every pass in memory.

    Parameters
    ----------
    model : LoopedTransformer
        The model.
    input_ids : Int[Tensor, "batch pos"], sequence of int, or str
        Token ids, or text where the model has a tokenizer.
    iterations : int, optional
        Passes of the loop; by default the model's recommended depth.
    initial_state : optional
        ``None`` for the model's own start, a seed, a scheme name, or the state itself: see
        :meth:`LoopedTransformer.initial_state`. Restart ``r`` of a recorded run starts from
        ``initial_state=run.restart_seeds[r]``.
    attention : bool
        Keep attention patterns too; the softmax is then written out instead of fused.

    Returns
    -------
    Trace
        Tensors on the model's device.

    Raises
    ------
    InputError
        On token ids outside the vocabulary, empty prompts, ``iterations`` below 1, or an initial
        state that does not fit.

    Examples
    --------
    >>> import looplens as ll
    >>> model = ll.load_model("affine-huginn-mini")
    >>> ll.trace(model, "3+4*2", iterations=8).states.shape[0]
    9
    """
    if not isinstance(model, LoopedTransformer):
        raise InputError(
            f"expected a LoopedTransformer (see looplens.load_model), got {type(model).__name__}"
        )
    count = model.check_iterations(iterations)
    ids = model.to_tokens(input_ids)
    layers = model.cfg.n_core
    kept: dict[str, list[Tensor]] = {}
    fired = FiringCounts()

    def keep(value: Tensor, hook: Any) -> None:
        fired.fired(hook.name)
        kept.setdefault(hook.name, []).append(value)

    resid = [f"core.{layer}.hook_resid_post" for layer in range(layers)]
    pattern = [f"core.{layer}.attn.hook_pattern" for layer in range(layers)]
    sites = resid + pattern if attention else resid
    logits = []
    with model.hooks(fwd_hooks=[(site, keep) for site in sites]), model.clock.forward(count):
        embedding = model.token_embedding(ids)
        injected = model.run_prelude(embedding)
        start = model.initial_state(injected, initial_state, embedding=embedding)
        states = [start]
        for t, state in enumerate(model.iterate(start, injected, count), start=1):
            states.append(state)
            with model.clock.at(t):
                logits.append(model.readout(state))
    fired.check(dict.fromkeys(sites, count))

    def stack(names: list[str]) -> Tensor:
        return torch.stack([torch.stack(kept[name]) for name in names], dim=1)

    return Trace(
        token_ids=ids,
        states=torch.stack(states),
        layer_states=stack(resid),
        logits=torch.stack(logits),
        attention=stack(pattern) if attention else None,
    )
