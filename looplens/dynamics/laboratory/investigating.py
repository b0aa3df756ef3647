"""Experiments over chosen tokens of a run, stored in the run as they are done.

What an experiment is, is not known here: it is a function of a model, a run and positions of one
prompt (`looplens.dynamics.laboratory.parts`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import numpy as np
import xarray as xr

from looplens.dynamics.laboratory.choosing import Choice, choose
from looplens.dynamics.laboratory.parts import chosen
from looplens.dynamics.laboratory.working import Say, Work
from looplens.dynamics.maps.recorded import recorded
from looplens.errors import InputError
from looplens.models.native import as_looped
from looplens.recording.streaming.weights import weights_digest
from looplens.store import StoredRun

Progress = Callable[[float, int], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Investigation:
    """What `investigate` did.

    Attributes
    ----------
    choice : Choice
        Which tokens, and why these.
    results : dict of str to Dataset
        By name of the part: all that the run holds of it now, of earlier calls too.
    done : dict of str to list of int
        By name of the part: the tokens that were looked at in this call.
    failed : dict of str to str
        By name of the part: why some tokens have no result.
    """

    choice: Choice
    results: dict[str, xr.Dataset] = field(default_factory=dict)
    done: dict[str, list[int]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)


def investigate(
    model: Any,
    run: StoredRun,
    parts: str | Iterable[str] | None = None,
    *,
    tokens: str | int | Sequence[int] | None = None,
    prompts: int | Sequence[int] | None = None,
    restart: int = 0,
    max_tokens: int = 64,
    again: bool = False,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    progress: Progress | None = None,
    say: Say | None = None,
) -> Investigation:
    """Ask why tokens of a run settle, orbit or drift, and store the answers in the run.

    Every part is done for one token alone, the latest in its prompt, since a token costs as much
    as those that it sees; this tells how long the rest may take. Then it goes on prompt by prompt.
    What is done is stored at once, as ``/analysis/dynamics/<part>``, so that an interrupted call is
    gone on with by the same call, and a later one adds tokens.

    Parameters
    ----------
    model : LoopedTransformer or LoopedModel
        The model that was recorded.
    run : StoredRun
        A run with whole states of all tokens.
    parts : str or iterable of str, optional
        Which experiments; ``"all"``, or by default fixed points, spectra, causes and exponents. The
        others cost far more a token and are done for a few of the chosen ones, of every regime.
    tokens, prompts, max_tokens
        Which tokens; see :func:`looplens.dynamics.choose`.
    restart : int
        Whose trajectories.
    again : bool
        Do it anew for tokens that are stored already.
    options : mapping of str to mapping, optional
        Further arguments by part, such as ``{"spectra": {"k": 8}}``. A stored result that was made
        with others is replaced.
    progress : callable, optional
        Called with how many experiments on tokens are done (1.5: one and a half), and all of them.
    say : callable, optional
        Called with sentences: what was chosen, how long it takes, what failed.

    Returns
    -------
    Investigation
        Datasets, what was done now, and what failed.

    Raises
    ------
    InputError
        If the model is not the one that was recorded, or a choice is out of range.
    AnalysisError
        If the run does not hold what is needed, or no part succeeded for any token.
    """
    say = say or _silent
    wanted = chosen(parts)
    given = {name: dict(values) for name, values in (options or {}).items()}
    chosen(given) if given else None  # a misspelt name
    check_model(model, run)
    of = None if prompts is None else [int(n) for n in np.atleast_1d(np.asarray(prompts))]
    choice = choose(run, tokens, prompts=of, restart=restart, max_tokens=max_tokens)
    # The step, and whether it is that of the recording, before anything long begins.
    first = int(run.tokens["prompt"].values[choice.tokens[0]])
    recorded(model, run, prompt=first, restart=restart)
    say(choice.sentence)
    work = [
        Work(model, run, part, restart, given.get(part.name, {}), choice, again, say)
        for part in wanted
    ]
    total = sum(len(one.todo) for one in work)
    _say_what_is_left(work, choice, say)

    def tell(underway: float = 0) -> None:
        if progress is not None:
            progress(sum(one.settled for one in work) + underway, total)

    started = time.perf_counter()
    for one in work:
        one.look(one.latest(), tell)
    rest = sum(len(one.todo) for one in work)
    if rest:
        longest = sum(one.seconds * len(one.todo) for one in work)
        took = f"one token took {_duration(time.perf_counter() - started)}"
        say(f"{took}; the rest, which runs together, at most about {_duration(longest)}")
    for one in work:
        for _, same_prompt in groupby(list(one.todo), key=one.prompt_of):
            one.look(list(same_prompt), tell)
    return _found(work, choice)


def check_model(model: Any, run: StoredRun) -> None:
    """Check by its weights that a model is the one that was recorded.

    Raises
    ------
    InputError
        If the weights differ, or there is no run.
    """
    if not isinstance(run, StoredRun):
        raise InputError(f"run must be a recorded run (looplens.open_run); got {run!r}.")
    looped = as_looped(model)
    expected, seen = run.model.get("weights_digest"), weights_digest(looped)
    if None not in (expected, seen) and expected != seen:
        raise InputError(
            f"The weights of {looped.model_name} (digest {seen}) are not those that the run "
            f"{run.path} was recorded with ({run.model_name}, digest {expected}). Pass the model "
            "that was recorded, in the same dtype."
        )


def _say_what_is_left(work: Sequence[Work], choice: Choice, say: Say) -> None:
    for one in work:
        if len(one.asked) < len(choice.tokens):
            say(
                f"{one.part.name}: {len(one.asked)} of them, since a token costs much: "
                f"{', '.join(map(str, one.asked))}"
            )
        if len(one.todo) < len(one.asked):
            held = len(one.asked) - len(one.todo)
            say(f"{one.part.name}: {held} of {len(one.asked)} tokens are stored already")


def _found(work: Sequence[Work], choice: Choice) -> Investigation:
    failed: dict[str, str] = {}
    for one in work:
        for problem, tokens in one.problems.items():
            text = f"{len(tokens)} of {len(one.asked)} tokens have no result. {problem}"
            failed[one.part.name] = f"{failed.get(one.part.name, '')} {text}".strip()
            one.say(f"{one.part.name}: {text}")
    if not any(one.stored is not None for one in work):
        raise next(error for one in work for error in one.errors)
    return Investigation(
        choice=choice,
        results={one.part.name: one.stored for one in work if one.stored is not None},
        done={one.part.name: sorted(one.done) for one in work},
        failed=failed,
    )


def _silent(sentence: str) -> None:
    """Say nothing."""


def _duration(seconds: float) -> str:
    """Write a time as people say it."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
