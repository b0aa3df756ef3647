"""What is asked for, checked against the model and turned into the description of a run.

All of it happens before anything is written. Everything that the numbers depend on ends up in the
`RunSpec`, whose fingerprint decides whether a run can be gone on with.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from looplens.errors import InputError
from looplens.models import InitialState, LoopedTransformer
from looplens.models.inputs import whole_number
from looplens.models.native import as_looped
from looplens.models.protocol import LoopedModel
from looplens.prompts import Prompt
from looplens.recording.attention_kappa import attention_kappa
from looplens.recording.changing.applying import applied, check_interventions
from looplens.recording.changing.interventions import Intervention
from looplens.recording.early_exit import annotated, iterations_run
from looplens.recording.keeping.choices import (
    attention_prompts,
    has_exit_gate,
    readout_size,
    site_families,
    starts_of,
)
from looplens.recording.keeping.keep import IterationChoice, Keep, LayerChoice, TokenChoice
from looplens.recording.keeping.reductions import Projector, ReductionChoice, reduction_of, stand_in
from looplens.recording.prompts import PromptLike, as_prompts
from looplens.recording.streaming.hearing import CapturePlan
from looplens.recording.streaming.weights import weights_digest
from looplens.store import RunSpec
from looplens.store.format.reduction import Reduction
from looplens.store.format.schema import BLOCK_BYTES

FORWARD_BYTES = 128 * 2**20
FORWARD_TOKENS = 4096
LARGEST_VOCABULARY = 2**16


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """What the caller of :func:`looplens.record` wants of the numbers; see there."""

    prompts: PromptLike | Iterable[PromptLike]
    iterations: int | None = None
    restarts: int = 1
    sites: str | Sequence[str] = ("core.*.hook_resid_post",)
    attention: bool | int | Sequence[int] = False
    readout: bool | int = True
    initial_state: str | int | InitialState | None = None
    interventions: Intervention | Iterable[Intervention] = ()
    layers: LayerChoice = None
    keep_iterations: IterationChoice = "all"
    tokens: TokenChoice = "all"
    reduce: ReductionChoice = None
    dtype: str = "float32"
    batch_size: int | None = None
    block_tokens: int | None = None
    seed: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Recording:
    """A checked recording: the model, the run that will be written, and what to capture.

    Attributes
    ----------
    model : LoopedTransformer or LoopedModel
        As it was given; interventions are applied to it.
    looped : LoopedModel
        The same as recording sees it.
    spec : RunSpec
        The run.
    plan : CapturePlan
        What to keep of a forward.
    changes : list of Intervention
        What is changed in the loop while it runs.
    batch_size : int or None
        Most prompts in a forward, where the caller set it.
    """

    model: LoopedTransformer | LoopedModel
    looped: LoopedModel
    spec: RunSpec
    plan: CapturePlan
    changes: list[Intervention]
    batch_size: int | None

    @property
    def prompts(self) -> Sequence[Prompt]:
        """The prompts of the run."""
        return self.spec.prompts

    def fitting(self, length: int, attention: bool) -> int:
        """Return how many prompts of a length fit a forward.

        The kept numbers are not counted: they go straight to their buffers. What is left are
        logits, patterns, and states that a readout needs beyond those that are kept.
        """
        spec, rows = self.spec, length * self.spec.restarts
        held = 0
        if spec.readout_top_k:
            # The logits of this, the last and the previous pass, and their difference.
            held += 4 * 4 * self.looped.d_vocab * rows
            if not self.plan.whole_states or spec.token_positions is not None:
                held += 4 * spec.d_model * rows * (spec.iterations + 1)
        if attention:
            held += 4 * _pattern_numbers(spec, length)
        most = min(FORWARD_BYTES // held if held else rows, FORWARD_TOKENS // rows)
        return max(1, min(most, self.batch_size or most))


def prepare(
    model: LoopedTransformer | LoopedModel,
    request: Request,
    *,
    stored: Reduction | None = None,
    only_plan: bool = False,
) -> Recording:
    """Check a request against a model and describe the run that it makes.

    Parameters
    ----------
    model : LoopedTransformer or LoopedModel
        The model. One that exits early is run once, for the iterations of each prompt; so is one
        whose states are reduced by a PCA, on a few prompts.
    request : Request
        What is wanted.
    stored : Reduction, optional
        The one of the run that is gone on with.
    only_plan : bool
        Only sizes are asked for: fit no basis, and look at no weights.

    Raises
    ------
    InputError, SiteError
        If something that was asked for does not exist or does not fit.
    """
    looped = as_looped(model)
    asked = looped.check_iterations(request.iterations)
    prompts = as_prompts(request.prompts, looped)
    starts = starts_of(looped, request.initial_state, request.restarts, request.seed)
    families = site_families(looped, request.sites)
    top_k = readout_size(request.readout, looped)
    maps = attention_prompts(request.attention, len(prompts), looped)
    batch_size, block_tokens = request.batch_size, request.block_tokens
    if batch_size is not None:
        batch_size = whole_number(batch_size, "batch_size", least=1)
    if block_tokens is not None:
        block_tokens = whole_number(block_tokens, "block_tokens", least=1)
    described = looped.describe()
    if not only_plan and (digest := weights_digest(looped)) is not None:
        described = {**described, "weights_digest": digest}
    if maps and not only_plan and (kappa := attention_kappa(looped)) is not None:
        described = {**described, "attention_kappa": kappa}
    settings: dict[str, Any] = {"batch_size": batch_size, "initial_state_scale": starts[0].scale}
    changes = check_interventions(request.interventions, model, asked)
    if changes:
        settings["interventions"] = [change.describe() for change in changes]
    count = asked
    if looped.exits_early:
        with applied(model, changes):
            ran = iterations_run(looped, prompts, starts, asked)
        prompts, described, exit_settings = annotated(prompts, described, ran, asked)
        settings |= exit_settings
        count = int(ran.max())
        if ran.min() < count and str(request.keep_iterations).startswith(("last", "every")):
            raise InputError(
                f"keep_iterations={request.keep_iterations!r} counts back from the last iteration, "
                f"but the prompts leave the loop after {ran.min()} to {count}. Give the iterations "
                "themselves, such as keep_iterations=[1, 2, 4]."
            )
    keep = Keep(layers=request.layers, iterations=request.keep_iterations, tokens=request.tokens)
    kept = keep.resolve(looped, prompts, count)
    if only_plan:
        reduction = stand_in(request.reduce, looped.d_model)
    else:
        with applied(model, changes if request.reduce is not None else []):
            reduction = reduction_of(
                request.reduce,
                looped,
                prompts,
                starts,
                asked,
                sites=families,
                kept=kept,
                seed=request.seed,
                stored=stored,
            )
    spec = RunSpec(
        prompts=prompts,
        iterations=count,
        n_layers=looped.n_layers,
        d_model=looped.d_model,
        restarts=len(starts),
        restart_seeds=tuple(start.seed if start.is_random else None for start in starts),
        initial_state=starts[0].scheme,
        sites=families,
        n_heads=looped.n_heads,
        n_kv_heads=looped.n_kv_heads,
        d_head=looped.d_head,
        inject=looped.injects,
        attention_prompts=maps,
        readout_top_k=top_k,
        exit_gate=bool(top_k) and has_exit_gate(looped),
        dtype=request.dtype,
        source_dtype=str(looped.dtype).removeprefix("torch."),
        model=described,
        settings=settings | looped.loop_settings(count),
        vocabulary=_vocabulary(looped),
        seed=request.seed,
        reduction=reduction,
        block_tokens=block_tokens,
        **kept.options(),
    )
    if block_tokens is None:
        spec = replace(spec, block_tokens=block_size(spec, batch_size))
    projector = None if reduction is None else Projector(reduction, looped.device)
    plan = CapturePlan(
        iterations=count,
        asked=asked,
        starts=starts,
        sites=families,
        top_k=top_k,
        layers=spec.layout.recorded_layers,
        state_iterations=spec.layout.state_iterations,
        projector=projector,
    )
    return Recording(
        model=model,
        looped=looped,
        spec=spec,
        plan=plan,
        changes=list(changes),
        batch_size=batch_size,
    )


def block_size(spec: RunSpec, batch_size: int | None) -> int:
    """Return the tokens of a block of about 128 MiB, attention patterns included.

    A larger batch than fits is a block of its own size: so many prompts of the longest kind.
    """
    layout = spec.layout
    tokens = layout.block_tokens
    if spec.attention_prompts:
        states = sum(v.nbytes for v in layout.variables().values() if v.token_axis is not None)
        lengths = spec.recorded_lengths
        patterns = max(
            4 * _pattern_numbers(spec, len(spec.prompts[i])) / max(1, lengths[i])
            for i in spec.attention_prompts
        )
        fitting = max(1, int(BLOCK_BYTES / (states / spec.n_tokens + patterns)))
        tokens = min(tokens, 1 << (fitting.bit_length() - 1))
    longest = int(np.max(spec.recorded_lengths))
    return max(tokens, (batch_size or 0) * longest)


def _pattern_numbers(spec: RunSpec, length: int) -> int:
    layout = spec.layout
    maps = spec.restarts * len(layout.recorded_layers) * len(layout.recorded_iterations)
    return maps * (spec.n_heads or 0) * length**2


def _vocabulary(model: LoopedModel) -> dict[int, str]:
    tokenizer, size = model.tokenizer, model.d_vocab
    if tokenizer is None or size > LARGEST_VOCABULARY:
        return {}
    return {i: tokenizer.token_text(i) for i in range(min(size, tokenizer.d_vocab))}
