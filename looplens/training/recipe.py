"""What a recipe is: everything that decides the weights of a model, in one frozen value.

Two runs of one recipe at the same number of threads give the same weights. The recipes themselves
are in ``recipes``; how a step is taken is in ``loop``.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal

import numpy as np

from looplens.errors import InputError
from looplens.models import AdaptiveConfig, LoopedConfig
from looplens.tasks import Batch, get_task
from looplens.training.depth import DepthSampling
from looplens.training.losses import LoopingRegulariser, Loss

# Independent streams of randomness; each step has its own generator in each stream, so that any
# step can be repeated without the ones before it and a resumed run needs no generator state.
STREAMS = {"data": 0, "depth": 1, "initial_state": 2, "held_out": 3, "probe": 4}


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """One stage of a curriculum.

    Attributes
    ----------
    share : float
        Share of all steps that this stage takes; the shares of a curriculum add up to 1.
    length : int
        Sequence length in the task's own unit.
    difficulty : tuple of int
        Inclusive range of difficulties.
    """

    share: float
    length: int
    difficulty: tuple[int, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """A task, a model and how to train it.

    Attributes
    ----------
    name, summary : str
        The name in :data:`looplens.training.RECIPES` and one readable sentence.
    task : str
        A name that :func:`looplens.tasks.get_task` knows, with options where it has some.
    model : LoopedConfig or AdaptiveConfig
        The architecture; its ``default_iterations`` is the iteration count recommended for use. An
        adaptive model, whose layers loop by themselves, makes nothing of ``depth`` and
        ``backprop_iterations``.
    steps, batch : int
        Optimiser steps and sequences a step.
    learning_rate, warmup, decay_share : float, int, float
        Linear warm-up over ``warmup`` steps, constant, then a cosine to 0 over the last
        ``decay_share`` of the steps.
    weight_decay, betas, clip : float, (float, float), float
        AdamW's settings and the largest gradient norm.
    curriculum : tuple of Stage
        The stages in order.
    depth : DepthSampling
        How many iterations each step runs.
    backprop_iterations : int
        The last so many iterations carry gradient; the ones before run without.
    loss_positions : {"labelled", "last"}
        Every position that has a target, or only the last one of each sequence.
    seed : int
        Decides the initial weights and every draw.
    loss : Loss
        What a step minimises.
    regulariser : LoopingRegulariser, optional
        Its similarity, times its strength, is subtracted from the loss.
    base : Recipe, optional
        The recipe whose trained model this one starts from. A loss of kind ``gate`` trains that
        model's exit gate and leaves everything else alone.
    """

    name: str
    summary: str
    task: str
    model: LoopedConfig | AdaptiveConfig
    steps: int
    curriculum: tuple[Stage, ...]
    depth: DepthSampling = field(default_factory=DepthSampling)
    backprop_iterations: int = 6
    batch: int = 64
    learning_rate: float = 3e-3
    warmup: int = 100
    decay_share: float = 0.4
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.95)
    clip: float = 1.0
    loss_positions: Literal["labelled", "last"] = "labelled"
    seed: int = 0
    loss: Loss = field(default_factory=Loss)
    regulariser: LoopingRegulariser | None = None
    base: Recipe | None = None

    def __post_init__(self) -> None:
        task = get_task(self.task)
        if self.model.d_vocab != len(task.vocabulary):
            raise InputError(
                f"Recipe {self.name!r}: task {self.task!r} has {len(task.vocabulary)} tokens, "
                f"but the model has d_vocab={self.model.d_vocab}."
            )
        if min(self.steps, self.batch, self.backprop_iterations) < 1:
            raise InputError(
                f"Recipe {self.name!r}: steps, batch and backprop_iterations are at least 1; got "
                f"{self.steps}, {self.batch} and {self.backprop_iterations}."
            )
        total = sum(stage.share for stage in self.curriculum)
        if not math.isclose(total, 1.0, abs_tol=1e-6):
            raise InputError(
                f"Recipe {self.name!r}: the shares of the curriculum must add up to 1, "
                f"but they give {total:g}."
            )
        if self.loss_positions not in ("labelled", "last"):
            raise InputError(
                f"Recipe {self.name!r}: loss_positions is 'labelled' or 'last'; got "
                f"{self.loss_positions!r}."
            )
        self._check_loss()
        self._check_width()

    def _check_loss(self) -> None:
        """Refuse losses that this model or this loop cannot have."""
        kind = self.loss.kind
        adaptive = isinstance(self.model, AdaptiveConfig)
        if adaptive and get_task(self.task).answers_move:
            raise InputError(
                f"Recipe {self.name!r}: the answers of task {self.task!r} depend on the number of "
                "iterations, and an adaptive model has none to choose; take a LoopedConfig."
            )
        if adaptive and (kind != "last" or self.regulariser is not None):
            raise InputError(
                f"Recipe {self.name!r}: an adaptive model has one answer and no shared core, so it "
                f"takes the loss 'last' and no regulariser; got {kind!r} and {self.regulariser}."
            )
        if self.loss.needs_gate and not getattr(self.model, "exit_gate", False):
            raise InputError(
                f"Recipe {self.name!r}: a loss of kind {kind!r} needs a model with an exit gate; "
                "set exit_gate=True in its configuration."
            )
        whole = self.depth.kind == "fixed" and self.depth.mean <= self.backprop_iterations
        if kind == "expected" and not whole:
            raise InputError(
                f"Recipe {self.name!r}: a loss of kind 'expected' weighs every iteration, so all "
                f"must carry gradient: use a fixed depth and backprop_iterations of at least that; "
                f"got depth {self.depth} and backprop_iterations={self.backprop_iterations}."
            )
        if kind == "gate":
            self._check_gate()
        if self.regulariser is not None and isinstance(self.model, LoopedConfig):
            layers, block = self.model.n_layers, self.regulariser.block
            if layers <= block or layers % block:
                raise InputError(
                    f"Recipe {self.name!r}: the regulariser's block={block} needs a model of "
                    f"{2 * block}, {3 * block}, ... layers; this one has {layers}."
                )

    def _check_gate(self) -> None:
        if self.base is None:
            raise InputError(
                f"Recipe {self.name!r}: a loss of kind 'gate' trains the gate of a trained model; "
                "name its recipe as base."
            )
        if self.depth.kind != "fixed" or self.depth.mean < 2:
            raise InputError(
                f"Recipe {self.name!r}: a loss of kind 'gate' compares an iteration with the one "
                "before: use depth=DepthSampling(kind='fixed', mean=2 or more); got depth "
                f"{self.depth}."
            )
        if self.regulariser is not None:
            raise InputError(
                f"Recipe {self.name!r}: a loss of kind 'gate' trains nothing but the gate, so it "
                "takes no regulariser."
            )

    def _check_width(self) -> None:
        """Refuse sequences that do not fit the model."""
        widest = widest_sequence(self.task, self.curriculum)
        if widest > self.model.n_ctx:
            raise InputError(
                f"Recipe {self.name!r}: task {self.task!r} has sequences of {widest} tokens, but "
                f"the model has n_ctx={self.model.n_ctx}; set n_ctx to {widest} or more."
            )

    def stage(self, step: int) -> Stage:
        """Return the stage of the curriculum that step 0, 1, ... belongs to."""
        end = 0.0
        for stage in self.curriculum:
            end += stage.share
            if step < round(end * self.steps):
                return stage
        return self.curriculum[-1]

    def learning_rate_at(self, step: int) -> float:
        """Return the learning rate of step 0, 1, ..."""
        warm = min(1.0, (step + 1) / max(self.warmup, 1))
        decay_start = (1 - self.decay_share) * self.steps
        if step < decay_start:
            return self.learning_rate * warm
        progress = (step - decay_start) / max(self.steps - decay_start, 1.0)
        return self.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * progress))

    @property
    def first_step(self) -> int:
        """Steps taken by the bases: training goes on with the batches after theirs."""
        return 0 if self.base is None else self.base.first_step + self.base.steps

    def generator(self, stream: str, step: int = 0) -> np.random.Generator:
        """Return the generator of one step in one of the ``STREAMS``."""
        return np.random.default_rng([self.seed, STREAMS[stream], step])

    def training_batch(self, step: int) -> Batch:
        """Return what step 0, 1, ... is trained on, the same whenever it is drawn."""
        stage = self.stage(step)
        return get_task(self.task).sample(
            self.generator("data", self.first_step + step),
            self.batch,
            length=stage.length,
            difficulty=stage.difficulty,
        )

    def as_dict(self) -> dict[str, Any]:
        """Return the recipe as nested plain values, ready for JSON."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    def fingerprint(self) -> str:
        """Return a short hash of everything that decides the weights.

        Fields of the recipe and of its model are left out at their default, so that a new one whose
        default changes nothing leaves the fingerprints of trained models alone. A depth, a loss, a
        regulariser or a stage that is given counts with all its fields: a new field there changes
        the fingerprint of each recipe that gives one.
        """
        values = {**_given(self), "model": _given(self.model)}
        values.pop("summary")
        if self.base is not None:
            values["base"] = self.base.fingerprint()
            values["first_step"] = self.first_step
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


@cache
def widest_sequence(task: str, curriculum: tuple[Stage, ...]) -> int:
    """Return the tokens of the longest sequence in one small batch of each stage.

    Each batch has every difficulty of its stage. Where the length of a text is random, later
    batches may hold a longer one.

    Raises
    ------
    InputError
        When the task cannot draw a stage.
    """
    made, widest = get_task(task), 0
    for stage in curriculum:
        low, high = stage.difficulty
        batch = made.sample(
            np.random.default_rng(0),
            max(4, high - low + 1),
            length=stage.length,
            difficulty=stage.difficulty,
        )
        widest = max(widest, batch.tokens.shape[1])
    return widest


def _given(values: Any) -> dict[str, Any]:
    """Return the fields of a dataclass that differ from their defaults, as plain values."""
    plain = json.loads(json.dumps(dataclasses.asdict(values)))
    given = {}
    for entry in dataclasses.fields(values):
        default = entry.default
        if entry.default_factory is not dataclasses.MISSING:
            default = entry.default_factory()
        if getattr(values, entry.name) != default:
            given[entry.name] = plain[entry.name]
    return given
