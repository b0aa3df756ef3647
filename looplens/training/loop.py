"""Training: take the steps of a recipe, log its health, and write the finished model.

The weights depend on the recipe and the number of threads alone: training stops by step count,
never by the clock, and a run that was interrupted and resumed ends with the very same weights. What
is trained is in ``recipes``; this module knows no task and no architecture.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as ProgressBar

from looplens.errors import InputError
from looplens.models import LoopedTransformer, model_card, save_model
from looplens.models.inputs import check_device
from looplens.tasks import get_task
from looplens.training.card import write_card
from looplens.training.checkpoint import Progress, TrainingLog, load_progress, save_progress
from looplens.training.etd import load_base, take_over
from looplens.training.evaluate import ITERATIONS, Evaluation, evaluate, held_out_of
from looplens.training.exit_evaluation import evaluate_exits
from looplens.training.recipe import Recipe
from looplens.training.recipes import get_recipe
from looplens.training.step import Model, build_model, make_optimizer, probe_health, take_step

LOG_EVERY = 20
HEALTH_EVERY = 200

StepCallback = Callable[[int, dict[str, float]], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingResult:
    """What a training left behind.

    Attributes
    ----------
    directory : Path
        The finished model, ready for :func:`looplens.load_model`.
    log : Path
        The JSON Lines log.
    evaluation : Evaluation
        Held-out accuracy; that on the training distribution where the task holds nothing out.
    steps : int
        Optimiser steps in all.
    seconds : float
        Time spent on them, over all runs.
    """

    directory: Path
    log: Path
    evaluation: Evaluation
    steps: int
    seconds: float


def train(
    recipe: Recipe | str,
    out: str | Path,
    *,
    steps: int | None = None,
    resume: bool = True,
    progress: bool = True,
    device: str = "cpu",
    threads: int = 1,
    checkpoints: str | Path | None = None,
    checkpoint_every: int = 200,
    evaluation_sequences: int = 1024,
    callback: StepCallback | None = None,
    base: str | Path | None = None,
) -> TrainingResult:
    """Train a recipe and write the model as a checkpoint directory with its card.

    Parameters
    ----------
    recipe : Recipe or str
        A recipe or the name of one in ``RECIPES``.
    out : str or Path
        Where the finished model goes.
    steps : int, optional
        Another number of steps than the recipe's; the schedule and the curriculum stretch with it.
    resume : bool
        Go on from the last checkpoint of this recipe, where there is one.
    progress : bool
        Show a progress bar.
    device : str
        Where to train.
    threads : int
        Threads of torch. Another number may round differently and so give other weights.
    checkpoints : str or Path, optional
        Where the resumable state and the log go; ``checkpoints/<recipe name>`` when not given.
    checkpoint_every : int
        Steps between two checkpoints.
    evaluation_sequences : int
        Held-out sequences for the card.
    callback : callable, optional
        Called after each step with its number, from 1, and ``{"loss", "accuracy"}``; not while the
        base is trained.
    base : str or Path, optional
        For a recipe that starts from another one's model: the directory of that model. When not
        given, it is trained first, with the same settings and all its steps, into ``base`` inside
        the checkpoint directory.

    Returns
    -------
    TrainingResult
        Where everything is, and the held-out accuracy.

    Raises
    ------
    InputError
        When the recipe is unknown, a count is below 1, the checkpoint is of another recipe, there
        is no such device, ``out`` holds something else than a model, or ``base`` holds a model of
        another recipe than the one to start from.
    """
    recipe = get_recipe(recipe) if isinstance(recipe, str) else recipe
    changed_steps = steps is not None and steps != recipe.steps
    recipe = dataclasses.replace(recipe, steps=steps) if steps is not None else recipe
    if min(threads, checkpoint_every, evaluation_sequences) < 1:
        raise InputError(
            "threads, checkpoint_every and evaluation_sequences are at least 1; got "
            f"{threads}, {checkpoint_every} and {evaluation_sequences}."
        )
    check_device(device)
    _check_target(Path(out))
    directory = Path(checkpoints) if checkpoints else Path("checkpoints") / recipe.name
    if recipe.base is not None and base is None:
        base = _train_base(
            recipe.base,
            directory / "base",
            resume=resume,
            progress=progress,
            device=device,
            threads=threads,
            checkpoint_every=checkpoint_every,
            evaluation_sequences=evaluation_sequences,
        )
    with _threads(threads):
        model = build_model(recipe)
        if recipe.base is not None and base is not None:
            take_over(model, load_base(recipe, Path(base)))
        model = model.to(device)
        optimizer = make_optimizer(model, recipe)
        done = load_progress(directory, recipe, model, optimizer) if resume else Progress()
        log = TrainingLog(directory, done.step)
        done = _run_steps(
            recipe, model, optimizer, done, log, directory, checkpoint_every, progress, callback
        )
        model.eval()
        held_out, rng = held_out_of(recipe), recipe.generator("held_out")
        last = recipe.curriculum[-1]
        task, difficulty = held_out or (get_task(recipe.task), last.difficulty)
        drawn: dict[str, Any] = {
            "sequences": evaluation_sequences,
            "length": last.length,
            "difficulty": difficulty,
        }
        counts = sorted({*ITERATIONS, model.cfg.default_iterations})
        evaluation = evaluate(model, task, rng, iterations=counts, **drawn)
        exits = None
        if isinstance(model, LoopedTransformer) and model.cfg.exit_gate:
            exits = evaluate_exits(model, task, rng, **drawn)
        path = save_model(model.cpu(), out)
    write_card(
        path, recipe, model, evaluation, seconds=done.seconds, threads=threads,
        device=device, changed_steps=changed_steps, exits=exits, held_out=held_out is not None,
    )  # fmt: skip
    return TrainingResult(
        directory=path,
        log=log.path,
        evaluation=evaluation,
        steps=done.step,
        seconds=done.seconds,
    )


def _train_base(base: Recipe, directory: Path, **settings: Any) -> Path:
    """Train the model that another recipe starts from, unless its directory holds it already."""
    out = directory / "model"
    known = settings["resume"] and (out / "config.json").is_file()
    if not known or model_card(out).get("fingerprint") != base.fingerprint():
        train(base, out, checkpoints=directory / "checkpoints", **settings)
    return out


def _run_steps(
    recipe: Recipe,
    model: Model,
    optimizer: torch.optim.Optimizer,
    done: Progress,
    log: TrainingLog,
    directory: Path,
    checkpoint_every: int,
    progress: bool,
    callback: StepCallback | None,
) -> Progress:
    model.train()
    began = time.perf_counter() - done.seconds
    with _progress_bar(recipe, done.step, progress) as show:
        for step in range(done.step, recipe.steps):
            values = take_step(recipe, model, optimizer, step)
            number = step + 1
            last = number == recipe.steps
            if number % LOG_EVERY == 0 or last:
                line: dict[str, Any] = {"step": number, **values}
                line["seconds"] = round(time.perf_counter() - began, 3)
                if number % HEALTH_EVERY == 0 or last:
                    line["health"] = probe_health(recipe, model)
                log.write(line)
            if number % checkpoint_every == 0 or last:
                done = Progress(step=number, seconds=time.perf_counter() - began)
                save_progress(directory, recipe, model, optimizer, done)
            show(number, values)
            if callback is not None:
                callback(number, values)
    return done


def _check_target(out: Path) -> None:
    """Refuse before the work what would mix a model with other files."""
    if out.is_file():
        raise InputError(f"{out} is a file; name the directory of the model.")
    if out.is_dir() and any(out.iterdir()) and not (out / "config.json").is_file():
        raise InputError(
            f"{out} holds files and is not a model. Choose another directory, or an empty one."
        )


@contextmanager
def _progress_bar(
    recipe: Recipe, step: int, shown: bool
) -> Iterator[Callable[[int, dict[str, float]], None]]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]:.3f}  accuracy {task.fields[accuracy]:.3f}"),
        TimeRemainingColumn(),
    )
    with ProgressBar(*columns, console=Console(stderr=True), disable=not shown) as bar:
        task = bar.add_task(
            recipe.name,
            total=recipe.steps,
            completed=step,
            loss=float("nan"),
            accuracy=float("nan"),
        )

        def show(number: int, values: dict[str, float]) -> None:
            bar.update(task, completed=number, loss=values["loss"], accuracy=values["accuracy"])

        yield show


@contextmanager
def _threads(number: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
