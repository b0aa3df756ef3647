"""One prompt in two runs of one model: how far its states are apart, iteration by iteration.

The numbers are those of `looplens.analysis.state_distance`; this module computes none.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from looplens import analysis
from looplens.plots import _compare_tokens, _heatmap, _labels, _marks, _select, _theme


def compare_states(
    run: Any,
    other: Any,
    prompt: int = 0,
    restart: int = 0,
    *,
    layer: int | None = None,
    iteration: int | None = None,
    token: int | None = None,
    theme: str = "light",
) -> _theme.Figure:
    """Show where the states of two runs of one model part, and whether they come together again.

    Parameters
    ----------
    run, other : looplens.Run
        The opened runs, a and b.
    prompt : int
        Number of the prompt in `run`.
    restart : int
        Which draw of the initial state; of a run that has fewer, the last one.
    layer : int or None
        States after this core layer, or None for the loop state.
    iteration : int or None
        Where the cursor stands; None keeps it out of sight.
    token : int or None
        Global number in `run` of the token whose row is framed.
    theme : {"light", "dark"}
        Template.

    Returns
    -------
    Figure
        A heat map (token, iteration) of the distance between the states, over their size.

    Raises
    ------
    InputError
        If the prompt is not in both runs.
    AnalysisError
        If the runs are of states of different sizes.
    """
    prompt, layer = _select.prompt(run, prompt), _select.layer(run, layer)
    rows, note = _compare_tokens.shown_rows(analysis.shared_tokens(run, other, prompt)[0], token)
    found = analysis.state_distance(run, other, prompt, tokens=rows, restart=restart, layer=layer)
    made = compare_states_figure(
        found["distance"],
        labels=_labels.token_labels(run, found["token"].values),
        subtitle=_compare_tokens.subtitle_of(run, other, prompt, found, layer, note),
        theme=theme,
    )
    shown = found["token"].values
    if np.array_equal(np.diff(shown), np.ones(shown.size - 1)):  # rows that a browser can count
        shown_span = slice(int(shown[0]), int(shown[-1]) + 1)
        _marks.add_row(made, shown_span, token if token in shown else None, _theme.palette(theme))
    _marks.add_line(made, iteration, _theme.palette(theme))
    return made


def compare_states_figure(
    distance: xr.DataArray, *, labels: list[str], subtitle: str = "", theme: str = "light"
) -> _theme.Figure:
    """Draw distances between the states of two runs.

    Parameters
    ----------
    distance : DataArray (token, iteration)
        Of `looplens.analysis.state_distance`.
    labels : list of str
        One label a token.
    subtitle, theme : str
        Words and template.
    """
    return _heatmap.log_heatmap(
        distance.transpose("token", "iteration").values,
        distance["iteration"].values,
        labels,
        value_title="distance / size",
        row_title="token",
        title="Distance between the states of the runs",
        subtitle=subtitle,
        theme=theme,
    )
