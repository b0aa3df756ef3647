"""Trainings and other jobs of a claim, side by side, each one thread, each kept and used again.

A finished model lies in ``folder/models/<key>``, the key being decided by what decides the weights:
the recipe, the code of training, tasks and models, the kind of device and torch's version. The
result of another job is kept under its own key, its script and all code of looplens that measures.
An interrupted training goes on where it stopped. Two processes that want the same model do not
train it twice: the second waits.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import inspect
import os
import pickle
import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from looplens.errors import InputError, LoopLensError
from looplens.gallery import sources
from looplens.gallery.scale import Scale
from looplens.gallery.workers import close, pool

if TYPE_CHECKING:
    from looplens.models import LoopedTransformer
    from looplens.training import Recipe

Job = TypeVar("Job")
Result = TypeVar("Result")

# Held-out sequences for the card of a model; a claim measures its own.
CARD_SEQUENCES = 64


def train_all(recipes: Iterable[Recipe], scale: Scale) -> dict[str, LoopedTransformer]:
    """Train recipes side by side and return the models by the names of their recipes.

    Models that were trained before, by this claim or by another, are loaded.

    Parameters
    ----------
    recipes : iterable of Recipe
        With names of their own.
    scale : Scale
        Where models are kept, how many processes and on which device.

    Raises
    ------
    InputError
        When two recipes have one name.
    """
    from looplens.models import load_model, model_card

    wanted = list(recipes)
    names = [recipe.name for recipe in wanted]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(
            f"Recipes need names of their own, but {', '.join(map(repr, twice))} stands more than "
            "once. Put what differs (layers, loops, seed) into the name."
        )
    for round_ in _rounds(wanted):
        # One training for recipes that give the same weights.
        jobs = {_model_key(recipe, scale): recipe for recipe in reversed(round_)}
        todo = {key: jobs[key] for key in reversed(jobs) if not _finished(_model_at(key, scale))}
        kept = jobs.keys() - todo.keys() - scale.tally.trained
        scale.tally.reused += len(jobs) - len(todo)
        scale.tally.own += len(jobs) - len(todo) - len(kept)
        scale.tally.kept_seconds += sum(
            model_card(_model_at(key, scale))["seconds"] for key in kept
        )
        scale.tally.trained |= todo.keys()
        if todo:
            scale.say(f"training {len(todo)} models ({len(jobs) - len(todo)} are there already)")
            _run(
                functools.partial(_train_one, scale=scale),
                [_training(recipe, key, scale) for key, recipe in todo.items()],
                scale,
                label=lambda training: training.recipe.name,
            )
    loaded = {}
    for recipe in wanted:
        model = load_model(str(_model_at(_model_key(recipe, scale), scale)))
        model.name = model.model_name = recipe.name
        loaded[recipe.name] = model.to(scale.device).eval()
    return loaded


def in_parallel(
    function: Callable[[Job], Result],
    jobs: Iterable[Job],
    scale: Scale,
    *,
    key: Callable[[Job], str] | None = None,
    label: Callable[[Job], str] = str,
) -> list[Result]:
    """Return ``function(job)`` for every job, in the order of the jobs.

    Parameters
    ----------
    function : callable
        Of a module (not a lambda), as it is sent to other processes.
    jobs : iterable
        What it is called with; sent to other processes too.
    scale : Scale
        How many processes, and where results are kept.
    key : callable, optional
        Gives the text by which the result of a job is kept and found again. It names everything
        of the job that decides the result; the script of ``function`` and the code of looplens
        count without being named.
    label : callable
        Gives the text that the line of progress shows of a job.
    """
    listed = list(jobs)
    paths = [None if key is None else _result_at(function, key(job), scale) for job in listed]
    found = {
        i: pickle.loads(path.read_bytes())
        for i, path in enumerate(paths)
        if path is not None and path.is_file()
    }
    scale.tally.reused += len(found)
    todo = [i for i in range(len(listed)) if i not in found]

    def keep(place: int, result: Result) -> None:
        path = paths[todo[place]]
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            unfinished = path.with_suffix(f".{os.getpid()}")
            unfinished.write_bytes(pickle.dumps(result))
            os.replace(unfinished, path)

    made = _run(function, [listed[i] for i in todo], scale, label=label, done=keep)
    found.update(zip(todo, made, strict=True))
    return [found[i] for i in range(len(listed))]


def _run(
    function: Callable[[Job], Result],
    jobs: Sequence[Job],
    scale: Scale,
    *,
    label: Callable[[Job], str],
    done: Callable[[int, Result], None] = lambda place, result: None,
) -> list[Result]:
    """Run jobs here or in other processes; ``done`` is called as each one ends."""
    results: dict[int, Result] = {}

    def finish(place: int, result: Result, seconds: float) -> None:
        results[place] = result
        scale.tally.computed += 1
        done(place, result)
        scale.say(f"  {len(results)} of {len(jobs)}: {label(jobs[place])}, {seconds:.0f} s of CPU")

    if scale.workers == 1 or len(jobs) == 1:
        for place, job in enumerate(jobs):
            finish(place, *_timed(function, job))
        return [results[i] for i in range(len(jobs))]
    others = pool(scale.workers)
    futures: dict[Future, int] = {
        others.submit(_timed, function, job): i for i, job in enumerate(jobs)
    }
    try:
        for future in as_completed(futures):
            result, seconds = future.result()
            scale.tally.worker_seconds += seconds
            finish(futures[future], result, seconds)
    except BrokenProcessPool:
        close(scale.workers)
        raise LoopLensError(
            "A worker process ended without a word, most often for want of memory. Finished jobs "
            "are kept: run the same command again, with --workers 1 if it happens once more."
        ) from None
    except BaseException:
        for future in futures:
            future.cancel()
        raise
    return [results[i] for i in range(len(jobs))]


def _timed(function: Callable[[Job], Result], job: Job) -> tuple[Result, float]:
    """Run one job with one thread; also return its CPU seconds."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    began = time.process_time()
    try:
        return function(job), time.process_time() - began
    finally:
        torch.set_num_threads(threads)


