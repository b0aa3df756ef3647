"""An opened run as the panels see it: the run, its limits, and texts for what it holds.

Everything that a panel shows of a run comes through here or from the figures of ``looplens.plots``.
It knows nothing of Dash.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable

import xarray as xr

from looplens.run import Run
from looplens_dashboard.selection import Limits

_VISIBLE = str.maketrans({" ": "␣", "\n": "⏎", "\t": "⇥", "\r": "␍"})
_LONGEST_TOKEN = 18
_LONGEST_PROMPT = 70


class RememberingRun(Run):
    """A run that reads each stored analysis once: every figure asks for the whole of it again."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__(path)
        self._remembered: dict[str, xr.Dataset | None] = {}

    def analysis(self, name: str) -> xr.Dataset | None:
        """Return a stored analysis as it was when first asked for."""
        if name not in self._remembered:
            self._remembered[name] = super().analysis(name)
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


def visible(text: str, longest: int = _LONGEST_TOKEN) -> str:
    """Return a text with its whitespace visible; the middle of a longer one is left out."""
    shown = text.translate(_VISIBLE) if text else "∅"
    if len(shown) <= longest:
        return shown
    head = longest // 2
    return f"{shown[:head]}…{shown[len(shown) - (longest - 1 - head) :]}"
