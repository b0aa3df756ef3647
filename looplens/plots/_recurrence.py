"""The recurrence plot of one token: which iterations are near each other.

A settled token is one block, an orbit a set of diagonals, a drift a band along the diagonal. The
distances are those of the array function ``recurrence_matrix``; what is near stands out from the
paper.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import plotly.graph_objects as go

from looplens import analysis
from looplens.errors import AnalysisError
from looplens.plots import _labels, _marks, _select, _theme

_DECADES = 2.0  # under a hundredth of the largest distance, two states are the same
_MOST = 256  # states on each axis; a page with more is slow and shows no more


def recurrence(
    run: Any,
    token: int,
    restart: int = 0,
    *,
    layer: int | None = None,
    iteration: int | None = None,
    theme: str = "light",
) -> _theme.Figure:
    """Show the distances between all pairs of iterations of one token.

    Parameters
    ----------
    run : looplens.Run
        The opened run.
    token : int
        Global token number.
    restart : int
        Which draw of the initial state.
    layer : int or None
        States after this core layer, or None for the loop state.
    iteration : int or None
        Where the cursor stands; None keeps it out of sight.
    theme : {"light", "dark"}
        Template.

    Returns
    -------
    Figure
        A heat map (iteration, iteration) of distances over the norm of the last state on a
        logarithmic scale of two decades, without the random start. Of a long record the end is
        drawn whole: every n-th iteration would make an orbit of period n a fixed point.

    Raises
    ------
    InputError
        If the token, the restart or the layer does not exist.
    AnalysisError
        If the run does not hold the layer, or its states are not finite.
    """
    token, restart = _select.token(run, token), _select.restart(run, restart)
    layer = _select.layer(run, layer)
    if layer is None:
        read = run.state(restart=restart, tokens=token)
    else:
        read = run.site("resid_post", restart=restart, tokens=token, layer=layer)
    iterations = read["iteration"].values
    states = read.transpose("iteration", ...).values[iterations >= 1]
    iterations = iterations[iterations >= 1]
    if not np.isfinite(states).all():
        raise AnalysisError(f"The states of token {token} are not finite: nothing recurs.")
    there = len(iterations)
    states, iterations = states[-_MOST:], iterations[-_MOST:]
    norm = float(np.linalg.norm(states[-1].astype(np.float64)))
    distance = analysis.recurrence_matrix(states) / (norm or 1.0)
    measured = {}
    if layer is None and analysis.ANALYZERS["recurrence"].needs(run) is None:
        results = analysis.get(run, "recurrence").isel(restart=restart, token=token)
        measured = {str(name): float(values) for name, values in results.data_vars.items()}
    return recurrence_figure(
        distance,
        iterations,
        measured=measured,
        iteration=iteration,
        subtitle=_labels.of_token(
            run,
            token,
            f"restart {restart}",
            "loop state" if layer is None else f"layer {layer}",
            f"the last {_MOST} of {there} iterations are drawn" if there > _MOST else "",
        ),
        theme=theme,
    )


def recurrence_figure(
    distance: np.ndarray,
    iterations: np.ndarray,
    *,
    measured: dict[str, float] | None = None,
    iteration: int | None = None,
    subtitle: str = "",
    theme: str = "light",
) -> _theme.Figure:
    """Draw a matrix of distances.

    Parameters
    ----------
    distance : ndarray, shape (iteration, iteration)
        Over the norm of the last state.
    iterations : ndarray, shape (iteration,)
        Their numbers.
    measured : dict, optional
        Numbers of the analysis ``recurrence``, for the subtitle.
    iteration : int or None
        Where the cursor stands; None keeps it out of sight.
    subtitle, theme : str
        Words and template.
    """
    colours = _theme.palette(theme)
    known = _in_words(measured or {})
    largest = float(distance.max(initial=0.0)) or 1.0
    far = np.log10(largest)
    near = far - _DECADES
    logarithms = np.log10(np.maximum(distance, largest * 10**-_DECADES))
    exponents, texts = _labels.decade_ticks(near, far)
    # Near is the end of the scale that is farthest from the paper.
    scale = list(colours.sequential)
    if theme == "dark":
        scale = [(1 - at, colour) for at, colour in reversed(colours.sequential)]
    made = _theme.figure(
        title="Recurrence plot",
        subtitle=f"{subtitle}<br>{known}" if known else subtitle,
        theme=theme,
        height=560,
    )
    made.add_trace(
        go.Heatmap(
            name="values",
            z=logarithms.astype(np.float32),
            x=iterations,
            y=iterations,
            customdata=distance.astype(np.float32),
            zmin=near,
            zmax=far,
            colorscale=[list(stop) for stop in scale],
            colorbar={
                "title": {"text": "distance / |last state|"},
                "tickvals": exponents,
                "ticktext": texts,
            },
            hovertemplate="iterations %{x} and %{y}<br>distance %{customdata:.3g}<extra></extra>",
        )
    )
    _marks.add_line(made, iteration, colours)
    # Also where the cursor stands at the start, which is not drawn.
    half = 0.5 * float(iterations[1] - iterations[0]) if len(iterations) > 1 else 0.5
    low, high = float(iterations[0]) - half, float(iterations[-1]) + half
    shared = {"title": "iteration", "showgrid": False, "constrain": "domain"}
    made.update_xaxes(range=[low, high], **shared)
    made.update_yaxes(range=[high, low], scaleanchor="x", **shared)
    made.update_layout(margin={"t": 78 + 20 * (known.count("<br>") + 1 if known else 0)})
    return made


def _in_words(measured: dict[str, float]) -> str:
    """Say what was measured in the last half; nothing where it only rounds."""
    if not measured:
        return ""
    if not np.isfinite(measured.get("closest_return", np.nan)):
        return "the last half moves by rounding only"
    parts = [
        f"closest return {_labels.number(measured['closest_return'], digits=2)}",
        f"recurrence rate {_labels.percent(measured['recurrence_rate'])}",
        f"determinism {_labels.percent(measured['determinism'])}",
    ]
    if np.isfinite(measured["frequency"]):
        turn = 1 / measured["frequency"]
        parts.append(
            f"dominant period {_labels.number(turn)} "
            f"({_labels.percent(measured['frequency_share'])} of the variance)"
        )
    return "last half: " + ", ".join(parts[:3]) + "".join(f"<br>{part}" for part in parts[3:])
