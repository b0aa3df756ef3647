"""The bar that stays in sight: run, prompt, restart, layer and head, the tokens, the scrubber."""

from __future__ import annotations

import dash_mantine_components as dmc
from dash import html
from dash.development.base_component import Component

from looplens_dashboard.controls import select
from looplens_dashboard.panels.card import card
from looplens_dashboard.panels.panel import Panel
from looplens_dashboard.selection import LOOP_STATE, MEAN_HEAD, Limits, Selection
from looplens_dashboard.view import View
from looplens_dashboard.workspace import Workspace

SPEEDS = (("2", "2/s"), ("8", "8/s"), ("30", "30/s"))
"""Iterations a second while playing."""

MOST_PROMPTS = 300
"""Prompts listed at once; of more, those around the selected one, and what a search finds."""


def run_select(workspace: Workspace, key: str) -> Component:
    """Return the list of runs."""
    options = [(entry.key, entry.name) for entry in workspace.entries(seconds=0)]
    return select("run", "Run", options, key, width=200, searchable=True)


def bar(view: View, selection: Selection, panels: tuple[Panel, ...]) -> list[Component]:
    """Return the bar of a run.

    Parameters
    ----------
    view, selection
        What is shown.
    panels : tuple of Panel
        Shown between the selects and the scrubber: the tokens.
    """
    limits = view.limits
    restarts = [(str(restart), f"restart {restart}") for restart in range(limits.restarts)]
    layers = [(LOOP_STATE, "loop state"), *((str(n), f"layer {n}") for n in limits.layers)]
    heads = [(MEAN_HEAD, "mean of heads"), *((str(n), f"head {n}") for n in range(limits.heads))]
    values = selection.values()
    return [
        html.Div(
            [
                run_select(view.views.workspace, view.key),
                html.Div(
                    [
                        _icon("previous-prompt", "‹", "Previous prompt"),
                        select(
                            "prompt",
                            "Prompt",
                            prompt_options(view, selection.prompt),
                            values["prompt"],
                            width="100%",
                            searchable=True,
                        ),
                        _icon("next-prompt", "›", "Next prompt"),
                    ],
                    className="prompt",
                ),
                select("restart", "Restart", restarts, values["restart"], width=110),
                select("layer", "Layer", layers, values["layer"], width=110),
                *([select("head", "Head", heads, values["head"], width=130)] * bool(limits.heads)),
            ],
            className="selects",
        ),
        *(card(panel, view, selection) for panel in panels),
        scrubber(limits, selection.iteration),
    ]


def prompt_options(view: View, prompt: int, search: str = "") -> list[tuple[str, str]]:
    """Return the prompts that are listed: all, or those found, or those around one."""
    count = view.limits.prompts
    if count <= MOST_PROMPTS:
        shown = list(range(count))
    elif search:
        shown = sorted({prompt, *view.prompts_with(search, MOST_PROMPTS)})
    else:
        first = min(max(0, prompt - MOST_PROMPTS // 2), count - MOST_PROMPTS)
        shown = list(range(first, first + MOST_PROMPTS))
    return [(str(one), view.prompt_label(one)) for one in shown]


def scrubber(limits: Limits, iteration: int) -> Component:
    """Return the scrubber."""
    kept = limits.kept_iterations
    last = limits.selectable[-1]
    labels = {value: str(value) for value in _ticks(last) if not kept or value in kept}
    marks = [
        {"value": value, **({"label": labels[value]} if value in labels else {})}
        for value in kept or labels
    ]
    # The browser moves between the iterations that were kept; without a list, by one.
    known = {
        "data-kept": ",".join(map(str, kept)),
        "data-prompts": str(limits.prompts),
        "data-tokens": str(limits.tokens),
    }
    return html.Div(
        [
            _icon("play", "▶", "Play"),
            html.Button(
                "⟳",
                id="loop",
                className="button toggle",
                title="Play again from the start",
                **{"aria-label": "Loop", "aria-pressed": "false"},
            ),
            html.Div(
                [
                    "iteration ",
                    html.Strong(str(iteration), id="iteration-number"),
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
                value=iteration,
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
    return html.Button(
        character, id=name, className="button icon", title=label, **{"aria-label": label}
    )
