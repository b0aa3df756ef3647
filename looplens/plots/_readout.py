"""What the model would say after each iteration, and how sure and how right it is.

The curves are those of the analysis ``readout``, which averages over tokens and restarts.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from plotly.subplots import make_subplots

from looplens import analysis
from looplens.errors import AnalysisError, InputError, near_matches
from looplens.plots import _labels, _marks, _theme

_PANELS: tuple[tuple[str, str], ...] = (
    ("accuracy", "accuracy"),
    ("target_logprob", "target log-prob. (nats)"),
    ("entropy", "entropy (nats)"),
    ("kl_to_previous", "KL to the one before (nats)"),
)
_LOGARITHMIC = {"kl_to_previous"}


def readout(
    run: Any, by: str | None = None, *, iteration: int | None = None, theme: str = "light"
) -> _theme.Figure:
    """Show how the predictions develop over the iterations.

    Parameters
    ----------
    run : looplens.Run
        A run with readouts.
    by : str or None
        Numeric column of the token table by which accuracy is split, such as ``difficulty``; None
        for all tokens together.
    iteration : int or None
        Where the cursor stands; None keeps it out of sight.
    theme : {"light", "dark"}
        Template.

    Returns
    -------
    Figure
        One panel a quantity over iterations; what the run does not hold is left out.

    Raises
    ------
    InputError
        If accuracy is not known by that column.
    AnalysisError
        If the run has no readout.

    References
    ----------
    Geiping et al., arXiv 2502.05171, section 6 (KL between successive predictions); depth-accuracy
    curves as in Zhu et al., arXiv 2510.25741.
    """
    results = analysis.get(run, "readout")
    subtitle = _labels.subtitle(
        run, f"{run.n_tokens} tokens × {run.restarts} restart{'s' if run.restarts > 1 else ''}"
    )
    return readout_figure(results, by=by, iteration=iteration, subtitle=subtitle, theme=theme)


def readout_figure(
    results: xr.Dataset,
    *,
    by: str | None = None,
    iteration: int | None = None,
    subtitle: str = "",
    theme: str = "light",
) -> _theme.Figure:
    """Draw the development of predictions from the dataset of the analysis ``readout``.

    Parameters
    ----------
    results : Dataset
        Some of ``accuracy``, ``target_logprob``, ``entropy``, ``kl_to_previous`` (iteration), and
        ``accuracy_by_<column>`` (<column>, iteration).
    by, iteration, subtitle, theme
        See :func:`readout`.
    """
    panels = [(name, title) for name, title in _PANELS if name in results]
    if not panels:
        raise AnalysisError("The analysis 'readout' of this run holds nothing to draw.")
    split = None
    if by is not None:
        split = f"accuracy_by_{by}"
        known = [str(name)[12:] for name in results if str(name).startswith("accuracy_by_")]
        if split not in results:
            raise InputError(
                f"Accuracy is not known by {by!r}; it is known by: {', '.join(known) or 'nothing'}."
                f"{near_matches(by, known)}"
            )
    colours = _theme.palette(theme)
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    made = _theme.figure(
        title="Predictions after each iteration",
        subtitle=subtitle,
        theme=theme,
        height=max(340, 130 + 215 * rows),
    )
    make_subplots(
        rows=rows,
        cols=columns,
        shared_xaxes=True,
        horizontal_spacing=0.11,
        vertical_spacing=0.26 / rows if rows > 1 else 0,
        subplot_titles=[title for _, title in panels],
        figure=made,
    )
    made.update_annotations(font={"size": 13})
    iterations = results["iteration"].values
    for panel, (name, _) in enumerate(panels):
        place = {"row": panel // columns + 1, "col": panel % columns + 1}
        values = np.asarray(results[name].values, dtype=np.float64)
        if name == "accuracy" and split is not None:
            _add_groups(made, results[split], by or "", iterations, colours)
        made.add_trace(
            go.Scatter(
                x=iterations,
                y=np.where(values > 0, values, np.nan) if name in _LOGARITHMIC else values,
                name="all tokens",
                mode="lines+markers",
                line={"color": colours.text, "width": 2.5},
                marker={"size": 4},
                showlegend=name == "accuracy" and split is not None,
                hovertemplate="iteration %{x}<br>%{y:.4g}<extra></extra>",
            ),
            **place,
        )
        made.update_xaxes(title="iteration" if place["row"] == rows else "", **place)
        if name == "accuracy":
            made.update_yaxes(range=[-0.03, 1.03], tickformat="~%", **place)
        if name in _LOGARITHMIC and (values > 0).any():
            made.update_yaxes(**_log_axis(values[values > 0]), **place)
        _marks.add_line(made, iteration, colours, axis=str(panel + 1) if panel else "")
    made.update_layout(margin={"t": 104})
    if split is not None:
        made.update_layout(
            legend={"orientation": "h", "x": 0, "y": -0.24 / rows, "yanchor": "top"},
            margin={"b": 104},
            height=made.layout.height + 40,
        )
    return made


def _add_groups(
    made: _theme.Figure,
    values: xr.DataArray,
    by: str,
    iterations: np.ndarray,
    colours: _theme.Palette,
) -> None:
    """Draw the accuracy of each group, told apart by symbol as well as colour."""
    group_dim = next(dim for dim in values.dims if dim != "iteration")
    values = values.transpose(group_dim, "iteration")
    for row in range(values.sizes[group_dim]):
        name = str(row)
        if group_dim in values.coords:
            centre = values[group_dim].values[row]
            name = str(centre) if isinstance(centre, str) else _labels.number(float(centre))
        colour = colours.categories[row % len(colours.categories)]
        made.add_trace(
            go.Scatter(
                x=iterations,
                y=values.values[row],
                name=f"{by} {name}",
                mode="lines+markers",
                line={"color": colour, "width": 1.5},
                marker={"symbol": _theme.TOKEN_SYMBOLS[row % len(_theme.TOKEN_SYMBOLS)], "size": 6},
                hovertemplate=f"{by} {name}<br>iteration %{{x}}<br>%{{y:.1%}}<extra></extra>",
            ),
            row=1,
            col=1,
        )


def _log_axis(positive: np.ndarray) -> dict[str, Any]:
    """Return a logarithmic axis with a tick at whole powers of ten."""
    low, high = np.floor(np.log10(positive.min())), np.ceil(np.log10(positive.max()))
    exponents, texts = _labels.decade_ticks(low, high)
    return {
        "type": "log",
        "range": [low - 0.15, high + 0.15],
        "tickvals": [10.0**exponent for exponent in exponents],
        "ticktext": texts,
    }
