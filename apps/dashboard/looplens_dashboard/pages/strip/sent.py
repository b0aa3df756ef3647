"""What is sent beside the strip: numbers of its tokens, and the matches around the selected one.

``assets/strip.js`` shows the numbers while a token is hovered or focused, and goes from match to
match without waiting for the server.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from looplens import analysis
from looplens.analysis import TokenStatistic
from looplens.errors import LoopLensError
from looplens.plots import short_number, visible_text
from looplens_dashboard.pages.strip.around import matched, window
from looplens_dashboard.selection import Selection
from looplens_dashboard.view import View

_NEIGHBOURS = 20  # matches that are sent in each direction
_LEFT_OUT = {"text", "position", "prompt", "token_id", "seed", "length", "reason"}
_LONGEST_WORD = 80


def frames(view: View, selection: Selection) -> dict[str, Any]:
    """Return the numbers of the tokens for hovering, and the matches around the selected one.

    Returns
    -------
    dict
        ``first`` and ``token``, global numbers of the first and the selected one; ``names``;
        ``rows``, a list of texts a token;
        ``next`` and ``previous``, tokens that match, the nearest first; whether the selected one
        itself ``matches``.
    """
    shown, _ = window(view, selection)
    known = analysis.token_statistics(view.run)
    names = [
        name
        for name, one in known.items()
        if one.stored and "." not in name and name not in _LEFT_OUT
    ]
    coloured = selection["colour"]
    if coloured not in names:
        names.insert(0, coloured)
    place = {"restart": selection.restart, "layer": selection.layer}
    try:
        held = analysis.token_values(view.run, names, slice(shown.start, shown.stop), **place)
        values = {name: held[name].values for name in names}
    except LoopLensError:  # the strip itself says why
        values = {}
    rows = [
        [
            f"{view.token_text(token)} · position {view.positions[token]} · token {token}",
            *(said(known[name], values[name][row]) for name in values),
        ]
        for row, token in enumerate(shown)
    ]
    around: dict[str, Any] = {"next": [], "previous": [], "matches": False}
    found, _ = matched(view, selection)
    if found is not None and len(found):
        at = int(np.searchsorted(found, selection.token, side="right"))
        before = int(np.searchsorted(found, selection.token, side="left"))
        steps = range(min(_NEIGHBOURS, len(found)))
        around["matches"] = at > before
        around["next"] = [int(found[(at + step) % len(found)]) for step in steps]
        around["previous"] = [int(found[(before - 1 - step) % len(found)]) for step in steps]
    return {
        "first": shown.start,
        "token": str(selection.token),
        "names": [known[name].title for name in values],
        "rows": rows,
        **around,
    }


def said(statistic: TokenStatistic, value: Any) -> str:
    """Write a value for people, with its unit."""
    if statistic.kind == "word":
        return visible_text(str(value), most=_LONGEST_WORD).replace("_", " ") if value else "–"
    known = np.isfinite(value) and statistic.units not in ("", "1", "iteration", "iterations")
    return f"{short_number(value)} {statistic.units}" if known else short_number(value)
