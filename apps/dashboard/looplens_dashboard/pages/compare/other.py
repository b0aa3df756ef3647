"""The run that the selected one is compared with, and calls of figures of both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from looplens import plots
from looplens.analysis import shared_tokens
from looplens.errors import AnalysisError, InputError, near_matches
from looplens.run import Run
from looplens_dashboard.entries import Entry
from looplens_dashboard.panels.call import Call
from looplens_dashboard.selection import Choice, Selection
from looplens_dashboard.view import View

OTHER = Choice(name="other", label="Run to compare with", control="none", longest=400)
"""Key of the other run; empty for the first one that fits."""

MOST_TOKENS = 5000
"""Tokens of which the numbers of whole runs are compared: more take seconds and say the same."""

N_BOOT = 400


def others(view: View) -> list[Entry]:
    """Return the runs that this one can be compared with, those of the same model first."""
    own = view.views.workspace.entry(view.key)
    found = [one for one in view.views.workspace.entries(seconds=0) if one.key != view.key]
    return sorted(found, key=lambda one: (one.problem is not None, one.model != own.model))


def other_key(view: View, selection: Selection) -> str:
    """Return the key of the other run.

    Raises
    ------
    InputError
        If there is no run of the chosen key, or no other run at all.
    """
    keys = [one.key for one in others(view) if one.problem is None]
    wanted = selection["other"]
    if wanted and wanted not in keys:
        raise InputError(
            f"There is no run {wanted[:60]!r} to compare with.{near_matches(wanted, keys)} "
            "Choose one of the list above."
        )
    if not keys:
        raise AnalysisError(
            "There is nothing to compare with: only one run is open. Start the app with several, "
            "looplens app RUN OTHER, or with a folder of runs, or record another one on the page "
            "Live."
        )
    return wanted or keys[0]


def other_view(view: View, selection: Selection) -> View:
    """Return the view of the other run; see `other_key` for what it raises."""
    return view.views.open(other_key(view, selection))


def tokens_of_both(view: View, other: View, selection: Selection) -> dict[int, int]:
    """Return the selected tokens that both runs hold: number in this run, number in the other."""
    known: dict[int, int] = {}
    for prompt in {view.limits.prompt_of(token) for token in selection.tokens}:
        try:
            pairs = shared_tokens(view.run, other.run, prompt)
        except InputError as error:
            raise AnalysisError(str(error)) from error  # nothing is wrong with either run
        known |= dict(zip(*(numbers.tolist() for numbers in pairs), strict=True))
    found = {token: known[token] for token in selection.tokens if token in known}
    if not found:
        raise AnalysisError(f"{other.name} does not hold the selected token.")
    return found


@dataclass(frozen=True, kw_only=True, slots=True)
class OtherCall(Call):
    """The call of a figure on the other run, in which tokens go by their numbers in this one.

    Parameters
    ----------
    other : looplens.Run
        The other run.
    numbers : mapping of int to int
        Number of a token in this run, by that in the other.
    """

    other: Run
    numbers: Mapping[int, int] = field(default_factory=dict)

    def draw(self, run: Run, theme: str = "light") -> plots.Figure:
        """Draw the figure of the other run."""
        made = Call(function=self.function, arguments=self.arguments).draw(self.other, theme)
        for trace in made.data:
            meta = trace.meta
            if isinstance(meta, dict) and meta.get("token") in self.numbers:
                trace.meta = {**meta, "token": self.numbers[meta["token"]]}
        return made

    def code(self, run: Run, theme: str = "light") -> str:
        """Return Python that makes the same figure in a notebook."""
        return Call(function=self.function, arguments=self.arguments).code(self.other, theme)

    def text(self, theme: str = "light") -> str:
        """Return the call as Python."""
        text = Call(function=self.function, arguments=self.arguments).text(theme)
        return text.replace("(run", f"({opened(self.other)}", 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class PairCall(Call):
    """The call of a figure of two runs.

    Parameters
    ----------
    other : looplens.Run
        The other run.
    """

    other: Run

    def draw(self, run: Run, theme: str = "light") -> plots.Figure:
        """Make the call."""
        try:
            return getattr(plots, self.function)(run, self.other, **self._given(), theme=theme)
        except InputError as error:
            raise AnalysisError(str(error)) from error  # nothing is wrong with either run

    def code(self, run: Run, theme: str = "light") -> str:
        """Return Python that makes the same figure in a notebook."""
        call = self.text(theme).replace(opened(self.other), "other", 1)
        return _code(run, self.other, [f"figure = {call}"])

    def text(self, theme: str = "light") -> str:
        """Return the call as Python."""
        text = Call(function=self.function, arguments=self.arguments).text(theme)
        return text.replace("(run", f"(run, {opened(self.other)}", 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class ComparisonCall(Call):
    """The call of a figure of a comparison of two runs.

    Parameters
    ----------
    other : looplens.Run
        The other run.
    names : tuple of str
        Analyses that are compared.
    comparison : looplens.analysis.Comparison, optional
        What was compared; made when it is not given.
    """

    other: Run
    names: tuple[str, ...]
    comparison: Any = None

    def draw(self, run: Run, theme: str = "light") -> plots.Figure:
        """Make the call."""
        found = self.comparison
        if found is None:
            found = run.compare(self.other, self.names, **OPTIONS)
        try:
            return getattr(plots, self.function)(found, **self._given(), theme=theme)
        except InputError as error:
            raise AnalysisError(str(error)) from error  # the runs do not both have it

    def code(self, run: Run, theme: str = "light") -> str:
        """Return Python that makes the same figure in a notebook."""
        compared = self._compared("other")
        call = self._call("comparison", theme)
        return _code(run, self.other, [f"comparison = {compared}", f"figure = {call}"])

    def text(self, theme: str = "light") -> str:
        """Return the call as Python."""
        return self._call(self._compared(opened(self.other)), theme)

    def _compared(self, other: str) -> str:
        options = ", ".join(f"{name}={value!r}" for name, value in OPTIONS.items())
        return f"run.compare({other}, {list(self.names)!r}, {options})"

    def _call(self, compared: str, theme: str) -> str:
        text = Call(function=self.function, arguments=self.arguments).text(theme)
        return text.replace("(run", f"({compared}", 1)


OPTIONS = {"most_tokens": MOST_TOKENS, "n_boot": N_BOOT, "summaries": False}


def opened(run: Run) -> str:
    """Return Python that opens a run."""
    return f"looplens.open_run({str(run.path)!r})"


def _code(run: Run, other: Run, lines: list[str]) -> str:
    return "\n".join(
        [
            "import looplens",
            "from looplens import plots",
            "",
            f"run = {opened(run)}",
            f"other = {opened(other)}",
            *lines,
            "figure.show()",
            "",
        ]
    )
