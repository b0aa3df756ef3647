"""The controls of the app: each holds one value of the selection under the same name.

All have an id ``{"control": name}``, so that one callback reads and sets every one of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import dash_mantine_components as dmc
from dash.development.base_component import Component

from looplens_dashboard.selection import Choice, Options

_MOST_OPTIONS = 200


def control_id(name: str) -> dict[str, str]:
    """Return the id of the control of a value of the selection."""
    return {"control": name}


def control(choice: Choice, options: Options, value: str) -> Component:
    """Return the control of a choice."""
    if choice.control == "segmented":
        return segmented(choice.name, choice.label, options, value)
    if choice.control in ("select", "several"):
        return select(
            choice.name,
            choice.label,
            options,
            value,
            width=choice.width,
            searchable=len(options) > 12,
            several=choice.control == "several",
        )
    if choice.control == "number":
        return dmc.NumberInput(
            id=control_id(choice.name),
            value=int(value),
            min=choice.low,
            max=choice.high,
            debounce=300,
            size="xs",
            w=choice.width,
            **{"aria-label": choice.label},
        )
    return dmc.TextInput(
        id=control_id(choice.name),
        value=value,
        placeholder=choice.label,
        debounce=400,
        size="xs",
        w=choice.width,
        inputProps={"maxLength": choice.longest},
        **{"aria-label": choice.label},
    )


def select(
    name: str,
    label: str,
    options: Sequence[tuple[str, str]],
    value: str | None = None,
    *,
    width: int | str = 140,
    searchable: bool = False,
    several: bool = False,
) -> Component:
    """Return a drop-down list of (value, text) pairs; one, or several joined with commas."""
    shared: dict[str, Any] = {
        "id": control_id(name),
        "data": [{"value": one, "label": text} for one, text in options],
        "searchable": searchable,
        "limit": _MOST_OPTIONS,
        "nothingFoundMessage": "Nothing found",
        "size": "xs",
        "w": width,
        "comboboxProps": {"shadow": "md"},
        "inputProps": {"aria-label": label},
        "aria-label": label,
    }
    if several:
        return dmc.MultiSelect(
            value=[part for part in (value or "").split(",") if part],
            placeholder=label,
            hidePickedOptions=False,
            clearable=True,
            **shared,
        )
    first = options[0][0] if options else None
    return dmc.Select(value=value or first, allowDeselect=False, **shared)


def segmented(
    name: str, label: str, options: Sequence[tuple[str, str]], value: str | None = None
) -> Component:
    """Return a row of (value, text) pairs of which one is pressed."""
    return dmc.SegmentedControl(
        id=control_id(name),
        data=[{"value": one, "label": text} for one, text in options],
        value=value or options[0][0],
        size="xs",
        **{"aria-label": label},
    )
