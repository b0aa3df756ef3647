"""How the attention of every head settles over the iterations.

The change, the distance to the limit and the settling of a head are from ``attention_change``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from looplens import analysis
from looplens.errors import AnalysisError, InputError, near_matches
from looplens.plots import _heatmap, _labels, _marks, _select, _theme

QUANTITIES: dict[str, str] = {
    "change": "Change of attention from the iteration before",
    "distance_to_limit": "Distance of attention to its limit",
}
"""What the heat map can show, and its title."""


def attention_change(
    run: Any,
    prompt: int | None = None,
    restart: int = 0,
    *,
    quantity: str = "change",
    iteration: int | None = None,
    theme: str = "light",
) -> _theme.Figure:
    """Show how the attention of every head settles.

    Parameters
    ----------
    run : looplens.Run
        A run with recorded attention.
    prompt : int or None
        Prompt number; None for the first one with recorded attention.
    restart : int
        Which draw of the initial state.
    quantity : {"change", "distance_to_limit"}
        How far the map is from that of the iteration before, or from the mean of the last quarter.
    iteration : int or None
        Where the cursor stands; None keeps it out of sight.
    theme : {"light", "dark"}
        Template.

    Returns
    -------
    Figure
        Heads of all layers by iteration, logarithmic colour; a ring where a head settles.

    Raises
    ------
    InputError
        If the prompt, the restart or the quantity does not exist.
    AnalysisError
        If the attention of this prompt was not recorded.

    References
    ----------
    Blayney et al., arXiv 2604.11791, proposition 4.2 (attention changes no faster than the state)
    and figures 3 and 24; total variation is used here in place of the Frobenius norm.
    """
    if quantity not in QUANTITIES:
        raise InputError(
            f"quantity must be one of {', '.join(map(repr, QUANTITIES))}, got {quantity!r}."
            f"{near_matches(str(quantity), QUANTITIES)}"
        )
    recorded = [int(number) for number in run.attention_prompts]
    restart = _select.restart(run, restart)
    prompt = _select.prompt(run, prompt if prompt is not None else recorded[0] if recorded else 0)
    if prompt not in recorded:
        listed = ", ".join(map(str, recorded)) or "none"
        raise AnalysisError(
            f"The attention of prompt {prompt} was not recorded (recorded: {listed})."
        )
    found = analysis.get(run, "attention_change")
    found = found.isel(prompt=recorded.index(prompt), restart=restart)
    change = found[quantity].transpose("layer", "head", "iteration")
    heads, iterations = change.shape[1:]
    rows = [
        f"layer {layer}, head {head}" for layer in change["layer"].values for head in range(heads)
    ]
    made = _heatmap.log_heatmap(
        change.values.reshape(-1, iterations),
        change["iteration"].values,
        rows,
        value_title="total variation",
        row_title="",
        title=QUANTITIES[quantity],
        subtitle=_labels.subtitle(
            run, f"prompt {prompt}", f"restart {restart}", "mean over queries"
        ),
        theme=theme,
    )
    settling = found["settling_iteration"]
    tolerance = _labels.number(settling.attrs["tolerance"])
    when = settling.transpose("layer", "head").values.ravel()
    # The first map has no change: a head that is settled from the start is marked at its edge.
    _heatmap.add_row_markers(
        made,
        np.maximum(when, change["iteration"].values[0]),
        name=f"settles: stays within {tolerance} of its limit",
        theme=theme,
        hover=[
            f"{row}<br>settles at iteration {_labels.number(at)}"
            for row, at in zip(rows, when, strict=True)
        ],
    )
    _marks.add_line(made, iteration, _theme.palette(theme))
    return made
