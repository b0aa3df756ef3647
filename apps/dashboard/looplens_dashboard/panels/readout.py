"""What the model would say at the scrubbed iteration: the most probable tokens of the selected one.

The predictions of all iterations go to the browser once; the table there is filled by
``assets/readout.js``, so that it follows the scrubber without a request.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from dash import Dash, Input, Output, State, dcc, html

from looplens.errors import AnalysisError
from looplens_dashboard.panels.frame import WAITING, Panel, attempt, current, message
from looplens_dashboard.selection import Selection
from looplens_dashboard.view import View


def predictions(view: View, selection: Selection) -> dict[str, Any]:
    """Return the readouts of the selected token at all iterations.

    Returns
    -------
    dict
        ``iterations``: their numbers; ``ids`` and ``probabilities`` (iteration, rank), ``texts`` by
        id, ``entropy`` and ``change`` (KL divergence from the iteration before) in nats
        (iteration), and ``target``: None, or its id, probability and rank (iteration). What is not
        finite is None.
    """
    if not view.run.has_readout:
        raise AnalysisError(
            "This run holds no readout, so what the model would say at each iteration is unknown. "
            "Record it again with the option readout=True."
        )
    readout = view.run.readout.isel(restart=selection.restart, token=selection.token)
    ids = readout["topk_ids"].values
    target = int(view.run.tokens["target"].values[selection.token])
    known: dict[str, Any] | None = None
    if target >= 0:
        known = {
            "id": target,
            "probability": _finite(np.exp(readout["target_logprob"].values)),
            "rank": readout["target_rank"].values.tolist(),
        }
    return {
        "iterations": [int(number) for number in readout["iteration"].values],
        "ids": ids.tolist(),
        "probabilities": [_finite(row) for row in np.exp(readout["topk_logprobs"].values)],
        "texts": view.id_texts({*ids.ravel().tolist(), *([target] if known else [])}),
        "entropy": _finite(readout["entropy"].values),
        "change": _finite(readout["kl_to_previous"].values),
        "target": known,
    }


def _finite(values: np.ndarray) -> list[float | None]:
    """Return numbers with six significant digits, None for what is not finite."""
    return [float(f"{value:.6g}") if np.isfinite(value) else None for value in values]


def register(app: Dash, view: View) -> None:
    """Send the predictions whenever the token or the restart change."""

    @app.callback(
        Output("readout-data", "data"),
        Output("readout-message", "children"),
        Output("readout-caption", "children"),
        Input("readout-view", "data"),
        State("selection", "data"),
        State("iteration", "data"),
    )
    def send(changed: Any, values: Any, iteration: Any) -> tuple[Any, Any, str]:
        selection = current(view, changed, values, iteration)
        sent, trouble = attempt(lambda: predictions(view, selection))
        if trouble is not None:
            return None, trouble, ""
        place = selection.token - view.limits.first_tokens[selection.prompt]
        return sent, None, f"after “{view.token_text(selection.token)}” (position {place})"


PANEL = Panel(
    name="readout",
    title="Readout",
    keys=("token", "restart"),
    body=lambda _view: [
        dcc.Store(id="readout-data"),
        html.Div(message(WAITING), id="readout-message", className="message-place"),
        html.Div(id="readout-table"),
    ],
    register=register,
)
