"""Leading Lyapunov exponents of many tokens, side by side.

The numbers are those of ``dynamics/lyapunov``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from looplens.plots import _labels, _theme
from looplens.plots._dynamics import _stored

# Regime -> number of a colour, and a symbol.
_STYLES = {
    "settle": (0, "circle"),
    "marginal": (4, "square"),
    "drift": (1, "triangle-up"),
    "unknown": (3, "x-thin-open"),
}


def lyapunov_tokens(run: Any, token: int | None = None, *, theme: str = "light") -> _theme.Figure:
    """Show the leading exponent of every token of a stored result.

    Parameters
    ----------
    run : looplens.Run
        The opened run, with a result ``dynamics/lyapunov``.
    token : int, optional
        Token number in the run: only its prompt is shown.
    theme : {"light", "dark"}
        Template.

    Returns
    -------
    Figure
        A mark a token, by regime, open where the cut is within two errors; and a line at the
        largest exponent up to each token.

    Raises
    ------
    InputError
        If the run has no such token.
    AnalysisError
        If the run holds no such result.
    """
    result, chosen = _stored.stored(run, "lyapunov", token)
    parts = []
    if token is not None:
        prompt = int(result["prompt"].sel(token=chosen))
        result = result.isel(token=result["prompt"].values == prompt)
        parts.append(f"prompt {prompt}")
    labels = _labels.token_labels(run, result["token"].values.tolist(), position=True)
    return lyapunov_tokens_figure(
        result, labels=labels, subtitle=_labels.subtitle(run, *parts), theme=theme
    )


def lyapunov_tokens_figure(
    result: xr.Dataset,
    *,
    labels: list[str] | None = None,
    subtitle: str = "",
    theme: str = "light",
) -> _theme.Figure:
    """Draw the leading exponents of a result.

    Parameters
    ----------
    result : Dataset
        What :func:`looplens.dynamics.lyapunov_spectra` returns.
    labels : list of str, optional
        One a token.
    subtitle, theme : str
        Words and template.
    """
    colours = _theme.palette(theme)
    numbers = result["token"].values
    labels = labels or [str(number) for number in numbers]
    made = _theme.figure(title="Leading exponents of tokens", subtitle=subtitle, theme=theme)
    add_cuts(made, float(result.attrs["cut"]), colours)
    if "upstream_exponent" in result:
        # No line from the last token of a prompt to the first one of the next.
        gaps = np.flatnonzero(np.diff(result["prompt"].values)) + 1
        made.add_trace(
            go.Scatter(
                x=np.insert(numbers.astype(float), gaps, np.nan),
                y=np.insert(result["upstream_exponent"].values, gaps, np.nan),
                mode="lines",
                name="largest of the token and those before it",
                line={"color": colours.muted, "width": 1.5, "dash": "dot", "shape": "hvh"},
                hovertemplate="token %{x}<br>largest so far %{y:.4g}<extra></extra>",
            )
        )
    regimes = result["regime"].values.astype(str)
    clear = result["clear"].values.astype(bool)
    for regime, (colour, symbol) in _STYLES.items():
        for words, chosen in (("", clear), (", near a cut", ~clear)):
            of = np.flatnonzero((regimes == regime) & chosen)
            if not of.size:
                continue
            made.add_trace(
                go.Scatter(
                    x=numbers[of],
                    y=result["exponents"].values[of, 0],
                    error_y={"array": 2 * result["error"].values[of, 0], "thickness": 1},
                    mode="markers",
                    name=regime + words,
                    text=[labels[index] for index in of],
                    meta={"tokens": numbers[of].tolist()},
                    marker={
                        "symbol": symbol + ("-open" if words and "open" not in symbol else ""),
                        "color": colours.categories[colour],
                        "size": 8,
                        "line": {"width": 1.5},
                    },
                    hovertemplate=f"%{{text}}<br>{regime}{words}"
                    "<br>exponent %{y:.4g} ± %{error_y.array:.2g}<extra></extra>",
                )
            )
    made.update_xaxes(title="token")
    made.update_yaxes(title="leading exponent, 1 / iteration")
    made.update_layout(
        legend={"orientation": "h", "x": 0, "y": -0.2, "yanchor": "top"}, margin={"b": 100}
    )
    return made


def add_cuts(made: _theme.Figure, cut: float, colours: _theme.Palette, **where: int) -> None:
    """Draw the band between the cuts, in which neighbours neither meet nor part."""
    made.add_hrect(
        y0=-cut,
        y1=cut,
        fillcolor=colours.muted,
        opacity=0.18,
        line_width=0,
        layer="below",
        annotation={"text": "marginal", "font": {"size": 11, "color": colours.muted}},
        annotation_position="top right",
        **where,
    )
    made.add_hline(y=0, line={"color": colours.axis, "width": 1}, layer="below", **where)


def regime_words(one: xr.Dataset) -> str:
    """Write the leading exponent of a token with its regime."""
    value, error = (float(one[name].values[0]) for name in ("exponents", "error"))
    if np.isnan(value):
        return "exponent not known"
    sure = "" if bool(one["clear"]) else ", near the cut"
    if np.isnan(error):
        sure = ", too few steps to tell how sure"
    spread = "" if np.isnan(error) else f" ± {_labels.number(error, digits=1)}"
    return f"{_labels.number(value)}{spread} an iteration: {one['regime'].item()}{sure}"
