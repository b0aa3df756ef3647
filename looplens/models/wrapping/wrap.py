"""``looplens.wrap``: take a looped module as it is, and check the declaration on a short run."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from looplens.errors import InputError
from looplens.loops.spec import LoopSpec
from looplens.models.protocol import STATE, Listener, Site
from looplens.models.wrapping.presets import preset
from looplens.models.wrapping.sizes import Sizes
from looplens.models.wrapping.starts import OwnStart
from looplens.models.wrapping.taps import logits_of
from looplens.models.wrapping.tokens import as_tokenizer
from looplens.models.wrapping.wrapped import WrappedModel

PROBE_TOKENS = 3


def wrap(
    module: nn.Module,
    loop: LoopSpec | None = None,
    *,
    name: str | None = None,
    tokenizer: Any = None,
    d_vocab: int | None = None,
    d_model: int | None = None,
    n_ctx: int | None = None,
) -> WrappedModel:
    """Make a looped module that looplens did not write look like one that it did.

    The declaration is tried out on a run over three tokens: every declared module must fire as
    often as declared, and the readout of the last state must be the module's own logits.

    Parameters
    ----------
    module : nn.Module
        The module, called with token ids (batch, pos).
    loop : LoopSpec, optional
        Where it loops; by default a preset for the module, where there is one (see
        :mod:`looplens.models.wrapping.presets`).
    name : str, optional
        What it is called in runs and reports; by default the name of its class.
    tokenizer : optional
        A Hugging Face tokenizer, or anything with ``encode``, ``token_text`` and ``d_vocab``.
        Needed only to pass text.
    d_vocab, d_model, n_ctx : int, optional
        Size of the vocabulary, width of the state and longest sequence, where the module's
        configuration does not say.

    Returns
    -------
    WrappedModel
        For :func:`looplens.trace`, :func:`looplens.record` and everything behind them.

    Raises
    ------
    InputError
        If there is no preset, the vocabulary is not known, or the readout gives other logits.
    SiteError
        If a declared module does not exist or does not fire as declared.

    Examples
    --------
    >>> import looplens as ll
    >>> spec = ll.LoopSpec(
    ...     loop=ll.Loop("step", 8),
    ...     layers=["block"],
    ...     iterations="steps",
    ...     readout="head",
    ... )
    >>> model = ll.wrap(module, loop=spec)  # doctest: +SKIP
    """
    if not isinstance(module, nn.Module):
        raise InputError(f"expected a torch.nn.Module to wrap, got {type(module).__name__}")
    if loop is not None and not isinstance(loop, LoopSpec):
        raise InputError(
            f"loop must be a LoopSpec, got {type(loop).__name__}: write "
            "LoopSpec(loop=Loop('step', 8), layers=[...])"
        )
    spec = preset(module) if loop is None else loop
    sizes = Sizes.of(module, d_vocab=d_vocab, d_model=d_model, n_ctx=n_ctx)
    found = as_tokenizer(tokenizer if tokenizer is not None else getattr(module, "tokenizer", None))
    own_name = type(getattr(module, "original_model", module)).__name__  # inside a bridge
    model = WrappedModel(module, spec, sizes, name or own_name, found)
    _try_out(model)
    return model


@torch.no_grad()
def _try_out(model: WrappedModel) -> None:
    """Run three tokens, learn the width of the state, and compare the readout with the logits."""
    length = min(PROBE_TOKENS, model.n_ctx or PROBE_TOKENS)
    ids = torch.full((1, length), min(1, model.d_vocab - 1), device=model.device)
    schedule, declared = model.schedule, model.spec.loop.count
    # Another depth than declared, so that a setting which the module ignores is found out.
    outer = declared if not model.can_set_depth else (2 if declared != 2 else 3)
    states: dict[int, Tensor] = {}
    patterns: list[Tensor] = []
    listen: dict[Site, Listener] = {STATE: lambda t, state: states.update({t: state.clone()})}
    if "pattern" in model.recordable:
        listen[Site("pattern", 0)] = lambda t, pattern: patterns.append(pattern)
    start = model.parse_start(None)
    given = None
    if not isinstance(start, OwnStart):
        if model.sizes.d_model is None:
            raise InputError(
                "the width of the state is not known before the first run, but the declared start "
                "must be made: pass d_model="
            )
        given = model.given(ids, (start,))
    ran, output = model.forward.run(ids, given, outer * schedule.per_outer_pass, listen)
    _check_states(model, states, ran, ids)
    model.sizes.d_model = states[ran].shape[-1]
    if patterns:
        model.sizes.n_heads = patterns[0].shape[1]
    if model.spec.readout is not None:
        _check_readout(model, states[ran], ran, output)


def _check_states(model: WrappedModel, states: dict[int, Tensor], ran: int, ids: Tensor) -> None:
    for t in (0, ran):
        shape = tuple(states[t].shape)
        if len(shape) != 3 or shape[:2] != tuple(ids.shape):
            raise InputError(
                f"the state of iteration {t} has the shape {shape}, but a state is (batch, pos, "
                f"d_model), here ({ids.shape[0]}, {ids.shape[1]}, d_model): declare state= and "
                "start= at places with such a tensor"
            )
    if states[0].shape != states[ran].shape:
        raise InputError(
            f"the initial state has the width {states[0].shape[-1]}, the states after it "
            f"{states[ran].shape[-1]}: declare start= where the state itself can be seen"
        )


def _check_readout(model: WrappedModel, state: Tensor, ran: int, output: Any) -> None:
    said = model.readout(state, ran, ran)
    own = logits_of(output)
    if own is None or own.shape != said.shape:
        seen = "no tensor" if own is None else f"a tensor of shape {tuple(own.shape)}"
        raise InputError(
            f"the readout gives logits of shape {tuple(said.shape)}, but the module returned {seen}"
        )
    if said.shape[-1] < model.d_vocab:
        raise InputError(
            f"the readout gives {said.shape[-1]} logits for a vocabulary of {model.d_vocab}"
        )
    model.sizes.d_vocab = max(model.d_vocab, said.shape[-1])
    if model.spec.gate is not None:
        return  # such a module may answer from an earlier step than the last
    error = float((said - own.float()).abs().max())
    allowed = 50 * torch.finfo(model.dtype).eps * max(1.0, float(own.abs().max())) * 20
    if not error <= allowed:
        raise InputError(
            f"the readout of the last state differs from the module's own logits by {error:.3g} "
            f"(allowed {allowed:.1g}): declare in readout= everything between state and logits, "
            "and in state= the place that the module itself reads out"
        )
