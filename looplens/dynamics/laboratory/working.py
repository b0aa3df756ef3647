"""One experiment over tokens of a run: what is stored of it, what is left, and what it took."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from inspect import signature
from typing import Any

import torch
import xarray as xr

from looplens.dynamics.laboratory.choosing import Choice
from looplens.dynamics.laboratory.joining import join
from looplens.dynamics.laboratory.parts import Part
from looplens.errors import CorruptRunError, InputError, LoopLensError, near_matches
from looplens.store import StoredRun
from looplens.store.format.spec import as_json

GROUP = "dynamics"
_OF_STORE = ("analysis", "version", "parameters", "input_hash", "created")
_SECONDS = 10.0  # between two writes, which a kill may lose, and
_WRITES = 10  # no less than this many times what a write takes

Say = Callable[[str], None]


class Work:
    """A part over the chosen tokens.

    Parameters
    ----------
    model : LoopedTransformer or LoopedModel
        The model that was recorded.
    run : StoredRun
        The run.
    part : Part
        The experiment.
    restart : int
        Whose trajectories.
    options : mapping
        Further arguments of the experiment.
    choice : Choice
        The tokens.
    again : bool
        Whether what is stored may be made anew.
    say : callable
        Hears what is unusual about what is stored.

    Attributes
    ----------
    asked, todo, done : list of int
        Tokens that the part is for, those that are left, and those that were looked at.
    found : Dataset or None
        All that is known of the part now, of earlier calls too.
    problems : dict of str to list of int
        By message: tokens of which there is no result.
    errors : list of LoopLensError
        The same as exceptions.
    seconds : float
        What it took so far.
    """

    def __init__(
        self,
        model: Any,
        run: StoredRun,
        part: Part,
        *,
        restart: int,
        options: Mapping[str, Any],
        choice: Choice,
        again: bool,
        say: Say,
    ) -> None:
        self.model, self.run, self.part, self.restart = model, run, part, restart
        self.options, self.say = dict(options), say
        self._name = f"{GROUP}/{part.name}"
        self.parameters = self._parameters()
        self.found = self._usable(again)
        self.asked = choice.few(part.most)
        held = set() if self.found is None or again else set(self.found["token"].values.tolist())
        self.todo = [token for token in self.asked if token not in held]
        self.done: list[int] = []
        self.problems: dict[str, list[int]] = {}
        self.errors: list[LoopLensError] = []
        self.seconds = 0.0
        self._unwritten, self._due = False, time.perf_counter() + _SECONDS

    @property
    def settled(self) -> int:
        """Tokens that need no more work, whatever came of it."""
        return len(self.done) + sum(map(len, self.problems.values()))

    def prompt_of(self, token: int) -> int:
        """Return the prompt of a token."""
        return int(self.run.tokens["prompt"].values[token])

    def latest(self) -> list[int]:
        """Return the token that is left whose position in its prompt is the latest, if any."""
        position = self.run.tokens["position"].values
        return [max(self.todo, key=lambda token: int(position[token]))] if self.todo else []

    def look(self, tokens: Sequence[int], tell: Callable[[float], None]) -> None:
        """Do the experiment on tokens of one prompt.

        Meanwhile `tell` hears how many of them are done. The result is stored every now and then;
        the caller does so at the end, see :meth:`store`.
        """
        if not tokens:
            return
        started = time.perf_counter()
        prompt = self.prompt_of(tokens[0])
        begin = self.run.token_range(prompt).start
        try:
            found = self.part.call(
                self.model,
                self.run,
                prompt=prompt,
                restart=self.restart,
                tokens=[token - begin for token in tokens],
                progress=lambda done, total: tell(len(tokens) * done / max(total, 1)),
                **self.options,
            )
            self.found = found if self.found is None else join([self.found, found])
        except LoopLensError as error:
            self.errors.append(error)
            self.problems.setdefault(str(error), []).extend(tokens)
        else:
            self._unwritten = True
            if time.perf_counter() >= self._due:
                self.store()
            self.done += tokens
        self.todo = [token for token in self.todo if token not in tokens]
        tell(0)
        self.seconds += time.perf_counter() - started

    def store(self) -> None:
        """Write what is known into the run, unless it is there."""
        if not self._unwritten or self.found is None:
            return
        started = time.perf_counter()
        version, parameters = self.part.version, self.parameters
        self.run.write_analysis(self._name, self.found, version=version, parameters=parameters)
        self._unwritten, now = False, time.perf_counter()
        self._due = now + max(_SECONDS, _WRITES * (now - started))

    def _parameters(self) -> dict[str, Any]:
        """Return what the experiment is done with, as it is stored; checks the names."""
        known = list(signature(self.part.call).parameters)[2:]
        own = ("prompt", "restart", "tokens", "progress")
        for name in self.options:
            if name in own:
                raise InputError(
                    f"The options of {self.part.name} cannot hold {name!r}, which is chosen for "
                    "all parts: pass tokens=, prompts=, restart= or progress= to investigate."
                )
            if name not in known:
                raise InputError(
                    f"{self.part.function} takes no argument {name!r}.{near_matches(name, known)}"
                )
        named = {
            name: str(value).removeprefix("torch.") if isinstance(value, torch.dtype) else value
            for name, value in self.options.items()
        }
        found: dict[str, Any] = as_json(
            {"restart": self.restart, **named}, f"The options of {self.part.name}"
        )
        return found

    def _usable(self, again: bool) -> xr.Dataset | None:
        """Return what is stored, if new tokens can be added to it.

        Raises
        ------
        InputError
            If it was made with other parameters, and `again` does not allow to replace it.
        """
        try:
            found = self.run.analysis(self._name)
        except CorruptRunError as error:
            self.say(f"{self._name} is made anew: {error}")
            return None
        if found is None:
            return None
        what = f"{self._name} of {found.sizes['token']} tokens"
        version = found.attrs.get("version")
        if str(version) != str(self.part.version):
            self.say(f"{what} is of version {version} of the experiment, and is replaced")
            return None
        if found.attrs.get("input_hash") != self.run.input_hash():
            self.say(f"{what} is of another recording, and is replaced")
            return None
        stored = json.loads(found.attrs.get("parameters", "{}"))
        if stored != self.parameters:
            old, new = _differences(stored, self.parameters)
            if not again:
                raise InputError(
                    f"{self.run.path} holds {what}, made with {old}; now it is {new}. A run keeps "
                    "one result of a part: replace all of it with again=True (--again), or work in "
                    "a copy of the run."
                )
            self.say(f"{what}, made with {old}, is replaced")
            return None
        found.attrs = {key: value for key, value in found.attrs.items() if key not in _OF_STORE}
        return found


def _differences(stored: Mapping[str, Any], asked: Mapping[str, Any]) -> tuple[str, str]:
    """Say in which parameters two results differ: those of the one, and of the other."""
    differ = [
        name
        for name in dict.fromkeys((*stored, *asked))
        if name not in stored or name not in asked or stored[name] != asked[name]
    ]

    def said(values: Mapping[str, Any]) -> str:
        return ", ".join(
            f"{name}={values[name]!r}" if name in values else f"{name} by default"
            for name in differ
        )

    return said(stored), said(asked)
