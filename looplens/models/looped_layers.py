"""A language model with some of its layers looped, for as long as it is wanted.

The weights stay where they are and nothing is copied: while the loop is on, the walk through the
list of layers meets a span that repeats. It knows where Hugging Face decoders keep their layers
(:mod:`looplens.models.layer_list`) and nothing of their attention, norms or positions: each layer
is called again with the arguments that the model itself gave it.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from looplens.errors import InputError, near_matches
from looplens.loops.spec import Loop, LoopSpec, Tap
from looplens.models.inputs import check_iterations
from looplens.models.layer_list import LayerList, find_layer_list
from looplens.models.repeating import Call, RepeatingList, stream_of, without_cache

LoopMode = Literal["naive", "residual", "anchored"]


class LoopedLayers(nn.Module):
    """A language model whose layers ``start`` to ``stop - 1`` repeat.

    Made by :func:`looplens.models.looping.loop_layers`, which explains the modes.

    Attributes
    ----------
    model : Module
        The model, looped until :meth:`unloop`.
    start, stop, mode, anchor
        As given.
    iterations : int
        Passes in the next call.
    """

    def __init__(
        self,
        model: nn.Module,
        start: int,
        stop: int,
        iterations: int,
        mode: LoopMode = "naive",
        *,
        anchor: float = 0.5,
    ) -> None:
        super().__init__()
        found = find_layer_list(model)
        if isinstance(found.layers, RepeatingList):
            raise InputError(
                f"{type(model).__name__} is looped already, over layers {found.layers.loop.start} "
                f"to {found.layers.loop.stop - 1}: call unloop() on that loop first."
            )
        _check_span(start, stop, found, model)
        if mode not in get_args(LoopMode):
            raise InputError(
                f"mode must be one of {', '.join(get_args(LoopMode))}, got {mode!r}."
                + near_matches(str(mode), get_args(LoopMode))
            )
        if not 0 <= anchor <= 1:
            raise InputError(f"anchor must lie between 0 and 1, got {anchor}")
        self.model = model
        self.start, self.stop, self.mode, self.anchor = start, stop, mode, anchor
        self.iterations = check_iterations(iterations)
        self.layer_path = found.path
        self.hook_start = nn.Identity()  # sees the stream before the first pass
        self.hook_state = nn.Identity()  # sees it after every pass
        self._found = found
        self._kept_states: list[Tensor] | None = None
        self._instead: Tensor | None = None
        self._spans_run = 0
        setattr(found.owner, found.name, RepeatingList(found.layers, self))
        self._handles = [
            module.register_forward_pre_hook(without_cache, with_kwargs=True)
            for module in dict.fromkeys((model, found.owner))
        ]

    @property
    def is_looped(self) -> bool:
        """Whether the model still repeats its layers."""
        return bool(self._handles)

    @property
    def layers(self) -> list[nn.Module]:
        """The looped layers."""
        return list(self._found.layers)[self.start : self.stop]

    def forward(self, *args: Any, iterations: int | None = None, **kwargs: Any) -> Any:
        """Run the model with its loop.

        Parameters
        ----------
        *args, **kwargs
            As the model takes them.
        iterations : int, optional
            Passes in this call; by default ``self.iterations``.

        Returns
        -------
        object
            What the model returns.
        """
        if not self.is_looped:
            raise InputError("this loop was undone by unloop(): call the model, or loop it again")
        usual, before = self.iterations, self._spans_run
        self.iterations = usual if iterations is None else check_iterations(iterations)
        try:
            answer = self.model(*args, **kwargs)
        finally:
            self.iterations = usual
        if self._spans_run == before:
            raise InputError(
                f"{type(self.model).__name__} does not walk through {self.layer_path} as a list: "
                "its layers cannot be looped this way"
            )
        return answer

    @torch.no_grad()
    def loop_states(self, *args: Any, iterations: int | None = None, **kwargs: Any) -> Tensor:
        """Run the model and return the stream before the loop and after every pass.

        Takes what :meth:`forward` takes. In ``anchored`` mode these are the states of the
        residual steps; the mix that leaves the loop is not one of them.

        Returns
        -------
        Tensor, shape (iteration 0..T, batch, position, d_model)
            The stream; entry 0 is what enters the loop.
        """
        kept: list[Tensor] = []
        self._kept_states = kept
        try:
            self(*args, iterations=iterations, **kwargs)
        finally:
            self._kept_states = None
        return torch.stack(kept)

    @torch.no_grad()
    def readout(self, state: Tensor) -> Tensor:
        """Return what the rest of the model says of a state, as if it had just left the loop.

        Parameters
        ----------
        state : Tensor, shape (batch, position, d_model)
            The stream after some pass, of sequences without padding.

        Returns
        -------
        Tensor, shape (batch, position, d_vocab)
            Logits.
        """
        self._instead = state
        try:  # which tokens does not matter: the stream that they make is replaced
            tokens = torch.zeros(state.shape[:2], dtype=torch.long, device=state.device)
            return self(tokens, iterations=1).logits
        finally:
            self._instead = None

    def residual_step(self, state: Tensor, tokens: Tensor) -> Tensor:
        """Return the state one iteration later in ``residual`` and ``anchored`` mode.

        Parameters
        ----------
        state : Tensor, shape (batch, position, d_model)
            The stream after some pass.
        tokens : Tensor, shape (batch, position)
            What the model is called with: it makes masks and positions from it.

        Returns
        -------
        Tensor, shape (batch, position, d_model)
            ``h + (g(h) - h) / K`` with ``K = self.iterations``, differentiable.
        """
        found: list[Tensor] = []
        handles = [
            self.hook_start.register_forward_hook(lambda *_: state),
            self.hook_state.register_forward_hook(lambda _, __, after: found.append(after)),
        ]
        try:
            self(tokens, iterations=1, use_cache=False)  # the share of a single pass is all of it
        finally:
            for handle in handles:
                handle.remove()
        return state + (found[0] - state) / self.iterations

    def loop_spec(self) -> LoopSpec:
        """Declare this loop for :func:`looplens.wrap`: ``wrap(looped, looped.loop_spec())``.

        In ``anchored`` mode there is no readout: what leaves the loop is a mix of states.
        """
        return LoopSpec(
            loop=Loop("iteration", self.iterations),
            layers=[f"model.{self.layer_path}.{n}" for n in range(self.start, self.stop)],
            state=Tap("hook_state"),
            start=Tap("hook_start"),
            iterations="iterations",
            readout=None if self.mode == "anchored" else LoopedLayers.readout,
            step=None if self.mode == "naive" else LoopedLayers.residual_step,
            keywords={"use_cache": False},
        )

    def unloop(self) -> nn.Module:
        """Give the model its own list of layers back, and return it."""
        for handle in self._handles:
            handle.remove()
        if self._handles:
            setattr(self._found.owner, self._found.name, self._found.layers)
        self._handles = []
        return self.model

    def __enter__(self) -> LoopedLayers:
        return self

    def __exit__(self, *failure: object) -> None:
        self.unloop()

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == "model":
                raise
            return getattr(self.model, name)

    def extra_repr(self) -> str:
        """Say what is looped and how."""
        return f"{self.layer_path}[{self.start}:{self.stop}] x {self.iterations}, {self.mode}"

    def enter(self, stream: Tensor) -> Tensor:
        """Let the stream into the loop; a hook on ``hook_start`` may replace it."""
        return self.hook_start(stream)

    def go_on(self, entered: Tensor, first: Tensor, span: list[Call]) -> tuple[Tensor, Any]:
        """Do the passes after the first; see :class:`~looplens.models.repeating.Loop`."""
        if self._instead is not None:
            self._spans_run += 1
            return self._instead, None
        count = self.iterations
        share = 1.0 if self.mode == "naive" else 1 / count
        state, after, answer = entered, first, None
        kept = self._kept_states
        if kept is not None:
            kept.append(entered.detach())
        for iteration in range(1, count + 1):
            if iteration > 1:
                after = state
                for call in span:
                    answer = call.again(after)
                    after = stream_of(answer)
            state = after if share == 1.0 else state + share * (after - state)
            state = self.hook_state(state)
            if kept is not None:
                kept.append(state.detach())
        self._spans_run += 1
        if self.mode == "anchored":
            state = self.anchor * first + (1 - self.anchor) * state
        return state, answer


def _check_span(start: int, stop: int, found: LayerList, model: nn.Module) -> None:
    count = len(found.layers)
    if start >= stop:
        raise InputError(f"the span is empty: start={start} must be below stop={stop}")
    if start < 0 or stop > count:
        raise InputError(
            f"layers {start} to {stop - 1} are not all there: {type(model).__name__} has {count} "
            f"layers in {found.path}, so 0 <= start < stop <= {count}"
        )
