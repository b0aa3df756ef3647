"""Experiments over chosen tokens of a run, stored in the run as they are done.

What an experiment is, is not known here: it is a function of a model, a run and positions of one
prompt (`looplens.dynamics.laboratory.parts`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import xarray as xr

from looplens.dynamics.laboratory.choosing import Choice, choose, listed
from looplens.dynamics.laboratory.parts import chosen
from looplens.dynamics.laboratory.working import Say, Work
from looplens.dynamics.maps.recorded import recorded
from looplens.dynamics.maps.step_checks import check_weights
from looplens.errors import AnalysisError, InputError
from looplens.models.native import as_looped
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
    What is done is stored every few seconds and at the end, as ``/analysis/dynamics/<part>``, so
    that an interrupted call is gone on with by the same call, and a later one adds tokens.

    Parameters
    ----------
    model : LoopedTransformer or LoopedModel
        The model that was recorded.
    run : StoredRun
        A run with whole states of all tokens.
    parts : str or iterable of str, optional
        Which experiments; ``"all"``, or by default fixed points, spectra, causes and exponents. Of
        the others those that cost far more a token are done for a few of the chosen ones, of every
        regime, unless tokens are given by their numbers.
    tokens, prompts, max_tokens
        Which tokens; see :func:`looplens.dynamics.choose`.
    restart : int
        Whose trajectories.
    again : bool
        Do it anew for tokens that are stored already. It is needed to replace a result that was
        made with another restart or other options.
    options : mapping of str to mapping, optional
        Further arguments by part, such as ``{"spectra": {"k": 8}}``.
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
        If the model is not the one that was recorded, a choice is out of range, or the run holds a
        result that was made with another restart or other options.
    AnalysisError
        If the run does not hold what is needed, or no part succeeded for any token.
    """
    say = say or _silent
    wanted = chosen(parts)
    given = dict(options or {})
    unused = set(given) - {part.name for part in wanted}
    if unused:
        raise InputError(
            f"There are options of {', '.join(sorted(unused))}, but the parts are "
            f"{', '.join(part.name for part in wanted)}."
        )
    if not isinstance(run, StoredRun):
        raise InputError(f"run must be a recorded run (looplens.open_run); got {run!r}.")
    check_weights(as_looped(model), run)
    choice = choose(run, tokens, prompts=prompts, restart=restart, max_tokens=max_tokens)
    _check_step(model, run, choice, restart)
    say(choice.sentence)
    work = [
        Work(
            model,
            run,
            part,
            restart=restart,
            options=given.get(part.name, {}),
            choice=choice,
            again=again,
            say=say,
        )
        for part in wanted
    ]
    _say_what_is_left(work, choice, say)
    try:
        _look(work, progress, say)
    finally:
        for one in work:
            one.store()
    return _found(work, choice)


def _check_step(model: Any, run: StoredRun, choice: Choice, restart: int) -> None:
    """Check that the step is that of the recording, before anything long begins.

    A prompt whose states cannot be used is left to the parts, which say so.
    """
    problems = []
    for prompt in dict.fromkeys(run.tokens["prompt"].values[list(choice.tokens)].tolist()):
        try:
            recorded(model, run, prompt=prompt, restart=restart)
        except AnalysisError as error:
            problems.append(error)
        else:
            return
    raise problems[0]


def _look(work: Sequence[Work], progress: Progress | None, say: Say) -> None:
    """Do every part for one token, say how long the rest may take, and do the rest."""
    total = sum(len(one.todo) for one in work)

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
    # Prompt by prompt, since parts share what they work out of one.
    for prompt in sorted({one.prompt_of(token) for one in work for token in one.todo}):
        for one in work:
            one.look([token for token in one.todo if one.prompt_of(token) == prompt], tell)


def _say_what_is_left(work: Sequence[Work], choice: Choice, say: Say) -> None:
    for one in work:
        if len(one.asked) < len(choice.tokens):
            say(
                f"{one.part.name}: {len(one.asked)} of them, since a token costs much (others by "
                f"their numbers): {listed(one.asked)}"
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
    if not any(one.found is not None for one in work):
        raise next(error for one in work for error in one.errors)
    return Investigation(
        choice=choice,
        results={one.part.name: one.found for one in work if one.found is not None},
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
