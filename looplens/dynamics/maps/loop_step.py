"""One iteration of a model's loop over one prompt, as a function of the state alone.

Native models offer their step. A wrapped model is run for a single pass from the state that it is
given, unless its declaration names a step. Whether that is the step of the recording is checked by
:mod:`looplens.dynamics.maps.recorded`.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from looplens.dynamics.maps.derivatives import Ways
from looplens.errors import InputError, SiteError
from looplens.models.native import NativeLoop, as_looped
from looplens.models.protocol import LoopedModel
from looplens.models.wrapping.depth import depth
from looplens.models.wrapping.forward import evaluating

Hook = tuple[str, Callable[..., Any]]
_LATER = 2  # a pass that injects where the first one does not
_TURN = threading.RLock()  # a model keeps its clock and its hooks to itself: one thread at a time


class LoopStep:
    """The map ``s -> R(s; e)`` of one prompt, on states ``[row, pos, d_model]``.

    Parameters
    ----------
    looped : LoopedModel
        The model.
    ids : Int[Tensor, "1 pos"]
        The prompt.
    hooks : sequence of (name, function)
        Hooks by site address that are there in every call: knobs, listeners.
    iterations : int, optional
        The depth that a declared step is to see its module at.

    Attributes
    ----------
    injected : Float[Tensor, "1 pos d_model"] or None
        What a native model is fed with in every iteration.
    settled : dict of str to Ways
        How maps made of this step are differentiated, as far as it was found out.
    """

    def __init__(
        self,
        looped: LoopedModel,
        ids: Int[Tensor, "1 pos"],
        hooks: Sequence[Hook] = (),
        *,
        iterations: int | None = None,
    ) -> None:
        self.looped, self.ids, self.hooks = looped, ids, tuple(hooks)
        self.iterations = iterations
        self.settled: dict[str, Ways] = {}
        self.injected: Tensor | None = None
        self._declared: Callable[[Any, Tensor, Tensor], Tensor] | None = None
        if isinstance(looped, NativeLoop):
            with torch.no_grad(), _TURN, looped.model.clock.forward(_LATER):
                self.injected = looped.model.embed_tokens(ids)
        else:
            self._declared = getattr(getattr(looped, "spec", None), "step", None)
            if self._declared is None:
                _check_single_pass(looped)

    @property
    def shape(self) -> tuple[int, int]:
        """Positions and width of the state."""
        return self.ids.shape[1], self.looped.d_model

    def with_hooks(self, hooks: Sequence[Hook]) -> LoopStep:
        """Return this step with further hooks.

        Raises
        ------
        InputError
            If the step is a declared function: it passes through no hook points of looplens.
        """
        if hooks and self._declared is not None:
            raise InputError(
                f"the step of {self.looped.model_name} is the function that its LoopSpec declares, "
                "which passes through no hook points: knobs and listeners need a loop that can be "
                "run for a single pass"
            )
        found = copy.copy(self)
        found.hooks, found.settled = (*self.hooks, *hooks), {}
        return found

    def fed(self, injected: Float[Tensor, "1 pos d_model"]) -> LoopStep:
        """Return this step, fed with something else.

        Raises
        ------
        InputError
            If the model is not a native one: what a wrapped loop is fed with is not known.
        """
        if self.injected is None:
            raise InputError(
                f"{self.looped.model_name} is a wrapped model: what its loop is fed with is not "
                "known, so it cannot be changed"
            )
        found = copy.copy(self)
        found.injected = injected
        return found

    def __call__(self, states: Float[Tensor, "row pos d_model"]) -> Tensor:
        """Map states one iteration further, with gradients where asked for."""
        with _TURN, self._hooked():
            if isinstance(self.looped, NativeLoop):
                return self._native(self.looped, states)
            states = states.clone()  # foreign code may write into what it is given
            if self._declared is not None:
                return self._by_declaration(self._declared, states)
            return self._single_pass(states)

    @contextmanager
    def clock(self) -> Iterator[None]:
        """Set the loop clock of a native model to a pass like all but the first.

        Other threads wait meanwhile.
        """
        clock = self.looped.model.clock  # type: ignore[attr-defined]
        with _TURN, clock.forward(_LATER), clock.at(_LATER):
            yield

    def _native(self, looped: NativeLoop, states: Tensor) -> Tensor:
        model = looped.model
        if model.cfg.value_embeddings:
            model.tokens = self.ids
        assert self.injected is not None
        with self.clock():
            return model.step(states, self.injected.expand(len(states), -1, -1))

    def _by_declaration(
        self, declared: Callable[[Any, Tensor, Tensor], Tensor], states: Tensor
    ) -> Tensor:
        looped: Any = self.looped
        outer = looped.schedule.outer_count(looped.check_iterations(self.iterations))
        with evaluating(looped.module), depth(looped.module, looped.spec, outer):
            found = declared(looped.module, states, self.ids.expand(len(states), -1))
        if not isinstance(found, Tensor) or found.shape != states.shape:
            seen = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise InputError(
                f"the declared step of {looped.model_name} must return states of the shape that "
                f"it is given, {tuple(states.shape)}; got {seen}"
            )
        return found

    def _single_pass(self, states: Tensor) -> Tensor:
        looped: Any = self.looped
        found: list[Tensor] = []

        def keep(value: Tensor, hook: Any) -> None:
            found.append(value.clone())  # foreign code may go on to write into it

        with looped.hooks(fwd_hooks=[("hook_state", keep)]):
            looped.run_loop(self.ids.expand(len(states), -1), (states,), 1, {})
        return found[0]

    @contextmanager
    def _hooked(self) -> Iterator[None]:
        with ExitStack() as stack:
            if self.hooks:
                owner: Any = getattr(self.looped, "model", self.looped)
                stack.enter_context(owner.hooks(fwd_hooks=list(self.hooks)))
            yield


def loop_step(
    model: Any,
    ids: Int[Tensor, "1 pos"],
    dtype: torch.dtype | None = None,
    *,
    iterations: int | None = None,
) -> LoopStep:
    """Return the step of a model over a prompt.

    Parameters
    ----------
    model : LoopedTransformer or LoopedModel
        The model.
    ids : Int[Tensor, "1 pos"]
        One prompt.
    dtype : torch.dtype, optional
        What to compute in: by default the model's own, but at least float32, since in half
        precision rounding hides the derivative. Another dtype than the model's means a copy of it.
    iterations : int, optional
        Iterations of the recording, for a wrapped model whose declared step depends on them.

    Raises
    ------
    InputError
        If there is more than one prompt, the dtype is neither float32 nor float64, or a wrapped
        model has no step that could be called.
    """
    looped = as_looped(model)
    if ids.ndim != 2 or len(ids) != 1:
        raise InputError(f"one prompt at a time; got ids of shape {tuple(ids.shape)}")
    wanted = dtype or torch.promote_types(looped.dtype, torch.float32)
    if wanted not in (torch.float32, torch.float64):
        raise InputError(
            f"dtype must be torch.float32 or torch.float64, got {dtype!r}: in half precision "
            "rounding hides the derivative"
        )
    if wanted != looped.dtype:
        copied = copy.deepcopy(looped.model if isinstance(looped, NativeLoop) else looped)
        (copied.module if hasattr(copied, "spec") else copied).to(wanted)  # type: ignore[union-attr]
        looped = as_looped(copied)
    return LoopStep(looped, ids.to(looped.device), iterations=iterations)


def _check_single_pass(looped: LoopedModel) -> None:
    schedule = getattr(looped, "schedule", None)
    ways = "Declare step=function(module, state, token_ids) in its LoopSpec."
    states = getattr(getattr(looped, "spec", None), "state", {})
    if len(states) > 1:
        raise InputError(
            f"{looped.model_name} exposes no step: its loops carry several states "
            f"({', '.join(states)}), so the next one of the recorded axis is no function of the "
            f"last one alone. {ways[:-1]}, if there is one."
        )
    if not getattr(looped, "can_set_depth", False):
        raise InputError(
            f"{looped.model_name} exposes no step: the depth of its loop cannot be set to one "
            f"pass. {ways}"
        )
    if schedule is not None and schedule.per_outer_pass != 1:
        raise InputError(
            f"{looped.model_name} exposes no step: one pass of its outermost loop is "
            f"{schedule.per_outer_pass} iterations of the recorded axis. " + ways
        )
    start = looped.spec.start  # type: ignore[attr-defined]
    if start.read is not None and start.keyword is None:
        raise SiteError(
            f"{looped.model_name} exposes no step: its initial state can only be read. " + ways
        )
