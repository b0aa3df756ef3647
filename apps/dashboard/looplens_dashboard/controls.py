"""The controls of the dashboard: each holds one value of the selection under the same name.

All have an id ``{"control": name}``, so that one callback reads and sets every one of them.
"""

from __future__ import annotations

from collections.abc import Sequence

import dash_mantine_components as dmc
from dash.development.base_component import Component

_MOST_OPTIONS = 200


def control_id(name: str) -> dict[str, str]:
    """Return the id of the control of a value of the selection."""
    return {"control": name}


def select(
    name: str,
    label: str,
    options: Sequence[tuple[str, str]],
    *,
    width: int | str = 140,
    searchable: bool = False,
) -> Component:
    """Return a drop-down list of (value, text) pairs."""
    return dmc.Select(
        id=control_id(name),
        data=[{"value": value, "label": text} for value, text in options],
        value=options[0][0],
        allowDeselect=False,
        searchable=searchable,
        limit=_MOST_OPTIONS,
        nothingFoundMessage="Nothing found",
        size="xs",
        w=width,
        comboboxProps={"shadow": "md"},
        inputProps={"aria-label": label},
        **{"aria-label": label},
    )


def segmented(name: str, label: str, options: Sequence[tuple[str, str]]) -> Component:
    """Return a row of (value, text) pairs of which one is pressed."""
    return dmc.SegmentedControl(
        id=control_id(name),
        data=[{"value": value, "label": text} for value, text in options],
        value=options[0][0],
        size="xs",
        **{"aria-label": label},
    )
