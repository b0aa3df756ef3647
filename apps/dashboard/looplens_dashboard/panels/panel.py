"""What a panel is: a call chosen by the selection, and where it stands on its page.

A panel says which parts of the selection it depends on (``keys``); the browser asks the server for
it only when one of them changes. The iteration is never among them: moving the scrubber asks the
server nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dash.development.base_component import Component

from looplens_dashboard.panels.call import Call
from looplens_dashboard.selection import Choice, Selection
from looplens_dashboard.view import View

FOLLOWED = ("theme", "run")
"""Parts of the selection that every panel depends on."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Panel:
    """One panel of the app.

    Parameters
    ----------
    name : str
        Name among all panels; letters, digits and hyphens.
    title : str
        Heading.
    answers : str
        The question that it answers, as a sentence: the tooltip of the heading.
    keys : tuple of str
        Parts of the selection, and names of choices, that it is drawn again for.
    call : callable (View, Selection) -> Call, optional
        The call that it shows, or raises a ``LoopLensError`` that says why there is none.
    body : callable (View, Selection) -> Component, optional
        Draws a panel that is not a figure; its `call`, if any, is what is exported and copied.
    frames : callable (View, Selection) -> dict, optional
        What the browser needs to move the figure with the scrubber, beside the figure; kept in the
        store of the panel and given to ``looplens.frames[name]`` of the assets.
    adjust : callable (Figure, Selection), optional
        Changes the figure in place after it was fitted into the card.
    choices : tuple of Choice
        Shown beside the heading.
    controls : callable (View) -> list of Component, optional
        Further components beside the heading.
    span, wide : int
        Of 12 columns, on a page of 1280 and of 1600 pixels and more.
    height : int or None
        Of the card in pixels; None for what its body takes.
    bare : bool
        Leave the heading out; its title is still read out.
    follows : bool
        Whether something in it moves with the scrubber.
    register : callable (app, views), optional
        Adds callbacks of its own.
    """

    name: str
    title: str
    answers: str = ""
    keys: tuple[str, ...] = ()
    call: Callable[[View, Selection], Call] | None = None
    body: Callable[[View, Selection], Component] | None = None
    frames: Callable[[View, Selection], dict[str, Any]] | None = None
    adjust: Callable[[Any, Selection], object] | None = None
    choices: tuple[Choice, ...] = ()
    controls: Callable[[View], list[Component]] | None = None
    span: int = 6
    wide: int = 4
    height: int | None = 400
    bare: bool = False
    follows: bool = False
    register: Callable[[Any, Any], None] | None = None

    @property
    def kind(self) -> str:
        """``figure``, or ``body`` for what is drawn otherwise."""
        return "figure" if self.body is None else "body"

    @property
    def depends_on(self) -> tuple[str, ...]:
        """Everything of the selection that it is drawn again for."""
        named = (choice.name for choice in self.choices)
        return tuple(dict.fromkeys((*FOLLOWED, *self.keys, *named)))


@dataclass(frozen=True, kw_only=True, slots=True)
class Page:
    """One page of the app.

    Parameters
    ----------
    name : str
        Path of its address.
    title : str
        In the navigation.
    panels : tuple of Panel
        In their order.
    of_run : bool
        Whether it shows the selected run; the bar with prompt, tokens and scrubber stays away from
        others.
    """

    name: str
    title: str
    panels: tuple[Panel, ...]
    of_run: bool = True


def part(panel: Any, name: str, kind: Any = "figure") -> dict[str, Any]:
    """Return the id of a part of a panel: ``view``, ``graph``, ``caption``, ``message``, ...

    A panel is of the kind ``figure`` or ``body``.
    """
    return {"panel": panel, "part": name, "kind": kind}
