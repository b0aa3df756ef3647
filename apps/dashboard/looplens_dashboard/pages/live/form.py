"""The form of the page Live: which model, which prompts, how they are run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dash_mantine_components as dmc
from dash import html
from dash.development.base_component import Component

from looplens_dashboard.live import STARTS, LiveLimits, LiveModel

FIELDS = (
    ("model", "live-model", "value"),
    ("text", "live-text", "value"),
    ("lines", "live-lines", "checked"),
    ("iterations", "live-iterations", "value"),
    ("restarts", "live-restarts", "value"),
    ("start", "live-start", "value"),
    ("seed", "live-seed", "value"),
    ("attention", "live-attention", "checked"),
)
"""What the form says: name in the request, id and property of the component."""

# What was typed stays while the page is drawn again, in another theme or for another run.
_KEPT: dict[str, Any] = {"persistence": True, "persistence_type": "memory", "size": "sm"}


def form(models: Mapping[str, LiveModel], limits: LiveLimits) -> Component:
    """Return the form.

    Parameters
    ----------
    models : mapping of str to LiveModel
        What can be recorded.
    limits : LiveLimits
        Bounds of the numbers.
    """
    first = next(iter(models))
    return html.Div(
        [
            dmc.Select(
                id="live-model",
                label="Model",
                data=[{"value": key, "label": key} for key in models],
                value=first,
                searchable=len(models) > 8,
                allowDeselect=False,
                **_KEPT,
            ),
            html.Div(id="live-about", className="live-about"),
            dmc.Textarea(
                id="live-text",
                label="Prompt",
                autosize=True,
                minRows=3,
                maxRows=12,
                spellCheck=False,
                className="live-text",
                **_KEPT,
            ),
            html.Div(
                [
                    dmc.Checkbox(
                        id="live-lines", label="Each line is a prompt", checked=False, **_KEPT
                    ),
                    html.Button(
                        "Take an example",
                        id="live-example",
                        className="button",
                        title="A prompt of the kind that the model was trained on",
                    ),
                ],
                className="live-row",
            ),
            html.Div(
                [
                    _number("live-iterations", "Iterations", 64, 1, limits.iterations),
                    _number("live-restarts", "Restarts", 2, 1, limits.restarts),
                    _number("live-seed", "Seed", 0, 0, 2**31 - 1),
                ],
                className="live-row",
            ),
            html.Div(
                [
                    dmc.Select(
                        id="live-start",
                        label="The loop starts from",
                        data=[{"value": key, "label": words} for key, words in STARTS.items()],
                        value="own",
                        allowDeselect=False,
                        w=210,
                        **_KEPT,
                    ),
                    dmc.Checkbox(
                        id="live-attention", label="Keep attention", checked=True, **_KEPT
                    ),
                ],
                className="live-row low",
            ),
            html.Div(
                [
                    html.Button("Record", id="live-record", className="button main"),
                    html.Div(id="live-said", className="live-said", role="alert"),
                ],
                className="live-row",
            ),
            html.P(
                f"At most {limits.prompts} prompts of {limits.tokens} tokens in all, "
                f"{limits.seconds / 60:.0f} minutes, one recording at a time. It is recorded in a "
                "process of its own, into a temporary folder that goes when the app ends.",
                className="hint",
            ),
        ],
        className="live-form",
    )


def about(model: LiveModel) -> list[Component]:
    """Return what there is to know of a model before a prompt is typed."""
    summary = model.title.partition(": ")[2]
    knows = f"It knows these characters: {' '.join(model.characters)}" if model.characters else ""
    if model.words:
        shown = model.words if len(model.words) <= 64 else (*model.words[:64], "...")
        knows = f"It knows these words, with spaces between them: {' '.join(shown)}"
    facts = [
        f"at most {model.n_ctx} tokens" if model.n_ctx else "",
        f"recommended depth {model.iterations}" if model.iterations else "",
        "ships with looplens" if model.bundled else "from a directory named at the start",
    ]
    lines = [summary, knows, ", ".join(filter(None, facts)) + "."]
    return [html.Div(line) for line in lines if line]


def _number(name: str, label: str, value: int | None, low: int, high: int) -> Component:
    return dmc.NumberInput(
        id=name,
        label=label,
        value=value if value is not None else "",
        min=low,
        max=high,
        clampBehavior="blur",
        allowDecimal=False,
        w=110,
        **_KEPT,
    )
