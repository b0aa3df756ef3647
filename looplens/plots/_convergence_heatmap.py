"""The convergence heat map: tokens down, iterations across, distance as colour.

The figure of Geiping et al. (2502.05171, section 6 and its notebook): one row a token, the distance
of its state to its limit on a logarithmic colour scale. The numbers are those of the analysis
``convergence``; this module computes none.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from looplens import analysis
from looplens.errors import InputError, near_matches
from looplens.plots import _heatmap, _labels, _marks, _select, _theme

QUANTITIES: dict[str, tuple[str, str]] = {
    "distance_to_limit": ("Distance of each token to its limit", "distance / |limit|"),
    "relative_step": ("How far each token moves in an iteration", "step / |state|"),
}
"""What the heat map can show: variable, its title, and that of the colour bar."""


def convergence_heatmap(
    run: Any,
    prompt: int = 0,
    restart: int = 0,
    *,
    quantity: str = "distance_to_limit",
    layer: int | None = None,
    iteration: int | None = None,
    token: int | None = None,
    theme: str = "light",
) -> _theme.Figure:
    """Show how fast every token of a prompt settles.

    Parameters
    ----------
    run : looplens.Run
        The opened run.
    prompt : int
        Prompt number.
    restart : int
        Which draw of the initial state.
    quantity : {"distance_to_limit", "relative_step"}
        Distance to the limit relative to its norm, or relative length of each step. How far apart
        restarts are shows :func:`looplens.plots.restart_gaps`.
    layer : int or None
        A core layer (only ``relative_step``), or None for the loop state.
    iteration : int or None
        Where the cursor stands; None keeps it out of sight.
    token : int or None
        Global number of the token whose row is framed.
    theme : {"light", "dark"}
        Template.

    Returns
    -------
    Figure
        A heat map (token, iteration) with the settling iteration of each token marked.

    Raises
    ------
    InputError
        If the prompt, the restart, the layer or the quantity does not exist, or the token is not
        in the prompt.
    AnalysisError
        If the run does not hold what the analysis needs.

    References
    ----------
    Geiping et al., "Scaling up Test-Time Compute with Latent Reasoning", arXiv 2502.05171,
    section 6; the limit is a tail mean here instead of the last state.
    """
    if quantity not in QUANTITIES:
        raise InputError(
            f"quantity must be one of {', '.join(map(repr, QUANTITIES))}, got {quantity!r}."
            f"{near_matches(str(quantity), QUANTITIES)}"
        )
    prompt, restart = _select.prompt(run, prompt), _select.restart(run, restart)
    layer = _select.layer(run, layer)
    if layer is not None and quantity != "relative_step":
        raise InputError(
            f"quantity {quantity!r} exists for the loop state only. "
            "Ask for quantity='relative_step' to see a layer, or leave layer out."
        )
    title, value_title = QUANTITIES[quantity]
    tokens = run.token_range(prompt)
    results, prefix = analysis.get(run, "convergence"), ""
    if layer is not None:
        results, prefix = results.sel(layer=layer), "layer_"
    made = convergence_heatmap_figure(
        results[prefix + quantity].isel(restart=restart, token=tokens),
        results[prefix + "settling_iteration"].isel(restart=restart, token=tokens),
        labels=_labels.token_labels(run, tokens),
        title=title,
        value_title=value_title,
        subtitle=_labels.subtitle(
            run,
            f"prompt {prompt}",
            f"restart {restart}",
            "loop state" if layer is None else f"layer {layer}",
        ),
        theme=theme,
    )
    _marks.add_row(made, tokens, token, _theme.palette(theme))
    _marks.add_line(made, iteration, _theme.palette(theme))
    return made


def convergence_heatmap_figure(
    values: xr.DataArray,
    settling: xr.DataArray | None,
    *,
    labels: list[str],
    title: str,
    value_title: str,
    subtitle: str = "",
    theme: str = "light",
) -> _theme.Figure:
    """Draw a convergence heat map from labelled arrays.

    Parameters
    ----------
    values : DataArray (token, iteration)
        Non-negative numbers; NaN cells stay empty.
    settling : DataArray (token) or None
        Iteration to mark in each row, NaN for a token that never settles.
    labels : list of str
        One label a token.
    title, value_title, subtitle, theme : str
        Words and template.
    """
    values = values.transpose("token", "iteration")
    iterations = values["iteration"].values
    made = _heatmap.log_heatmap(
        values.values,
        iterations,
        labels,
        value_title=value_title,
        row_title="token",
        title=title,
        subtitle=subtitle,
        theme=theme,
    )
    if settling is not None:
        marks = np.asarray(settling.values, dtype=np.float64)
        threshold = settling.attrs.get("tolerance", settling.attrs.get("threshold"))
        name = "settling iteration"
        if isinstance(threshold, int | float):
            name += f" (all later steps < {_labels.number(float(threshold))})"
        never = int(np.sum(~np.isfinite(marks)))
        if never:
            name += f"; {never} of {len(marks)} tokens never settle"
        _heatmap.add_row_markers(
            made,
            marks,
            name=name,
            theme=theme,
            hover=[
                f"{label}<br>settles at iteration {mark:g}"
                for label, mark in zip(labels, marks, strict=True)
            ],
        )
    return made
