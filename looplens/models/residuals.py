"""The residual stream at the last token after every layer: what a span to loop is chosen from.

It collects and nothing more; :func:`looplens.analysis.choose_loop_span` measures.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from looplens.errors import InputError
from looplens.models.layer_list import find_layer_list
from looplens.models.looped import LoopedTransformer
from looplens.models.looped_layers import LoopedLayers
from looplens.models.repeating import stream_of


@torch.no_grad()
def last_token_residuals(
    model: nn.Module,
    batches: Iterable[Tensor | Mapping[str, Tensor]],
    *,
    iterations: int | None = None,
) -> np.ndarray:
    """Run prompts and keep the stream of their last token before and after every layer.

    Parameters
    ----------
    model : Module
        An ordinary causal language model, one that :func:`~looplens.models.looping.loop_layers`
        loops, or a LoopedTransformer.
    batches : iterable
        Token ids (batch, position), or what the model is called with by name: ``input_ids`` and
        ``attention_mask``. Where a mask is given, the last token is the last one that it keeps.
    iterations : int, optional
        Passes of the loop; only for models that have one.

    Returns
    -------
    ndarray of float32, shape (prompt, layer + 1, d_model)
        Entry 0 is the stream that enters the first layer, entry ``l + 1`` what layer ``l`` leaves,
        before any final norm. A layer that runs several times counts as often as it runs.

    Raises
    ------
    InputError
        If there is no batch, or the model has no list of layers.

    References
    ----------
    Koishekenov et al., arXiv:2510.07358: angular distances are taken at the last token only.
    """
    layers = _layers_of(model)
    options = {} if iterations is None else {"iterations": iterations}
    device = next(model.parameters()).device
    collected = []
    for batch in batches:
        inputs = {"input_ids": batch} if isinstance(batch, Tensor) else dict(batch)
        inputs = {name: value.to(device) for name, value in inputs.items()}
        last = _last_positions(inputs["input_ids"], inputs.get("attention_mask"))
        with _streams(layers, last) as streams:
            if isinstance(model, LoopedTransformer):
                model(inputs.pop("input_ids"), **inputs, **options)
            else:
                model(**inputs, **options)
        collected.append(torch.stack(streams, dim=1).float().cpu().numpy())
    if not collected:
        raise InputError("residuals need at least one batch of prompts, got none")
    return np.concatenate(collected)


def _layers_of(model: nn.Module) -> list[nn.Module]:
    if isinstance(model, LoopedTransformer):
        return [*model.prelude, *model.core, *model.coda]
    inner = model.model if isinstance(model, LoopedLayers) else model
    layers = find_layer_list(inner).layers
    return [layers[number] for number in range(len(layers))]


def _last_positions(ids: Tensor, mask: Tensor | None) -> Tensor:
    """Return the position of the last token of every prompt, shape (batch,)."""
    positions = torch.arange(ids.shape[1], device=ids.device).expand(ids.shape)
    return positions.masked_fill(mask == 0, -1).amax(1) if mask is not None else positions[:, -1]


@contextmanager
def _streams(layers: list[nn.Module], last: Tensor) -> Iterator[list[Tensor]]:
    """Collect the stream at some positions whenever a layer runs."""
    streams: list[Tensor] = []
    rows = torch.arange(len(last), device=last.device)

    def enter(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if not streams:  # only the first time that a layer runs at all
            entered = kwargs["hidden_states"] if "hidden_states" in kwargs else args[0]
            streams.append(entered[rows, last])

    def leave(_: nn.Module, __: Any, answer: Any) -> None:
        streams.append(stream_of(answer)[rows, last])

    with ExitStack() as hooks:
        for layer in layers:
            entering = layer.register_forward_pre_hook(enter, with_kwargs=True)
            hooks.callback(entering.remove)
            hooks.callback(layer.register_forward_hook(leave).remove)
        yield streams
