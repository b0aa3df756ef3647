"""The whole trajectory of a few prompts in memory, for a notebook cell.

For more than fits into memory there is :func:`looplens.record`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from looplens.errors import SiteError
from looplens.loops.clock import FiringCounts
from looplens.models import InitialState, LoopedTransformer
from looplens.models.native import as_looped
from looplens.models.protocol import STATE, Listener, LoopedModel, Site, StartLike
from looplens.thinking import exit_distribution


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
        The model's own readout after each iteration; index 0 is iteration 1. ``d_vocab`` is 0 for a
        wrapped model without a readout.
    attention : Float[Tensor, "iteration layer batch head query key"] or None
        Attention patterns of the core layers, where asked for; index 0 is iteration 1.
    gate_logits : Float[Tensor, "iteration batch pos"] or None
        What the exit gate says of the state after each iteration, before the sigmoid, for models
        that have a gate.
    exit_pdf : Float[Tensor, "iteration batch pos"] or None
        Probability of leaving after each iteration that the gate implies; sums to 1.
    iterations_asked : int or None
        Iterations asked for; more than :attr:`iterations` where the model left the loop by itself.
    """

    token_ids: Int[Tensor, "batch pos"]
    states: Float[Tensor, "iteration_and_initial batch pos d_model"]
    layer_states: Float[Tensor, "iteration layer batch pos d_model"]
    logits: Float[Tensor, "iteration batch pos d_vocab"]
    attention: Float[Tensor, "iteration layer batch head query key"] | None = None
    gate_logits: Float[Tensor, "iteration batch pos"] | None = None
    exit_pdf: Float[Tensor, "iteration batch pos"] | None = None
    iterations_asked: int | None = None

    @property
    def iterations(self) -> int:
        """Passes of the loop that ran."""
        return len(self.logits)

    @property
    def exited_early(self) -> bool:
        """Whether the model left the loop by itself."""
        return self.iterations_asked is not None and self.iterations < self.iterations_asked

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
    model: LoopedTransformer | LoopedModel,
    input_ids: Int[Tensor, "batch pos"] | Sequence[int] | str,
    iterations: int | None = None,
    initial_state: str | int | InitialState | Tensor | None = None,
    attention: bool = False,
    attention_mask: Bool[Tensor, "batch pos"] | None = None,
) -> Trace:
    """Run a looped model and keep every state of every pass in memory.

    Parameters
    ----------
    model : LoopedTransformer or LoopedModel
        The model: our own, or any module in :func:`looplens.wrap`.
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
    attention_mask : Bool[Tensor, "batch pos"], optional
        True (or 1) at real tokens, where prompts of different lengths are padded; real tokens
        then go through the states that they go through without padding.

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
    looped = as_looped(model)
    asked = looped.check_iterations(iterations)
    ids = looped.to_tokens(input_ids)
    if attention and "pattern" not in looped.recordable:
        raise SiteError(f"{looped.model_name} does not offer attention patterns")
    start: StartLike | Tensor
    if isinstance(initial_state, Tensor):
        start = initial_state
    else:
        start = looped.parse_start(initial_state)
    kept: dict[Site, list[Tensor]] = {}
    fired = FiringCounts()

    def keep(site: Site) -> Listener:
        def copy(iteration: int, value: Tensor) -> None:
            if site.layer is not None:
                fired.fired(looped.hook_name(site.name, site.layer))
            # Code that is not ours may go on to write into the tensor.
            kept.setdefault(site, []).append(value.clone())

        return copy

    names = ["resid_post", "pattern"] if attention else ["resid_post"]
    sites = [Site(name, layer) for name in names for layer in range(looped.n_layers)]
    listen = {site: keep(site) for site in [STATE, *sites]}
    with looped.padded(attention_mask):
        ran = looped.run_loop(ids, (start,), asked, listen)
        states = kept[STATE]
        logits = [looped.readout(state, t, asked) for t, state in enumerate(states[1:], start=1)]
    fired.check({looped.hook_name(site.name, site.layer or 0): ran for site in sites})
    gates = [gate for state in states[1:] if (gate := looped.gate(state)) is not None]
    gate_logits = torch.stack(gates) if gates else None

    def stack(name: str) -> Tensor:
        layers = [torch.stack(kept[Site(name, layer)]) for layer in range(looped.n_layers)]
        return torch.stack(layers, dim=1)

    return Trace(
        token_ids=ids,
        states=torch.stack(states),
        layer_states=stack("resid_post"),
        logits=torch.stack(logits),
        attention=stack("pattern") if attention else None,
        gate_logits=gate_logits,
        exit_pdf=None if gate_logits is None else exit_distribution(gate_logits),
        iterations_asked=asked,
    )
