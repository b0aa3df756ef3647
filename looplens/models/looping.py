"""Looping what was not looped: a span of layers of an ordinary language model, run several times.

This is the door; :mod:`looplens.models.looped_layers` holds the looped model, and
:mod:`looplens.models.residuals` collects what a span is chosen from.
"""

from __future__ import annotations

from torch import nn

from looplens.models.looped_layers import LoopedLayers, LoopMode
from looplens.models.residuals import last_token_residuals

__all__ = ["LoopMode", "LoopedLayers", "last_token_residuals", "loop_layers"]


def loop_layers(
    model: nn.Module,
    start: int,
    stop: int,
    iterations: int,
    mode: LoopMode = "naive",
    *,
    anchor: float = 0.5,
) -> LoopedLayers:
    r"""Run layers ``start`` to ``stop - 1`` of a language model several times.

    With ``g`` one pass over these layers, ``h_0`` the stream that enters them and ``K`` the
    iterations, the rest of the model goes on with

    - ``naive``: :math:`h_K`, where :math:`h_t = g(h_{t-1})`. Over a middle span this is the
      recursion of Encode-Think-Decode [1]_, over all layers a :math:`k \otimes L` model [2]_;
    - ``residual``: :math:`h_K`, where :math:`h_t = h_{t-1} + (g(h_{t-1}) - h_{t-1}) / K`;
    - ``anchored``: :math:`\beta\, g(h_0) + (1 - \beta)\, h_K` with the residual :math:`h_K`, the
      form that needs no training [3]_.

    The model is changed in place, reversibly: names, weights and hooks of its layers stay, and
    ``unloop()`` or the end of a ``with`` block undoes it.

    Parameters
    ----------
    model : Module
        A Hugging Face causal language model (Llama, Mistral, Qwen2, Qwen3, OLMo-2, GPT-2, ...).
    start, stop : int
        First layer of the span, and the first after it.
    iterations : int
        Passes over the span, at least 1; ``looped.iterations`` can be set later.
    mode : {"naive", "residual", "anchored"}
        What is done with what a pass returns.
    anchor : float
        The share :math:`\beta` of the single pass in ``anchored``, from 0 to 1.

    Returns
    -------
    LoopedLayers
        A module that is called as the model is.

    Raises
    ------
    InputError
        If the mode is unknown, the span is empty or outside the model, the model has no list of
        layers or is looped already, or a key/value cache is passed in a call.

    Notes
    -----
    A key/value cache has no slot for a layer that runs again, so the cache is turned off, and
    passing one is an error. Every pass calls the layers as modules: hooks on them fire once a pass.
    ``naive`` with one iteration is the unlooped model to the last bit, and so are the other modes
    up to rounding.

    References
    ----------
    .. [1] Koishekenov et al., "Encode, Think, Decode", arXiv:2510.07358.
    .. [2] Saunshi et al., "Reasoning with Latent Thoughts", arXiv:2502.17416, section 2.
    .. [3] "Training-free looped transformers", arXiv:2605.23872: residual steps of size 1/K
       (K = 6), then half of the single pass.

    Examples
    --------
    >>> from transformers import LlamaConfig, LlamaForCausalLM
    >>> model = LlamaForCausalLM(LlamaConfig(
    ...     hidden_size=32, intermediate_size=48, num_hidden_layers=4, num_attention_heads=4,
    ...     num_key_value_heads=2, vocab_size=50))
    >>> import torch
    >>> with loop_layers(model, 1, 3, iterations=4) as looped:
    ...     looped(torch.tensor([[1, 2, 3]])).logits.shape
    torch.Size([1, 3, 50])
    """
    return LoopedLayers(model, start, stop, iterations, mode, anchor=anchor)
