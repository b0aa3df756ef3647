"""The page: a bar that stays in sight, with the prompt and the scrubber, and a grid of panels.

It says what stands where and which stores there are; what happens is in ``wiring.py``, the panels
and the scripts of ``assets/``.
"""

from __future__ import annotations

import dash_mantine_components as dmc
from dash import dcc, html
from dash.development.base_component import Component

from looplens_dashboard.controls import segmented, select
from looplens_dashboard.panels import PANELS
from looplens_dashboard.panels.frame import FONT
from looplens_dashboard.view import View

SPEEDS = (("2", "2/s"), ("8", "8/s"), ("30", "30/s"))
"""Iterations a second while playing."""

KEYBOARD = (
    "Keys: ← → one iteration, with Shift ten; Home and End first and last; Space plays and pauses; "
    "[ and ] previous and next token."
)


def page(view: View) -> Component:
    """Return the layout of the whole page."""
    return dmc.MantineProvider(
        id="provider",
        forceColorScheme="light",
        theme={
            "primaryColor": "blue",
            "fontFamily": FONT,
        },
        children=html.Div(
            [
                *_stores(),
                html.Header([_title_bar(view), _scrubber(view)], className="top"),
                html.Main(
                    [
                        dmc.Alert(
                            id="note",
                            title="Not everything in the address can be shown",
                            color="yellow",
                            variant="light",
                            withCloseButton=True,
                            hide=True,
                            className="note",
                        ),
                        html.Div([panel.layout(view) for panel in PANELS], className="panels"),
                        html.Footer(KEYBOARD),
                    ]
                ),
            ],
            className="page",
        ),
    )


def _stores() -> list[Component]:
    """Return what the browser holds beside the panels.

    ``panel-keys`` says which parts of the selection each panel is drawn from; ``selection`` is the
    one selection of all panels, without the iteration, which is in ``iteration`` and moves without
    the server; ``picked`` is what was clicked outside of a control; ``address`` the query string
    that the page was opened with.
    """
    return [
        dcc.Store(id="panel-keys", data={panel.name: list(panel.keys) for panel in PANELS}),
        dcc.Store(id="address"),
        dcc.Store(id="picked"),
        dcc.Store(id="selection"),
        dcc.Store(id="iteration"),
    ]


def _title_bar(view: View) -> Component:
    limits = view.limits
    prompts = [(str(prompt), view.prompt_label(prompt)) for prompt in range(limits.prompts)]
    restarts = [(str(restart), f"restart {restart}") for restart in range(limits.restarts)]
    return html.Div(
        [
            html.H1(
                [html.Span("looplens", className="brand"), view.name], title=str(view.run.path)
            ),
            html.Div(
                [
                    _icon("previous-prompt", "‹", "Previous prompt"),
                    select("prompt", "Prompt", prompts, width="100%", searchable=True),
                    _icon("next-prompt", "›", "Next prompt"),
                ],
                className="prompt",
            ),
            select("restart", "Restart", restarts, width=120),
            segmented("theme", "Theme", [("light", "Light"), ("dark", "Dark")]),
        ],
        className="title-bar",
    )


def _scrubber(view: View) -> Component:
    kept = view.limits.kept_iterations
    last = view.limits.selectable[-1]
    labels = {value: str(value) for value in _ticks(last) if not kept or value in kept}
    marks = [
        {"value": value, **({"label": labels[value]} if value in labels else {})}
        for value in kept or labels
    ]
    # The browser moves between the iterations that were kept; without a list, by one.
    known = {"data-kept": ",".join(map(str, kept))}
    return html.Div(
        [
            _icon("play", "▶", "Play"),
            html.Div(
                [
                    "iteration ",
                    html.Strong(str(last), id="iteration-number"),
                    " of ",
                    html.Span(str(last), id="iteration-last", **known),
                ],
                className="iteration-label",
            ),
            dmc.Slider(
                id="scrubber",
                min=kept[0] if kept else 0,
                max=last,
                step=1,
                value=last,
                updatemode="mouseup",
                label=None,
                size="sm",
                thumbLabel="Iteration",
                className="slider",
                marks=marks,
                restrictToMarks=bool(kept),
            ),
            dmc.SegmentedControl(
                id="speed",
                data=[{"value": value, "label": label} for value, label in SPEEDS],
                value=SPEEDS[1][0],
                size="xs",
                **{"aria-label": "Speed of playing, iterations a second"},
            ),
        ],
        className="scrubber",
    )


def _ticks(last: int) -> list[int]:
    """Return about eight round iterations for the slider, 0 and the last among them."""
    step = next(
        size * 10**power for power in range(9) for size in (1, 2, 5) if size * 10**power * 8 >= last
    )
    inner = [value for value in range(0, last, step) if value == 0 or last - value >= step / 2]
    return [*inner, last]


def _icon(name: str, character: str, label: str) -> Component:
    return dmc.ActionIcon(character, id=name, variant="default", size="md", **{"aria-label": label})
