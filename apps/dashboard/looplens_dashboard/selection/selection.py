"""What the app looks at: one selection of all panels.

A selection is the same set of named texts in three places: the store ``selection`` in the browser,
the values of the controls, and the address. :func:`looplens_dashboard.selection.read` turns texts
into a selection; this module is what panels are given.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlencode

LOOP_STATE = "state"
"""Value of ``layer`` that means the loop state instead of a core layer."""

MEAN_HEAD = "mean"
"""Value of ``head`` that means the mean over heads."""

THEMES = ("light", "dark")

KEYS = ("run", "prompt", "token", "also", "restart", "layer", "head", "iteration", "theme")
"""Shared parts of every address, in the order in which they are written; choices come after."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Selection:
    """One valid view of a run.

    Parameters
    ----------
    page : str
        Name of the page; the path of the address.
    run : str
        Key of the run.
    prompt, token, restart : int
        Prompt, global token number (it lies in that prompt) and restart.
    also : tuple of int
        Further tokens, of any prompt, that are shown beside it where several can be.
    layer : int or None
        Core layer; None for the loop state.
    head : int or None
        Attention head; None for the mean over heads.
    iteration : int
        Where the scrubber stands: 0 to T, or one of those that were kept.
    theme : {"light", "dark"}
        Colours of the page.
    attention_layer : int
        The layer, or the last one with attention for the loop state; not in the address.
    chosen : mapping of str to str
        Value of every choice of the panels, by name; `selection["basis"]` reads one.
    defaults : mapping of str to str
        What the address leaves out.
    """

    page: str
    run: str
    prompt: int
    token: int
    also: tuple[int, ...] = ()
    restart: int = 0
    layer: int | None = None
    head: int | None = None
    iteration: int
    theme: str = "light"
    attention_layer: int = 0
    chosen: Mapping[str, str] = field(default_factory=dict)
    defaults: Mapping[str, str] = field(default_factory=dict)

    def __getitem__(self, name: str) -> str:
        """Return the value of a choice."""
        return self.chosen[name]

    def several(self, name: str) -> list[str]:
        """Return the values of a choice of which several can be chosen."""
        return [part for part in self.chosen[name].split(",") if part]

    @property
    def tokens(self) -> tuple[int, ...]:
        """The selected token and those beside it."""
        return (self.token, *self.also)

    def values(self) -> dict[str, str]:
        """Return the selection as texts, the way that the address and the controls hold it."""
        return {
            "page": self.page,
            "run": self.run,
            "prompt": str(self.prompt),
            "token": str(self.token),
            "also": ",".join(map(str, self.also)),
            "restart": str(self.restart),
            "layer": LOOP_STATE if self.layer is None else str(self.layer),
            "head": MEAN_HEAD if self.head is None else str(self.head),
            "iteration": str(self.iteration),
            "theme": self.theme,
            **self.chosen,
        }

    def address(self) -> str:
        """Return path and query that restore this selection, without what is at its default."""
        values = self.values()
        shown = {
            name: values[name]
            for name in (*KEYS, *self.chosen)
            if values[name] != self.defaults.get(name)
        }
        return f"/{self.page}?{urlencode(shown)}"
