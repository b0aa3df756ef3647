"""An opened run as the panels see it: the run, its limits, and texts for what it holds.

Everything that a panel shows of a run comes through here or from the figures of ``looplens.plots``.
It knows nothing of Dash.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterable, Mapping
from inspect import Parameter, signature
from typing import Any

import xarray as xr

from looplens import plots
from looplens.analysis import ANALYZERS, select
from looplens.analysis.dynamics import TITLE, dynamics_results
from looplens.run import Run
from looplens_dashboard.selection import Limits

SHOWN = frozenset({"convergence_heatmap", "trajectory", "restarts", "attention"})
"""Figures that have a panel of their own."""

FILLED = ("prompt", "token", "restart", "layer", "head", "iteration")
"""Arguments of a figure that are taken from the selection."""

_VISIBLE = str.maketrans({" ": "␣", "\n": "⏎", "\t": "⇥", "\r": "␍"})
_LONGEST_TOKEN = 18
_LONGEST_PROMPT = 70


class RememberingRun(Run):
    """A run that reads each stored analysis once: every figure asks for the whole of it again."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__(path)
        self._remembered: dict[str, xr.Dataset] = {}

    def analysis(self, name: str) -> xr.Dataset | None:
        """Return a stored analysis as it was when first asked for; results of the lab as they are.

        Those are made by a command that a figure names, and are looked for whenever one is drawn.
        """
        if name not in self._remembered:
            found = super().analysis(name)
            if found is None or "/" in name:
                return found
            self._remembered[name] = found
        return self._remembered[name]


class View:
    """A run and what the panels ask of it again and again.

    Parameters
    ----------
    path : path
        The directory of the run.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        run = self.run = RememberingRun(path)
        self._computing = threading.Lock()
        starts = run.prompts["first_token"].values
        attention = bool(run.attention_prompts)
        self.limits = Limits(
            first_tokens=(*(int(start) for start in starts), int(run.n_tokens)),
            restarts=int(run.restarts),
            iterations=int(run.iterations),
            kept_iterations=() if run.all_iterations else tuple(run.kept_iterations),
            state_layers=tuple(run.recorded_layers) if "resid_post" in run.site_names else (),
            attention_layers=tuple(run.recorded_layers) if attention else (),
            heads=int(run.attrs.get("n_heads") or 0) if attention else 0,
            figures=tuple(figures()),
        )

    @property
    def name(self) -> str:
        """Name of the run: the last part of its path."""
        return self.run.name

    def results(self, name: str) -> xr.Dataset:
        """Return an analysis; panels that ask for one at the same time wait for one computation.

        Call this before a figure that uses the analysis, which then finds it done.
        """
        with self._computing:
            return self.run.results(name)

    def draw(self, name: str, values: Mapping[str, Any]) -> plots.Figure:
        """Draw one of `figures`.

        Parameters
        ----------
        name : str
            Which.
        values : mapping
            By names of arguments; those that the figure has are used. A layer or head that is None
            leaves the figure's own default.
        """
        figure = figures()[name]
        known = signature(figure).parameters
        chosen = {key: value for key, value in values.items() if key in known and value is not None}
        # Nobody else waits for an analysis that takes long and that only this figure shows.
        analyzer = ANALYZERS.get(name)
        costly = analyzer is not None and not analyzer.standard
        with contextlib.nullcontext() if costly else self._computing:
            return figure(self.run, **chosen)

    def numbers(self, token: int, restart: int) -> dict[str, list[tuple[str, str, str]]]:
        """Return what the stored analyses say of one trajectory in one number or word.

        One that another version stored is made anew. What the dynamics lab stored is of one restart
        and shown for any.

        Returns
        -------
        dict
            By title of the analysis: (name, value, what it is).
        """
        found: dict[str, list[tuple[str, str, str]]] = {}
        stored = set(self.run.analyses)
        for name, analyzer in ANALYZERS.items():
            if name not in stored:
                continue
            with self._computing:
                piece = select(self.run, name, tokens=token, restart=restart)
                whole = self.run.results(name)
            if rows := _rows(piece, whole):
                found[analyzer.title] = rows
        for name, whole in dynamics_results(self.run).items():
            if token in whole["token"].values and (rows := _rows(whole.sel(token=token), whole)):
                of = f" of restart {whole.attrs['restart']}" if "restart" in whole.attrs else ""
                found[f"{TITLE}: {name.replace('_', ' ')}{of}"] = rows
        return found

    def token_text(self, token: int) -> str:
        """Return the text of a token of the run, its whitespace visible, shortened."""
        return visible(str(self.run.tokens["text"].values[token]))

    def prompt_label(self, prompt: int) -> str:
        """Return the number and the beginning of the text of a prompt."""
        text = " ".join(str(self.run.prompts["text"].values[prompt]).split())
        shown = text if len(text) <= _LONGEST_PROMPT else text[: _LONGEST_PROMPT - 1] + "…"
        return f"{prompt} · {shown}"

    def id_texts(self, ids: Iterable[int]) -> dict[str, str]:
        """Return a text for each token id; one without a text in the run shows as its number."""
        known = self.run.vocabulary
        return {str(i): visible(known[i]) if i in known else f"id {i}" for i in map(int, ids)}


def figures() -> dict[str, Callable[..., Any]]:
    """Return the figures that no panel of their own shows and that a selection can fill.

    The regimes come first: they are of the whole run and shown until another one is chosen.
    """
    return {
        name: figure
        for name, figure in sorted(
            plots.FIGURES.items(), key=lambda item: (item[0] != "regimes", item[0])
        )
        if name not in SHOWN
        and all(
            parameter.name in FILLED or parameter.default is not Parameter.empty
            for parameter in list(signature(figure).parameters.values())[1:]
        )
    }


def visible(text: str, longest: int = _LONGEST_TOKEN) -> str:
    """Return a text with its whitespace visible; the middle of a longer one is left out."""
    shown = text.translate(_VISIBLE) if text else "∅"
    if len(shown) <= longest:
        return shown
    head = longest // 2
    return f"{shown[:head]}…{shown[len(shown) - (longest - 1 - head) :]}"


def _rows(piece: xr.Dataset, whole: xr.Dataset) -> list[tuple[str, str, str]]:
    """Return the single values of a piece of a result: name, value, what it is."""
    return [
        (
            str(variable).replace("_", " "),
            _short(values.values.item()),
            str(values.attrs.get("long_name", "")),
        )
        for variable, values in piece.data_vars.items()
        if not values.dims and "token" in whole[variable].dims
    ]


def _short(value: Any) -> str:
    """Write a number or word of an analysis; an empty one, or one that is not known, as a dash."""
    if isinstance(value, float):
        return f"{value:.4g}" if value == value else "–"
    return str(value).replace("_", " ") or "–"
