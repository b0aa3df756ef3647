"""Eigenvalues of tokens of one regime, and what they predict against what was measured.

The numbers are those of :func:`looplens.dynamics.spectra`, which needs the live model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from plotly.subplots import make_subplots

from looplens.errors import InputError
from looplens.plots import _labels, _theme
from looplens.plots._dynamics import _stored
from looplens.plots._dynamics._spectra_panels import add_periods, add_plane, add_rates


def spectra(run: Any, token: int | None = None, *, theme: str = "light") -> _theme.Figure:
    """Show the eigenvalues of all tokens of a token's regime.

    Parameters
    ----------
    run : looplens.Run
        A run with a stored ``dynamics/spectra``.
    token : int or None
        Token number in the run, marked in the figure; None for the first that was examined.
    theme : {"light", "dark"}
        Template.

    Returns
    -------
    Figure
        Above, the upper half of the complex plane with the unit circle: leading eigenvalues filled,
        others small, Floquet multipliers of cycles as open squares. Below, the predicted rate
        against the measured one (filled), that of the motion run again (open diamonds) and that of
        the recording (open circles), with a band of 5 %; of what turns, the predicted period
        against the detected one.

    Raises
    ------
    InputError
        If the run has no such token.
    AnalysisError
        If nothing is stored, or not of this token.
    """
    found, token = _stored.stored(run, "spectra", token)
    labels = _labels.token_labels(run, found["token"].values.tolist(), position=True)
    return spectra_figure(
        found, token, labels=labels, subtitle=_labels.of_prompt(run, token), theme=theme
    )


def spectra_figure(
    result: xr.Dataset,
    token: int | None = None,
    *,
    regime: str | None = None,
    labels: Sequence[str] | None = None,
    subtitle: str = "",
    theme: str = "light",
) -> _theme.Figure:
    """Draw a result of :func:`looplens.dynamics.spectra`.

    Parameters
    ----------
    result : Dataset
        Over ``token`` and ``eigenvalue``.
    token : int or None
        Token number to mark; its regime is drawn.
    regime : str or None
        Draw this regime; by default that of the token, and without one that of the first.
    labels : sequence of str, optional
        One a token, safe inside a figure; token numbers by default.
    subtitle, theme : str
        Words and template.

    Raises
    ------
    InputError
        If the result does not hold the token, or no token of the regime.
    """
    colours = _theme.palette(theme)
    numbers = result["token"].values.tolist()
    if token is not None and token not in numbers:
        raise InputError(f"token={token} is not in the result, which holds {_some(numbers)}")
    words = [str(word) for word in result["regime"].values]
    if regime is None:
        regime = words[numbers.index(token) if token is not None else 0]
    chosen = np.array([word == regime for word in words])
    if not chosen.any():
        held = ", ".join(sorted(set(words)))
        raise InputError(f"no token of the result is of regime {regime!r}; there are: {held}")
    names = list(labels) if labels is not None else [f"token {number}" for number in numbers]
    names = [name for name, here in zip(names, chosen, strict=True) if here]
    part = result.isel(token=chosen)
    mark = part["token"].values.tolist().index(token) if token in part["token"].values else None
    style = colours.regimes.get(regime, colours.regimes["unresolved"])
    label = style.label if regime in colours.regimes else "not classified"
    count = f"{len(names)} token{'s' * (len(names) != 1)} of regime {label}"
    # Only a motion that turns has a period to compare.
    turning = bool(np.isfinite(part["detected_period"].values).any())
    made = _theme.figure(
        title="Eigenvalues of the loop",
        subtitle="<br>".join(text for text in (subtitle, count) if text),
        theme=theme,
        height=760,
    )
    made = make_subplots(
        rows=2,
        cols=2,
        specs=[[{"colspan": 2}, None], [{}, {}] if turning else [{"colspan": 2}, None]],
        row_heights=[0.52, 0.48],
        horizontal_spacing=0.14,
        vertical_spacing=0.14,
        figure=made,
    )
    add_plane(made, part, names, mark, style, colours)
    add_rates(made, part, names, mark, style, colours)
    if turning:
        add_periods(made, part, names, mark, style, colours)
    made.update_layout(
        legend={"orientation": "h", "x": 0, "y": -0.12, "yanchor": "top"},
        margin={"t": 88, "b": 130},
    )
    return made


def _some(numbers: list[int]) -> str:
    return f"{len(numbers)} tokens from {min(numbers)} to {max(numbers)}" if numbers else "none"
