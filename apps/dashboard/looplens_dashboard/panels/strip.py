"""The tokens of a prompt as a row of buttons, coloured by regime or by settling iteration.

What a colour says is always said a second time: a regime by a symbol and the style of the border, a
settling iteration by its number. A click on a token is caught by ``assets/keys.js``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from dash import Dash, Input, Output, State, html
from dash.development.base_component import Component

from looplens import plots
from looplens.errors import AnalysisError
from looplens_dashboard.controls import segmented
from looplens_dashboard.panels.frame import WAITING, Panel, attempt, current, message
from looplens_dashboard.selection import Selection
from looplens_dashboard.view import View

SYMBOLS: Mapping[str, str] = {
    "fixed_point": "●",
    "orbit": "◆",
    "slider": "▶",
    "unresolved": "✕",
}
"""One character a regime: the symbols of the figures, as text."""

BORDERS: Mapping[str, str] = {
    "fixed_point": "solid",
    "orbit": "dashed",
    "slider": "double",
    "unresolved": "dotted",
}
"""Style of the border of a token, by regime."""


def strip(view: View, selection: Selection) -> Component:
    """Return the tokens of the selected prompt."""
    tokens = view.limits.tokens_of(selection.prompt)
    why: list[Component] = []
    try:
        found = _verdicts(view, selection, tokens)
    except AnalysisError as error:  # without verdicts a token can still be chosen
        plain = {"colour": plots.palette(selection.theme).muted, "border": "dotted", "cue": ""}
        found = [(plain, "regime unknown")] * len(tokens)
        why = [message(str(error))]
    places = view.run.tokens["position"].values[list(tokens)]
    buttons = []
    for token, place, (look, described) in zip(tokens, places, found, strict=True):
        text = view.token_text(token)
        where = f"token {token}, position {place} of prompt {selection.prompt}"
        buttons.append(
            html.Button(
                [html.Span(text, className="token-text"), html.Span(look["cue"], className="cue")],
                className="token selected" if token == selection.token else "token",
                style={"--token-colour": look["colour"], "borderBottomStyle": look["border"]},
                title=f"{where}: {text}\n{described}",
                **{
                    "data-token": str(token),
                    "aria-pressed": "true" if token == selection.token else "false",
                    "aria-label": f"token {place}, {text}: {described}",
                },
            )
        )
    row = html.Div(buttons, className=f"tokens by-{selection.colour}")
    return html.Div([row, *why]) if why else row


def _verdicts(view: View, selection: Selection, tokens: range) -> list[tuple[dict[str, str], str]]:
    """Return the look of each token, and the words that say the same."""
    chosen = {"restart": selection.restart, "token": list(tokens)}
    results = view.results("classify").isel(chosen)
    regimes, reasons = results["regime"].values, results["reason"].values
    amplitudes = results["amplitude"].values
    settling = view.results("convergence")["settling_iteration"].isel(chosen).values
    looks = _regime_looks if selection.colour == "regime" else _settling_looks
    found = []
    for row in range(len(tokens)):
        regime, settled = str(regimes[row]), float(settling[row])
        look = looks(view, selection, regime, settled)
        words = _describe(regime, str(reasons[row]), float(amplitudes[row]), settled)
        found.append((look, words))
    return found


def _regime_looks(view: View, selection: Selection, regime: str, settled: float) -> dict[str, str]:
    return {
        "colour": plots.palette(selection.theme).regimes[regime].colour,
        "border": BORDERS[regime],
        "cue": SYMBOLS[regime],
    }


def _settling_looks(
    view: View, selection: Selection, regime: str, settled: float
) -> dict[str, str]:
    colours = plots.palette(selection.theme)
    if not np.isfinite(settled):
        return {"colour": colours.muted, "border": "dotted", "cue": "never"}
    # Logarithmic like the colours of the trajectory: most tokens settle early.
    share = float(np.log(settled) / np.log(max(2, view.limits.iterations)))
    return {"colour": _at(colours.sequential, share), "border": "solid", "cue": f"{settled:g}"}


def _at(stops: tuple[tuple[float, str], ...], share: float) -> str:
    """Return the colour of the nearest stop of a scale."""
    return min(stops, key=lambda stop: abs(stop[0] - share))[1]


def _describe(regime: str, reason: str, amplitude: float, settled: float) -> str:
    """Say the regime with its reason, the amplitude and the settling iteration in one line."""
    return "; ".join(
        [
            regime.replace("_", " "),
            reason,
            *([f"amplitude {amplitude:.2g} of the norm"] if np.isfinite(amplitude) else []),
            f"settles at iteration {settled:g}" if np.isfinite(settled) else "never settles",
        ]
    )


def legend(view: View, selection: Selection) -> Component:
    """Return what the colours of the tokens mean."""
    if selection.colour == "regime":
        return _regime_legend(selection)
    return _settling_legend(view, selection)


def _regime_legend(selection: Selection) -> Component:
    styles = plots.palette(selection.theme).regimes
    return html.Ul(
        [
            html.Li(
                [
                    html.Span(
                        SYMBOLS[name],
                        className="swatch",
                        style={"--token-colour": style.colour, "borderBottomStyle": BORDERS[name]},
                    ),
                    style.label,
                ]
            )
            for name, style in styles.items()
        ],
        className="legend",
        **{"aria-label": "Legend: regimes"},
    )


def _settling_legend(view: View, selection: Selection) -> Component:
    colours = plots.palette(selection.theme)
    stops = ", ".join(f"{colour} {share:.0%}" for share, colour in colours.sequential)
    never = html.Span(
        "–",
        className="swatch",
        style={"--token-colour": colours.muted, "borderBottomStyle": "dotted"},
    )
    return html.Ul(
        [
            html.Li(
                [
                    "settles at iteration 1",
                    html.Span(
                        className="scale",
                        title="logarithmic",
                        style={"background": f"linear-gradient(90deg, {stops})"},
                    ),
                    str(view.limits.iterations),
                ]
            ),
            html.Li([never, "never settles"]),
        ],
        className="legend",
        **{"aria-label": "Legend: settling iteration"},
    )


def controls(_view: View) -> list[Component]:
    """Return the legend and the switch of the colours."""
    return [
        html.Div(id="strip-legend"),
        segmented(
            "colour", "Colour of the tokens", [("regime", "Regime"), ("settling", "Settling")]
        ),
    ]


def register(app: Dash, view: View) -> None:
    """Draw the strip whenever the prompt, the token, the restart or the colours change."""

    @app.callback(
        Output("strip-tokens", "children"),
        Output("strip-legend", "children"),
        Output("strip-caption", "children"),
        Input("strip-view", "data"),
        State("selection", "data"),
        State("iteration", "data"),
    )
    def draw(changed: Any, values: Any, iteration: Any) -> tuple[Any, Any, str]:
        selection = current(view, changed, values, iteration)
        length = int(view.run.prompts["length"].values[selection.prompt])
        made, trouble = attempt(lambda: strip(view, selection))
        place = int(view.run.tokens["position"].values[selection.token])
        text = view.token_text(selection.token)
        caption = f"selected: token {selection.token} “{text}”, position {place} of {length}"
        return made if trouble is None else trouble, legend(view, selection), caption


PANEL = Panel(
    name="strip",
    title="Tokens",
    keys=("prompt", "token", "restart", "colour", "theme"),
    body=lambda _view: [html.Div(message(WAITING), id="strip-tokens")],
    controls=controls,
    register=register,
)
