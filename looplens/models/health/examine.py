"""The health of a loop on one batch: does it collapse, is it used, do its states grow.

It runs the model, takes the numbers of :mod:`looplens.models.health.numbers` after every iteration
and holds them against :mod:`looplens.models.health.signs`. It records nothing and knows no family.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from looplens.errors import InputError
from looplens.models.health.numbers import masked_loss, mean_kl
from looplens.models.health.report import Health, judge
from looplens.models.health.watch import Watch
from looplens.models.layer_list import find_layer_list
from looplens.models.looped import LoopedTransformer
from looplens.models.looped_layers import LoopedLayers
from looplens.models.native import as_looped
from looplens.models.protocol import STATE, LoopedModel
from looplens.models.weight_cosine import WeightCosine, weight_cosine

_CHANGE = 1e-2  # of the start, relative to the larger of its norm and that of the first state


@torch.no_grad()
def health(
    model: Any,
    batch: Any,
    *,
    targets: Tensor | None = None,
    iterations: int | None = None,
    initial_state: Any = None,
    seed: int = 0,
    block: int | None = None,
) -> Health:
    """Examine the loop of a model on one batch.

    Parameters
    ----------
    model : LoopedTransformer, wrapped model, LoopedLayers or Module
        A looped model; of an ordinary causal language model only the weights are compared.
    batch : Tensor, str, sequence or mapping
        Token ids (batch, position) of sequences of one length, whatever else the model reads as
        tokens, or anything with ``tokens`` (or ``input_ids``) and perhaps ``targets``.
    targets : Tensor of int64, shape (batch, position), optional
        The token to predict at each position, -1 for none. With targets losses are compared,
        without them the predictions themselves.
    iterations : int, optional
        At least 2; by default as many as the model uses by itself.
    initial_state, seed : optional
        As in :func:`looplens.trace`.
    block : int, optional
        Layers of a block for the cosine of weights: by default the length of the loop, and for an
        ordinary model the length at which the cosine is highest.

    Returns
    -------
    Health
        Numbers by iteration, and the signs with their thresholds and sources; ``print`` it.

    Raises
    ------
    InputError
        If there are fewer than 2 iterations, the targets do not fit the tokens or name none, or
        the model is neither looped nor a causal language model.

    References
    ----------
    Geiping et al., arXiv:2502.05171, section 4.3: the two failed runs of Huginn (states of all
    tokens alike; a loss that does not depend on the iterations). Sharma and Vu, arXiv:2606.24898:
    norm growth and radial steps. Saunshi et al., arXiv:2502.17416, figure 5: cosine of weights.

    Examples
    --------
    >>> import looplens
    >>> model = looplens.load_model("affine-huginn-mini")
    >>> report = health(model, torch.tensor([[3, 1, 4, 1, 5, 2]]))
    >>> report.token_correlation.shape == (report.iterations + 1,)
    True
    """
    tokens, targets = _read(batch, targets)
    weights, block, notes = _weights(model, block)
    watch, numbers = Watch(), {}
    name = str(getattr(model, "model_name", type(model).__name__))
    if isinstance(model, LoopedLayers):
        ids = torch.as_tensor(tokens, device=next(model.parameters()).device)
        ids = ids[None] if ids.ndim == 1 else ids
        numbers = _of_looped_layers(model, ids, targets, _count(model, iterations), watch)
        name = f"{type(model.model).__name__}, layers {model.start} to {model.stop - 1} looped"
        notes.append("sensitivity is not measured: the loop starts from the layers before it")
    elif _is_ordinary(model):
        notes.append("the model has no loop: only its weights are compared")
    else:
        loop = as_looped(model)
        ids = loop.to_tokens(tokens)
        count = _count(loop, iterations)
        start = loop.parse_start(initial_state, seed=seed)
        numbers = _of_loop(loop, ids, targets, count, start, seed, watch, notes)
    return judge(
        name=name, watch=watch, weights=weights, block=block, notes=tuple(notes), **numbers
    )


def _read(batch: Any, targets: Tensor | None) -> tuple[Any, Tensor | None]:
    """Take tokens and targets out of what was passed."""
    if isinstance(batch, Mapping):
        mask = batch.get("attention_mask")
        if mask is not None and not torch.as_tensor(mask).all():
            raise InputError("health needs sequences of one length: this batch is padded")
        tokens = batch.get("tokens", batch.get("input_ids"))
        found = batch.get("targets")
        if tokens is None:
            raise InputError(f"expected 'tokens' or 'input_ids' in the batch, got {list(batch)}")
    elif hasattr(batch, "tokens"):
        tokens, found = batch.tokens, getattr(batch, "targets", None)
    else:
        tokens, found = batch, None
    targets = found if targets is None else targets
    return tokens, None if targets is None else torch.as_tensor(targets)


def _is_ordinary(model: Any) -> bool:
    """Tell a language model without a loop from everything that has one, or is neither."""
    if not isinstance(model, nn.Module) or isinstance(model, LoopedTransformer | LoopedModel):
        return False
    try:
        find_layer_list(model)
    except InputError:
        return False
    return True


def _count(model: Any, iterations: int | None) -> int:
    default = model.iterations if isinstance(model, LoopedLayers) else model.check_iterations(None)
    count = default if iterations is None else iterations
    if not isinstance(count, int) or count < 2:
        raise InputError(f"the health of a loop shows from 2 iterations on, got {count}")
    return count


def _of_loop(
    loop: LoopedModel,
    ids: Tensor,
    targets: Tensor | None,
    count: int,
    start: Any,
    seed: int,
    watch: Watch,
    notes: list[str],
) -> dict[str, float]:
    """Run the loop from its start and from a start beside it."""
    kept: dict[int, Tensor] = {}
    loop.run_loop(ids, [start], 1, {STATE: lambda t, state: kept.update({t: state.clone()})})
    size = torch.maximum(*(kept[t].float().norm(dim=-1, keepdim=True) for t in (0, 1)))
    draw = torch.Generator().manual_seed(seed)
    change = torch.randn(kept[0].shape, generator=draw).to(kept[0].device)
    change = change / change.norm(dim=-1, keepdim=True) * size * _CHANGE
    beside = (kept[0] + change).to(kept[0].dtype)
    try:
        ran = loop.run_loop(ids, [kept[0], beside], count, {STATE: watch.pair})
    except InputError as refusal:
        notes.append(f"sensitivity is not measured: {refusal}")
        watch.clear()
        ran = loop.run_loop(ids, [start], count, {STATE: watch})
    if ran < count:
        notes.append(f"the model left its loop after {ran} of {count} iterations")
    if not loop.has_readout or watch.first is None or watch.last is None:
        notes.append("the use of the iterations is not measured: the model has no readout")
        return {}
    return _readouts(loop.readout(watch.first, 1, ran), loop.readout(watch.last, ran, ran), targets)


def _of_looped_layers(
    model: LoopedLayers, ids: Tensor, targets: Tensor | None, count: int, watch: Watch
) -> dict[str, float]:
    for t, state in enumerate(model.loop_states(ids, iterations=count)):
        watch(t, state)
    one, all_of_them = (model(ids, iterations=t).logits for t in (1, count))
    return _readouts(one, all_of_them, targets)


def _readouts(one: Tensor, last: Tensor, targets: Tensor | None) -> dict[str, float]:
    """Compare what is said after one iteration and after all."""
    numbers = {"readout_kl": float(mean_kl(last, one))}
    if targets is None:
        return numbers
    targets = targets.to(one.device)
    if targets.shape != one.shape[:2]:
        raise InputError(
            f"targets of shape {tuple(targets.shape)} do not fit tokens of shape "
            f"{tuple(one.shape[:2])}"
        )
    if not (targets >= 0).any():
        raise InputError("no position has a target: all of them are -1")
    losses = (float(masked_loss(logits.float(), targets)[0]) for logits in (one, last))
    return numbers | dict(zip(("loss_one_iteration", "loss"), losses, strict=True))


def _weights(model: Any, block: int | None) -> tuple[WeightCosine | None, int, list[str]]:
    """Compare the weights, and choose how many layers a block has."""
    if not isinstance(model, nn.Module):
        model = getattr(model, "module", None)  # what is wrapped
    if model is None:
        return None, 0, ["weights are not compared: this model shows none"]
    try:
        found = weight_cosine(model)
    except InputError as refusal:
        return None, 0, [f"weights are not compared: {refusal}"]
    if block is None and isinstance(model, LoopedTransformer):
        block = model.cfg.n_core
    elif block is None and isinstance(model, LoopedLayers):
        block = model.stop - model.start
    elif block is None:
        sizes = found.by_block()
        block = max(sizes, key=lambda size: sizes[size], default=0)
    else:
        found.one_block_apart(block)
    if not 1 <= block < len(found.layers):
        return None, 0, ["weights are not compared: all layers belong to one block"]
    return found, block, []
