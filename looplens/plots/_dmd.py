"""Eigenvalues of the linear maps that describe the ends of trajectories, on the unit circle.

Near the circle motion lasts, inside it dies out; the angle is the turn per iteration. The numbers
are those of the analysis ``dmd``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from looplens import analysis
from looplens.plots import _labels, _select, _theme

_EDGE = 1.5


def dmd(run: Any, prompt: int = 0, restart: int = 0, *, theme: str = "light") -> _theme.Figure:
    """Show the eigenvalues of all tokens of a prompt.

    Parameters
    ----------
    run : looplens.Run
        The opened run.
    prompt : int
        Prompt number.
    restart : int
        Which draw of the initial state.
    theme : {"light", "dark"}
        Template.

    Returns
    -------
    Figure
        The upper half of the complex plane: one marker a mode, as large as its motion; the largest
        mode of each token is filled.

    Raises
    ------
    InputError
        If the prompt or the restart does not exist.
    AnalysisError
        If the run does not keep all iterations.
    """
    prompt, restart = _select.prompt(run, prompt), _select.restart(run, restart)
    tokens = run.token_range(prompt)
    results = analysis.get(run, "dmd").isel(restart=restart, token=tokens)
    return dmd_figure(
        results,
        labels=_labels.token_labels(run, tokens, position=True),
        subtitle=_labels.subtitle(run, f"prompt {prompt}", f"restart {restart}"),
        theme=theme,
    )


def dmd_figure(
    results: xr.Dataset, *, labels: list[str], subtitle: str = "", theme: str = "light"
) -> _theme.Figure:
    """Draw eigenvalues.

    Parameters
    ----------
    results : Dataset (token, mode)
        ``modulus``, ``frequency`` and ``amplitude``.
    labels : list of str
        One label a token.
    subtitle, theme : str
        Words and template.
    """
    colours = _theme.palette(theme)
    parts = [
        results[name].transpose("token", "mode").values
        for name in ("modulus", "frequency", "amplitude")
    ]
    modulus, turn, size = (part.astype(np.float64) for part in parts)
    known = np.isfinite(modulus[:, 0])
    lacking = int((~known).sum())
    if lacking:
        subtitle += f"<br>{lacking} of {len(known)} tokens settle before there is enough to fit"
    largest = float(np.nanmax(modulus, initial=0.0))
    edge = float(np.clip(1.08 * largest, 1.15, _EDGE))
    beyond = int((modulus > _EDGE).sum())
    if beyond:
        what, are = ("mode", "is") if beyond == 1 else ("modes", "are")
        subtitle += f"<br>{beyond} {what} beyond a modulus of {_EDGE:g} {are} not drawn"
    made = _theme.figure(
        title="Eigenvalues of the steps (DMD)", subtitle=subtitle, theme=theme, height=520
    )
    arc = np.linspace(0, np.pi, 181)
    made.add_trace(
        go.Scatter(
            x=np.cos(arc),
            y=np.sin(arc),
            mode="lines",
            name="unit circle: motion lasts",
            line={"color": colours.axis, "width": 1.5},
            hoverinfo="skip",
        )
    )
    for name, chosen, symbol, colour in (
        ("largest mode of a token", np.s_[:, :1], "circle", colours.categories[0]),
        ("other modes", np.s_[:, 1:], "circle-open", colours.categories[1]),
    ):
        radius, angle = modulus[chosen], 2 * np.pi * turn[chosen]
        token, mode = np.nonzero(radius <= _EDGE)
        if not token.size:
            continue
        r, a, s = radius[token, mode], angle[token, mode], size[chosen][token, mode]
        made.add_trace(
            go.Scatter(
                x=r * np.cos(a),
                y=r * np.sin(a),
                mode="markers",
                name=name,
                text=[labels[number] for number in token],
                customdata=np.stack([r, turn[chosen][token, mode], s], axis=1),
                marker={
                    "symbol": symbol,
                    "color": colour,
                    "size": _marker_sizes(s),
                    "opacity": 0.8,
                    "line": {"width": 1.5, "color": colour},
                },
                hovertemplate=(
                    "%{text}<br>modulus %{customdata[0]:.4f}"
                    "<br>%{customdata[1]:.4f} turns per iteration"
                    "<br>size %{customdata[2]:.2g} of the norm<extra></extra>"
                ),
            )
        )
    made.update_xaxes(title="real part", range=[-edge, edge], constrain="domain")
    made.update_yaxes(
        title="imaginary part", range=[-0.08, edge], scaleanchor="x", constrain="domain"
    )
    made.update_layout(
        legend={"orientation": "h", "x": 0, "y": -0.18, "yanchor": "top", "itemsizing": "constant"},
        margin={"t": 96, "b": 90},
    )
    return made


def _marker_sizes(size: np.ndarray) -> np.ndarray:
    """Pixels: four for a millionth of the norm and less, two more for each power of ten.

    Four too where the size is not known, because the last state is zero.
    """
    decades = np.log10(np.maximum(np.nan_to_num(size), 1e-12))
    return np.clip(16 + 2 * decades, 4, 16)
