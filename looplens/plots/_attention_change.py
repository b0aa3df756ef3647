"""How far the attention of every head still changes from one iteration to the next.

The change, and when a head settles, are the analysis ``attention_change``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from looplens import analysis
from looplens.errors import AnalysisError
from looplens.plots import _heatmap, _labels, _marks, _select, _theme


def attention_change(
    run: Any,
    prompt: int | None = None,
    restart: int = 0,
    *,
    iteration: int | None = None,
    theme: str = "light",
) -> _theme.Figure:
    """Show how much every head's attention still changes from one iteration to the next.

    Parameters
    ----------
    run : looplens.Run
        A run with recorded attention.
    prompt : int or None
        Prompt number; None for the first one with recorded attention.
    restart : int
        Which draw of the initial state.
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
        If the prompt or the restart does not exist.
    AnalysisError
        If the attention of this prompt was not recorded.

    References
    ----------
    Blayney et al., arXiv 2604.11791, proposition 4.2 (attention changes no faster than the state)
    and figures 3 and 24; total variation is used here in place of the Frobenius norm.
    """
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
    change = found["change"].transpose("layer", "head", "iteration")
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
        title="Change of attention from the iteration before",
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
