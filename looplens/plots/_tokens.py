"""The tokens of a prompt as they stand in it, coloured by anything that is known of them.

The values are those of :func:`looplens.analysis.token_values`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import plotly.graph_objects as go

from looplens import analysis
from looplens.plots import _labels, _palette, _select, _theme
from looplens.plots._token_looks import TokenLooks, token_looks

MOST_TOKENS = 400
"""Cells that are drawn at once; of a longer prompt those around the selected token."""

_TINT = 0.32  # share of the colour in a cell, so that its text stays readable
_WIDTH, _LETTER, _ROW = 640, 8, 44  # pixels, roughly


def tokens(
    run: Any,
    prompt: int,
    colour: str = "regime",
    *,
    restart: int = 0,
    layer: int | None = None,
    token: int | None = None,
    theme: str = "light",
) -> _theme.Figure:
    """Show the tokens of a prompt in their order, coloured by what is known of them.

    Parameters
    ----------
    run : looplens.Run
        The opened run.
    prompt : int
        Which prompt.
    colour : str
        One of :func:`looplens.analysis.token_statistics`, such as ``"settling_iteration"``.
    restart : int
        Which draw of the initial state, for what restarts have of their own.
    layer : int or None
        After which core layer, for what layers have of their own; None for the loop state.
    token : int or None
        Global number of a token that is framed; of a long prompt those around it are shown.
    theme : {"light", "dark"}
        Template.

    Returns
    -------
    Figure
        One cell a token, in rows like text, with its text and its value.

    Raises
    ------
    InputError
        If there is no such prompt, token, restart or layer, or nothing of that name is known.
    AnalysisError
        If the run does not hold the data for it.
    """
    prompt, restart = _select.prompt(run, prompt), _select.restart(run, restart)
    shown, note = _select.window(run.token_range(prompt), token, MOST_TOKENS)
    looks = token_looks(run, colour, restart=restart, layer=layer, theme=theme)
    values = analysis.token_values(run, colour, shown, restart=restart, layer=layer)[colour].values
    return tokens_figure(
        values,
        looks,
        labels=_labels.token_labels(run, shown),
        first=shown.start,
        position=int(run.tokens["position"].values[shown.start]),
        token=token,
        subtitle=_labels.subtitle(
            run,
            f"prompt {prompt}",
            f"restart {restart}",
            "" if layer is None or not looks.statistic.layer_variable else f"layer {layer}",
            looks.statistic.meaning,
            note,
        ),
        theme=theme,
    )


def tokens_figure(
    values: np.ndarray,
    looks: TokenLooks,
    *,
    labels: list[str],
    first: int = 0,
    position: int = 0,
    token: int | None = None,
    subtitle: str = "",
    theme: str = "light",
) -> _theme.Figure:
    """Draw values of successive tokens.

    Parameters
    ----------
    values : ndarray, shape (token,)
        Numbers or words.
    looks : TokenLooks
        What they look like.
    labels : list of str
        Texts of the tokens.
    first, position : int
        Global number of the first one, and its position in the prompt.
    token, subtitle, theme
        See :func:`tokens`.
    """
    colours = _theme.palette(theme)
    found = [looks.of(value) for value in values]
    longest = max(len(word) for word in (*labels, *(look.cue for look in found)))
    across = int(min(len(labels), np.clip(_WIDTH // (_LETTER * longest + 16), 4, 24)))
    rows = -(-len(labels) // across)
    made = _theme.figure(
        title=f"Tokens: {looks.statistic.title.lower()}",
        subtitle=subtitle,
        theme=theme,
        height=int(np.clip(150 + _ROW * rows, 300, 560)),
    )
    shades = sorted({look.colour for look in found})
    tinted = [_mixed(shade, colours.paper) for shade in shades]
    code = np.full(rows * across, np.nan)
    code[: len(found)] = [shades.index(look.colour) for look in found]
    words = [f"{label}<br>{look.cue}" for label, look in zip(labels, found, strict=True)]
    hover = [
        f"{label}<br>position {position + place}<br>{looks.statistic.title}: "
        f"{_labels.escape(str(value)) if looks.statistic.kind == 'word' else look.cue}"
        for place, (label, value, look) in enumerate(zip(labels, values, found, strict=True))
    ]
    pad = [""] * (rows * across - len(labels))
    made.add_trace(
        go.Heatmap(
            name="tokens",
            z=code.reshape(rows, across),
            text=np.array([*words, *pad], dtype=object).reshape(rows, across),
            customdata=np.array([*hover, *pad], dtype=object).reshape(rows, across),
            texttemplate="%{text}",
            textfont={"size": 12, "color": colours.text},
            zmin=-0.5,
            zmax=len(shades) - 0.5,
            colorscale=_palette.steps(tinted),
            showscale=False,
            xgap=4,
            ygap=4,
            hoverongaps=False,
            hovertemplate="%{customdata}<extra></extra>",
        )
    )
    _add_meaning(made, looks, found, colours)
    if token is not None:
        row, column = divmod(token - first, across)
        made.add_shape(
            type="rect",
            x0=column - 0.5,
            x1=column + 0.5,
            y0=row - 0.5,
            y1=row + 0.5,
            line={"color": colours.accent, "width": 3},
        )
    made.update_xaxes(visible=False, range=[-0.5, across - 0.5])
    made.update_yaxes(
        title="position",
        tickvals=list(range(rows)),
        ticktext=[str(position + row * across) for row in range(rows)],
        range=[rows - 0.5, -0.5],
        showgrid=False,
        showline=False,
        ticks="",
    )
    made.update_layout(
        legend={"orientation": "h", "x": 0, "y": 1.01, "yanchor": "bottom"},
        margin={"t": 112, "b": 20},
    )
    return made


def _add_meaning(
    made: _theme.Figure, looks: TokenLooks, found: list[Any], colours: _theme.Palette
) -> None:
    """Add entries of a legend: the words, or the ends of the scale."""
    used = {look.cue for look in found}
    entries = [
        (word.replace("_", " "), look.colour)
        for word, look in looks.of_words.items()
        if look.cue in used
    ]
    if looks.statistic.kind == "number":
        ends = (colours.sequential[0][1], colours.sequential[-1][1])
        entries = [
            (f"{_labels.number(end)} {looks.statistic.units}".removesuffix(" 1"), shade)
            for end, shade in zip((looks.low, looks.high), ends, strict=True)
        ]
    for words, shade in entries:
        made.add_trace(
            go.Scatter(
                name=words,
                x=[None],
                y=[None],
                mode="markers",
                marker={"symbol": "square", "size": 12, "color": shade},
            )
        )


def _mixed(colour: str, paper: str) -> str:
    """Return a colour thinned with the paper."""
    one, other = (
        np.array([int(text[at : at + 2], 16) for at in (1, 3, 5)]) for text in (colour, paper)
    )
    mixed = np.round(_TINT * one + (1 - _TINT) * other).astype(int)
    return "#" + "".join(f"{part:02x}" for part in mixed)