def _rounds(recipes: Sequence[Recipe]) -> list[list[Recipe]]:
    """Return recipes and the ones they start from, those that others start from first."""
    bases = [recipe.base for recipe in recipes if recipe.base is not None]
    return [*(_rounds(bases) if bases else []), list(recipes)]


@dataclasses.dataclass(frozen=True, slots=True)
class _Training:
    """A recipe, the key of its model, and where the model lies that it starts from.

    The keys are made where the run began: its worker processes may start after the code changed.
    """

    recipe: Recipe
    key: str
    base: Path | None


def _training(recipe: Recipe, key: str, scale: Scale) -> _Training:
    base = None if recipe.base is None else _model_at(_model_key(recipe.base, scale), scale)
    return _Training(recipe, key, base)


def _train_one(training: _Training, *, scale: Scale) -> None:
    """Train one model unless another process has just done so."""
    from filelock import FileLock

    from looplens.training import train

    final = _model_at(training.key, scale)
    unfinished = scale.folder / "unfinished" / training.key
    lock = scale.folder / "locks" / training.key
    lock.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(str(lock)):
        if _finished(final):
            return
        train(
            _nameless(training.recipe),
            unfinished / "model",
            progress=False,
            device=scale.device,
            checkpoints=unfinished / "state",
            evaluation_sequences=CARD_SEQUENCES,
            base=training.base,
        )
        final.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(final, ignore_errors=True)
        os.replace(unfinished / "model", final)
        shutil.rmtree(unfinished, ignore_errors=True)


def _nameless(recipe: Recipe) -> Recipe:
    """Return a recipe under the one name of the gallery: names decide no weights."""
    base = None if recipe.base is None else _nameless(recipe.base)
    return dataclasses.replace(recipe, name="gallery", base=base)


def _model_key(recipe: Recipe, scale: Scale) -> str:
    """Hash what decides the weights: the recipe without its name, the code, the device, torch.

    The code is that of :func:`looplens.gallery.sources.of_weights`.
    """
    import torch

    ran = f"{sources.of_weights()} {scale.device.partition(':')[0]} {torch.__version__}"
    where = hashlib.sha256(ran.encode()).hexdigest()[:8]
    return f"{_nameless(recipe).fingerprint()}-{where}"


def _model_at(key: str, scale: Scale) -> Path:
    return scale.folder / "models" / key


def _finished(path: Path) -> bool:
    return (path / "card.json").is_file()


def _result_at(function: Callable[..., Any], key: str, scale: Scale) -> Path:
    inner = function
    while isinstance(inner, functools.partial):
        inner = inner.func
    script = Path(inspect.getfile(inner))
    named = f"{inner.__qualname__}\n{sources.of_measuring(script)}\n{key}"
    return scale.folder / "results" / f"{hashlib.sha256(named.encode()).hexdigest()[:20]}.pickle"
