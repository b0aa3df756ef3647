"""What an exit rule is: something that watches a loop and says, token by token, "enough".

A rule is a frozen description. It is applied to a finished trace (:meth:`ExitRule.exit_step`), or
online while a model runs (:meth:`ExitRule.start`); both go through the same two methods, so they
cannot disagree. This module knows no particular rule and no model.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from looplens.errors import InputError
from looplens.thinking.gates import first_true

Reads = Literal["state", "logits", "gate_logits"]


class Traced(Protocol):
    """What a rule needs of a trace; :class:`looplens.Trace` has it."""

    @property
    def states(self) -> Float[Tensor, "iteration_and_initial batch pos d_model"]: ...  # noqa: D102

    @property
    def logits(self) -> Float[Tensor, "iteration batch pos d_vocab"]: ...  # noqa: D102


@dataclass(frozen=True, kw_only=True, slots=True)
class Observation:
    """What is seen after one iteration.

    Attributes
    ----------
    iteration : int
        Which one, counted from 1.
    state : Float[Tensor, "batch pos d_model"]
        The loop state.
    logits : Float[Tensor, "batch pos d_vocab"] or None
        The readout; only made where the rule reads it, since it costs a pass of the coda.
    gate_logits : Float[Tensor, "batch pos"] or None
        The exit gate before its sigmoid, likewise.
    """

    iteration: int
    state: Float[Tensor, "batch pos d_model"]
    logits: Float[Tensor, "batch pos d_vocab"] | None = None
    gate_logits: Float[Tensor, "batch pos"] | None = None


class ExitRule(ABC):
    """When to leave the loop.

    Subclasses are frozen dataclasses and say what they read, how a value follows from one
    iteration to the next, and which values mean "enough".

    Attributes
    ----------
    reads : {"state", "logits", "gate_logits"}
        What an observation must hold.
    """

    __slots__ = ()
    reads: ClassVar[Reads]

    @abstractmethod
    def begin(self, initial_state: Float[Tensor, "batch pos d_model"]) -> Any:
        """Return what the rule remembers before the first iteration."""

    @abstractmethod
    def advance(self, memory: Any, seen: Observation) -> tuple[Any, Tensor]:
        """Return the new memory, and the value of this iteration, one a token (batch, pos)."""

    @abstractmethod
    def fires(self, value: Float[Tensor, ...]) -> Bool[Tensor, ...]:
        """Tell which values mean that a token leaves."""

    def start(self, initial_state: Float[Tensor, "batch pos d_model"]) -> ExitMonitor:
        """Begin to watch a running loop."""
        return ExitMonitor(self, initial_state)

    def values(self, trace: Traced) -> Float[Tensor, "iteration batch pos"]:
        """Return what the rule looks at, after every iteration of a trace.

        Raises
        ------
        InputError
            If the trace lacks what the rule reads.
        """
        source = None if self.reads == "state" else getattr(trace, self.reads, None)
        if self.reads != "state" and source is None:
            raise InputError(
                f"{type(self).__name__} reads {self.reads}, which this trace does not hold"
                + ("; its model has no exit gate" if self.reads == "gate_logits" else "")
            )
        monitor = self.start(trace.states[0])
        values = []
        for t, state in enumerate(trace.states[1:], start=1):
            extra = {} if source is None else {self.reads: source[t - 1]}
            values.append(monitor.value(Observation(iteration=t, state=state, **extra)))
        return torch.stack(values)

    def exit_step(self, trace: Traced) -> Int[Tensor, "batch pos"]:
        """Return the iteration that each token leaves after.

        Every token is judged on its own, as if the others went on.

        Parameters
        ----------
        trace : Trace
            What :func:`looplens.trace` returns, or anything with ``states`` (iteration 0..T,
            batch, pos, d_model), ``logits`` (iteration 1..T, ...) and, for gates, ``gate_logits``.

        Returns
        -------
        Int[Tensor, "batch pos"]
            Counted from 1; T for a token that never leaves (``fires(values(trace))[-1]`` tells
            these from the ones that leave in the last iteration).
        """
        return first_true(self.fires(self.values(trace)))


class ExitMonitor:
    """A rule at work on one running loop.

    Parameters
    ----------
    rule : ExitRule
        What to watch for.
    initial_state : Float[Tensor, "batch pos d_model"]
        What the loop starts from.
    """

    def __init__(self, rule: ExitRule, initial_state: Float[Tensor, "batch pos d_model"]) -> None:
        self.rule = rule
        self._memory = rule.begin(initial_state)

    def value(self, seen: Observation) -> Float[Tensor, "batch pos"]:
        """Take one iteration and return its value."""
        self._memory, value = self.rule.advance(self._memory, seen)
        return value

    def see(self, seen: Observation) -> Bool[Tensor, "batch pos"]:
        """Take one iteration and tell which tokens leave after it."""
        return self.rule.fires(self.value(seen))
