"""Components of Dash as plain HTML, for a page that no server stands behind.

It writes what HTML itself knows, which is what panels are made of; of other components only what is
inside them. All text is escaped, and nothing that loads or leads elsewhere is written.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from html import escape
from typing import Any

from dash import dcc
from dash.development.base_component import Component

_EMPTY = {"br", "hr", "img", "input", "wbr", "col"}
_TAGS = re.compile(r"[a-z][a-z0-9]*")
_UNSAFE = {"script", "iframe", "object", "objectel", "embed", "link", "base", "form", "meta"}
_NAMES = {"className": "class", "htmlFor": "for", "tabIndex": "tabindex", "colSpan": "colspan"}
_NAMES |= {"rowSpan": "rowspan", "dateTime": "datetime"}
_WRITTEN = {"class", "for", "tabindex", "colspan", "rowspan", "datetime", "title", "role", "hidden"}
_WRITTEN |= {"open", "disabled", "scope", "lang", "value", "type", "min", "max", "dir", "name"}


def as_html(component: Any, draw: Callable[[Any], str] | None = None) -> str:
    """Return a component, or several, as HTML.

    Parameters
    ----------
    component : Component, str, number, list or None
        What a panel's body is.
    draw : callable (figure) -> str, optional
        Writes the figure of a graph.
    """
    if component is None or isinstance(component, bool):
        return ""
    if isinstance(component, list | tuple):
        return "".join(as_html(part, draw) for part in component)
    if not isinstance(component, Component):
        return escape(str(component))
    if isinstance(component, dcc.Graph):
        figure = getattr(component, "figure", None)
        return draw(figure) if draw is not None and figure is not None else ""
    inside = as_html(getattr(component, "children", None), draw)
    tag = type(component).__name__.lower()
    if type(component).__module__.partition(".")[0] != "dash" or not _is_tag(component, tag):
        return f"<div>{inside}</div>" if inside else ""
    attributes = "".join(_attribute(name, value) for name, value in _properties(component).items())
    return f"<{tag}{attributes}>" if tag in _EMPTY else f"<{tag}{attributes}>{inside}</{tag}>"


def _is_tag(component: Component, tag: str) -> bool:
    of_html = type(component).__module__.startswith("dash.html")
    return of_html and tag not in _UNSAFE and _TAGS.fullmatch(tag) is not None


def _properties(component: Component) -> dict[str, Any]:
    props = component.to_plotly_json()["props"]
    return {name: props[name] for name in sorted(props) if name != "children"}


def _attribute(name: str, value: Any) -> str:
    """Return an attribute with a space before it; an empty text for what is not written."""
    if name == "style" and isinstance(value, dict):
        rules = (f"{_kebab(key)}: {part}" for key, part in value.items() if part is not None)
        return f' style="{escape("; ".join(rules))}"'
    name = _NAMES.get(name, name)
    known = name in _WRITTEN or re.fullmatch(r"(data|aria)-[\w-]+", name)
    if name == "id" and isinstance(value, str):
        known = True
    if not known or value is None or value is False:
        return ""
    if value is True:
        return f" {name}"
    text = json.dumps(value) if isinstance(value, dict | list) else str(value)
    return f' {name}="{escape(text)}"'


def _kebab(name: str) -> str:
    return name if name.startswith("--") else re.sub(r"([A-Z])", r"-\1", name).lower()
