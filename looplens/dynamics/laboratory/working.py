"""One experiment over tokens of a run: what is stored of it, what is left, and what it took."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from inspect import signature
from typing import Any

import xarray as xr

from looplens.dynamics.laboratory.choosing import Choice
from looplens.dynamics.laboratory.joining import join
from looplens.dynamics.laboratory.parts import Part
from looplens.errors import CorruptRunError, InputError, LoopLensError, near_matches
from looplens.store import StoredRun
from looplens.store.format.spec import as_json

GROUP = "dynamics"
_OF_STORE = ("analysis", "version", "parameters", "input_hash", "created")

Say = Callable[[str], None]


class Work:
    """A part over the chosen tokens.

    Attributes
    ----------
    asked, todo, done : list of int
        Tokens that the part is for, those that are left, and those that were looked at.
    stored : Dataset or None
        All that the run holds of the part now, if new tokens can be added to it.
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
        restart: int,
        options: dict[str, Any],
        choice: Choice,
        again: bool,
        say: Say,
    ) -> None:
        self.model, self.run, self.part, self.restart = model, run, part, restart
        self.options, self.say = options, say
        known = list(signature(part.call).parameters)
        for name in options:
            if name not in known[2:]:
                raise InputError(
                    f"{part.function} takes no argument {name!r}.{near_matches(name, known[2:])}"
                )
        parameters = {"restart": restart, "weights": run.model.get("weights_digest"), **options}
        self.parameters = as_json(parameters, f"The options of {part.name}")
        self.stored = self._usable()
        self.asked = choice.few(part.most)
        held = set() if self.stored is None or again else set(self.stored["token"].values.tolist())
        self.todo = [token for token in self.asked if token not in held]
        self.done: list[int] = []
        self.problems: dict[str, list[int]] = {}
        self.errors: list[LoopLensError] = []
        self.seconds = 0.0

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
        """Do the experiment on tokens of one prompt, and store what it says.

        Meanwhile `tell` hears how many of them are done.
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
        except LoopLensError as error:
            self.errors.append(error)
            self.problems.setdefault(str(error), []).extend(tokens)
        else:
            whole = found if self.stored is None else join([self.stored, found])
            self._write(whole)
            self.stored = whole
            self.done += tokens
        self.todo = [token for token in self.todo if token not in tokens]
        tell(0)
        self.seconds += time.perf_counter() - started

    def _write(self, found: xr.Dataset) -> None:
        self.run.write_analysis(
            f"{GROUP}/{self.part.name}",
            found,
            version=self.part.version,
            parameters=self.parameters,
        )

    def _usable(self) -> xr.Dataset | None:
        """Return what is stored, if new tokens can be added to it."""
        name = f"{GROUP}/{self.part.name}"
        try:
            found = self.run.analysis(name)
        except CorruptRunError as error:
            self.say(f"{name} is made anew: {error}")
            return None
        if found is None:
            return None
        same = (
            str(found.attrs.get("version")) == str(self.part.version)
            and found.attrs.get("input_hash") == self.run.input_hash()
            and json.loads(found.attrs.get("parameters", "{}"))
            == json.loads(json.dumps(self.parameters))
        )
        if not same:
            self.say(f"{name} was made in another way ({found.attrs.get('parameters')}): replaced")
            return None
        found.attrs = {key: value for key, value in found.attrs.items() if key not in _OF_STORE}
        return found
