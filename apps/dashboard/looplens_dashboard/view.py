"""An opened run as the panels see it: the run, its limits, and texts for what it holds.

Everything that a panel shows of a run comes through here or from the figures of ``looplens.plots``.
It knows nothing of Dash.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Mapping
from functools import cached_property
from typing import Any

from looplens import plots
from looplens.run import Run
from looplens_dashboard.live import LiveSession
from looplens_dashboard.panels.call import Call
from looplens_dashboard.selection import Choice, Limits
from looplens_dashboard.workspace import Workspace

_MOST_REMEMBERED = 64
_LONGEST_TOKEN = 18
_LONGEST_PROMPT = 70


class View:
    """A run and what the panels ask of it again and again.

    Parameters
    ----------
    run : looplens.Run
        The opened run.
    key : str
        Its key in the workspace.
    views : Views
        The other runs.
    choices : mapping of str to Choice
        What the panels let one choose.
    """

    def __init__(self, run: Run, key: str, views: Views, choices: Mapping[str, Choice]) -> None:
        self.run = run
        self.key = key
        self.views = views
        self._computing = threading.RLock()
        self._keeping = threading.Lock()
        self._made: OrderedDict[Hashable, tuple[Any, Any]] = OrderedDict()
        starts = run.prompts["first_token"].values
        attention = bool(run.attention_prompts)
        layers = tuple(run.recorded_layers)
        self.limits = Limits(
            run=key,
            first_tokens=[*map(int, starts), int(run.n_tokens)],
            restarts=int(run.restarts),
            iterations=int(run.iterations),
            kept_iterations=() if run.all_iterations else tuple(run.kept_iterations),
            layers=layers if attention or "resid_post" in run.site_names else (),
            attention_layers=layers if attention else (),
            heads=int(run.attrs.get("n_heads") or 0) if attention else 0,
            choices=choices,
            options={name: choice.options_of(self) for name, choice in choices.items()},
        )

    @property
    def name(self) -> str:
        """Name of the run: the last part of its path."""
        return self.run.name

    def draw(self, call: Call, theme: str) -> plots.Figure:
        """Make a call; one at a time, because what it computes serves the next one as well."""
        with self._computing:
            return call.draw(self.run, theme)

    def remembered(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """Return what was made for a key while the stored analyses are the same, or make it."""
        stamp = self.run.analyses_stamp()
        kept = self._made.get(key)
        if kept is None or kept[0] != stamp:
            kept = stamp, make()
            with self._keeping:
                self._made[key] = kept
                while len(self._made) > _MOST_REMEMBERED:
                    self._made.popitem(last=False)
        return kept[1]

    @cached_property
    def positions(self) -> Any:
        """Position of every token in its prompt, (token)."""
        return self.run.tokens["position"].values

    @cached_property
    def _texts(self) -> Any:
        return self.run.tokens["text"].values

    @cached_property
    def _prompt_texts(self) -> Any:
        return self.run.prompts["text"].values

    def token_text(self, token: int) -> str:
        """Return the text of a token of the run, its whitespace visible, shortened."""
        return plots.visible_text(str(self._texts[token]), most=_LONGEST_TOKEN)

    def prompt_label(self, prompt: int) -> str:
        """Return the number and the beginning of the text of a prompt."""
        text = " ".join(str(self._prompt_texts[prompt])[: 8 * _LONGEST_PROMPT].split())
        shown = text if len(text) <= _LONGEST_PROMPT else text[: _LONGEST_PROMPT - 1] + "…"
        return f"{prompt} · {shown}"

    def prompts_with(self, text: str, most: int) -> list[int]:
        """Return the first prompts whose label contains a text, at most so many."""
        wanted = text.casefold().strip()
        found = []
        for prompt in range(self.limits.prompts):
            if wanted in self.prompt_label(prompt).casefold():
                found.append(prompt)
                if len(found) == most:
                    break
        return found

    def id_texts(self, ids: Iterable[int]) -> dict[str, str]:
        """Return a text for each token id; one without a text in the run shows as its number."""
        known = self.run.vocabulary
        return {
            str(i): plots.visible_text(known[i], most=_LONGEST_TOKEN) if i in known else f"id {i}"
            for i in map(int, ids)
        }


class Views:
    """The views of the runs of a workspace, each made when it is first looked at.

    Parameters
    ----------
    workspace : Workspace
        Which runs there are.
    choices : mapping of str to Choice
        What the panels let one choose.
    live : LiveSession, optional
        What records from the page.
    """

    def __init__(
        self,
        workspace: Workspace,
        choices: Mapping[str, Choice],
        *,
        live: LiveSession | None = None,
    ) -> None:
        self.workspace = workspace
        self.live = live
        self._choices = choices
        self._lock = threading.Lock()
        self._views: dict[str, View] = {}

    def open(self, key: str) -> View:
        """Return the view of a run.

        Raises
        ------
        InputError
            If there is no run of that key.
        NotARunError, SchemaVersionError, CorruptRunError
            If it cannot be opened.
        """
        run = self.workspace.open(key)
        with self._lock:
            view = self._views.get(key)
            if view is None or view.run is not run:
                view = self._views[key] = View(run, key, self, self._choices)
                listed = {entry.key for entry in self.workspace.entries(seconds=0)}
                for gone in set(self._views) - listed:
                    del self._views[gone]
            return view

    def default(self) -> str:
        """Return the key of the run that is shown when none is asked for."""
        return self.workspace.default_key
