"""One prompt in two runs, token by token: a number of either, and its regimes.

The numbers are those of `looplens.analysis.compare_prompt`; this module computes none.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from looplens import analysis
from looplens.errors import InputError
from looplens.plots import _labels, _select, _theme

MOST_TOKENS = 160
"""Tokens of a prompt that are shown; of a longer one, those around the chosen token."""

_MOST_TICKS = 40
_ROWS = ("b", "a")
_NEVER = {"a": "x-thin-open", "b": "cross-thin-open"}
_STYLES = {"a": ("circle", 11), "b": ("diamond-open", 13)}


def compare_tokens(
    run: Any,
    other: Any,
    prompt: int = 0,
    value: str = "settling_iteration",
    restart: int = 0,
    *,
    layer: int | None = None,
    token: int | None = None,
    theme: str = "light",
) -> _theme.Figure:
    """Show a number of every token of a prompt in two runs, and the regimes that it has there.

    Parameters
    ----------
    run, other : looplens.Run
        The opened runs, a and b.
    prompt : int
        Number of the prompt in `run`.
    value : str
        A number of `looplens.analysis.token_statistics`.
    restart : int
        Which draw of the initial state; of a run that has fewer, the last one.
    layer : int or None
        After which core layer, or None for the loop state.
    token : int or None
        Global number in `run` of the token that is marked.
    theme : {"light", "dark"}
        Template.

    Returns
    -------
    Figure
        Two marks a token, joined by a line; regimes in two rows above.

    Raises
    ------
    InputError
        If the prompt is not in both runs, or one of them does not know the number.
    AnalysisError
        If a run does not hold what the number needs.
    """
    prompt = _select.prompt(run, prompt)
    names = list(dict.fromkeys((value, "regime")))
    found = analysis.compare_prompt(run, other, prompt, names, restart=restart, layer=layer)
    if found[value].dtype.kind not in "fiu":
        raise InputError(
            f"value must be a number, and {value!r} is a word. The regimes are shown above it."
        )
    rows, note = shown_rows(found["token"].values, token)
    found = found.isel(token=rows)
    made = compare_tokens_figure(
        found[value],
        found["regime"],
        labels=_labels.token_labels(run, found["token"].values),
        names=names_of(run, other),
        subtitle=subtitle_of(run, other, prompt, found, layer, note),
        theme=theme,
    )
    if token is not None:
        place = int(np.flatnonzero(found["token"].values == token)[0])
        made.add_vrect(
            x0=place - 0.5,
            x1=place + 0.5,
            line={"width": 2, "color": _theme.palette(theme).accent},
            fillcolor="rgba(0,0,0,0)",
            layer="below",
        )
    return made


def compare_tokens_figure(
    values: xr.DataArray,
    regimes: xr.DataArray,
    *,
    labels: list[str],
    names: tuple[str, str] = ("a", "b"),
    subtitle: str = "",
    theme: str = "light",
) -> _theme.Figure:
    """Draw a number of every token in two runs.

    Parameters
    ----------
    values : DataArray (run, token)
        The number, NaN where it is not known; ``token`` holds the numbers that a click selects.
    regimes : DataArray (run, token)
        Words.
    labels : list of str
        One label a token.
    names : tuple of str
        Of the runs.
    subtitle, theme : str
        Words and template.
    """
    colours = _theme.palette(theme)
    title = str(values.attrs.get("title", values.name))
    made = _theme.figure(
        title=f"{title[:1].upper()}{title[1:]}, token by token",
        subtitle=subtitle,
        theme=theme,
        height=420,
    )
    numbers = values["token"].values.tolist()
    places = np.arange(len(numbers))
    both = values.transpose("run", "token").values
    joined = np.isfinite(both).all(0)
    units = str(values.attrs.get("units", ""))
    # An iteration that is not known is one that never came, which is worth a mark of its own.
    never = float(np.nanmax(both, initial=1.0)) * 1.12 if units == "iteration" else None
    made.add_trace(
        go.Scatter(
            x=np.repeat(places[joined], 3),
            y=np.column_stack([both[:, joined].T, np.full(joined.sum(), np.nan)]).ravel(),
            mode="lines",
            line={"color": colours.muted, "width": 1.5},
            hoverinfo="skip",
            showlegend=False,
        )
    )
    for row, key in enumerate(("a", "b")):
        symbol, size = _STYLES[key]
        known = np.isfinite(both[row])
        words = [str(word).replace("_", " ") for word in regimes.values[row]]
        written = [
            f"{label}<br>{key}: {_labels.escape(names[row])}<br>{word or 'no regime'}"
            for label, word in zip(labels, words, strict=True)
        ]
        made.add_trace(
            go.Scatter(
                x=places[known],
                y=both[row][known],
                mode="markers",
                name=f"{key}: {_labels.escape(names[row])}",
                text=[written[place] for place in places[known]],
                marker={
                    "symbol": symbol,
                    "size": size,
                    "color": colours.categories[row],
                    "line": {"width": 2, "color": colours.categories[row]},
                },
                meta={"tokens": [numbers[place] for place in places[known]]},
                hovertemplate="%{text}<br>%{y:.4g}<extra></extra>",
            )
        )
        if never is not None and not known.all():
            made.add_trace(
                go.Scatter(
                    x=places[~known],
                    y=np.full((~known).sum(), never),
                    mode="markers",
                    name=f"{key}: never",
                    text=[written[place] for place in places[~known]],
                    marker={
                        "symbol": _NEVER[key],
                        "size": size - 1,
                        "color": colours.categories[row],
                        "line": {"width": 2, "color": colours.categories[row]},
                    },
                    meta={"tokens": [numbers[place] for place in places[~known]]},
                    hovertemplate="%{text}<br>never<extra></extra>",
                )
            )
    _add_regimes(made, regimes, numbers, labels, colours)
    step = max(1, -(-len(numbers) // _MOST_TICKS))
    made.update_xaxes(
        tickvals=places[::step],
        ticktext=[labels[place] for place in places[::step]],
        range=[-0.7, len(numbers) - 0.3],
        showgrid=False,
        anchor="y",
    )
    made.update_layout(
        yaxis={
            "domain": [0, 0.78],
            "title": {"text": title if units in ("", "1", "iteration") else f"{title} ({units})"},
        },
        yaxis2={
            "domain": [0.84, 1],
            "anchor": "x",
            "tickvals": [0, 1],
            "ticktext": list(_ROWS),
            "title": {"text": "regime"},
            "range": [-0.6, 1.6],
            "showgrid": False,
        },
        legend={"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        margin={"t": 126},
    )
    if _labels.over_decades(both[0], both[1]) and units != "iteration":
        made.update_layout(yaxis=_labels.log_axis(both[0], both[1]))
    return made


def _add_regimes(
    made: _theme.Figure,
    regimes: xr.DataArray,
    numbers: list[int],
    labels: list[str],
    colours: _theme.Palette,
) -> None:
    """Add a mark for the regime of every token in either run, above the numbers."""
    words = regimes.transpose("run", "token").values
    for name in _theme.REGIMES:
        row, place = np.nonzero(words == name)
        if not row.size:
            continue
        style = colours.regimes[name]
        made.add_trace(
            go.Scatter(
                x=place,
                y=1 - row,
                yaxis="y2",
                mode="markers",
                name=style.label,
                text=[
                    f"{labels[at]}<br>{'ab'[of]}: {style.label}"
                    for of, at in zip(row, place, strict=True)
                ],
                marker={
                    "symbol": style.symbol,
                    "size": 9,
                    "color": style.colour,
                    "line": {"width": 2 if "open" in style.symbol else 0, "color": style.colour},
                },
                meta={"tokens": [numbers[at] for at in place]},
                hovertemplate="%{text}<extra></extra>",
            )
        )


def shown_rows(tokens: np.ndarray, token: int | None) -> tuple[slice, str]:
    """Return which places are shown, and a note where not all are."""
    if token is not None and token not in tokens:
        raise InputError(
            f"token {token} is not among the tokens that the runs share in this prompt: "
            f"{_select.listed(tokens.tolist())}."
        )
    place = None if token is None else int(np.flatnonzero(tokens == token)[0])
    return _select.window(slice(0, len(tokens)), place, MOST_TOKENS)


def names_of(run: Any, other: Any) -> tuple[str, str]:
    """Return the names of the runs, written apart where they are the same."""
    names = str(run.name), str(other.name)
    return names if names[0] != names[1] else (f"{names[0]} (a)", f"{names[1]} (b)")


def subtitle_of(
    run: Any, other: Any, prompt: int, found: xr.Dataset, layer: int | None, note: str
) -> str:
    """Return the subtitle of a figure of a prompt in two runs."""
    a, b = (_labels.escape(name) for name in names_of(run, other))
    of_a, of_b = found.attrs["restarts"]
    restart = f"restart {of_a}" if of_a == of_b else f"restart {of_a} of a, {of_b} of b"
    where = "loop state" if layer is None else f"layer {layer}"
    return _labels.subtitle(run, f"a: {a}, b: {b}", f"prompt {prompt}", restart, where, note)
