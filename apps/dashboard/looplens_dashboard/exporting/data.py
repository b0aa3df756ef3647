"""The numbers and words that a figure shows, as a table (CSV) or by trace (JSON).

They are read from the figure itself, so they are what is drawn: where a figure draws a part of the
run, that part. What only marks a place, such as the cursor of the scrubber, is left out.
"""

from __future__ import annotations

import csv
import html
import io
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import plotly.graph_objects as go

_VALUES = ("x", "y", "z", "u", "v", "w", "r", "theta", "values", "labels", "text", "base")
_ERRORS = ("error_x", "error_y")


def as_csv(figure: go.Figure) -> str:
    """Return what a figure shows as CSV: one line for each point, bar, or cell of a map.

    Columns are ``plot`` (titles of the axes, where there are several), ``trace`` (its name), and
    the values, which have the titles of their axes where all traces share them. A missing value is
    empty.
    """
    traces = _traces(figure)
    names = _names(traces)
    plots = _plots(traces)
    several = len(plots) > 1
    columns = [name for key, name in names.items() if any(key in t["values"] for t in traces)]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*(["plot"] * several), "trace", *columns])
    for trace in traces:
        start = [*([plots[trace["axes"]]] * several), trace["name"]]
        for row in _rows(trace["values"]):
            cells = {names[key]: value for key, value in row.items()}
            writer.writerow([*start, *(_cell(cells.get(column)) for column in columns)])
    return out.getvalue()


def as_json(figure: go.Figure, **facts: Any) -> str:
    """Return what a figure shows as JSON: its title, and the values of each trace.

    Values of a map are ``z``, row by row along ``y``. A missing value is null.

    Parameters
    ----------
    figure : plotly Figure
        The figure.
    **facts
        Written beside the title: where the figure comes from.
    """
    title = figure.layout.title
    found = {
        "title": plain_text(title.text),
        "subtitle": plain_text(title.subtitle.text),
        **facts,
        "traces": [
            {
                "name": trace["name"],
                "type": trace["type"],
                "plot": trace["axes"],
                "titles": {key: name for key, name in trace["titles"].items() if name},
                **{key: _plain(values) for key, values in trace["values"].items()},
            }
            for trace in _traces(figure)
        ],
    }
    return json.dumps(found, ensure_ascii=False, allow_nan=False, indent=1)


def plain_text(text: str | None) -> str:
    """Return the text of a title without its tags, lines joined with a dot between them."""
    joined = re.sub(r"\s*<br\s*/?>\s*", " · ", text or "")
    return html.unescape(re.sub(r"</?\w+[^<>]*>", "", joined)).strip()


def _traces(figure: go.Figure) -> list[dict[str, Any]]:
    """Return name, kind, axes, titles and values of the traces that show something of the run."""
    found = []
    for number, trace in enumerate(figure.data):
        role = (trace.meta or {}).get("role") if isinstance(trace.meta, Mapping) else None
        if role == "cursor" or trace.visible is False:
            continue
        values = _values(trace, role)
        name = plain_text(trace.name) or f"{trace.type} {number}"
        for part, cut in _tiles(trace, name, values) if values else ():
            found.append(
                {
                    "name": part,
                    "type": trace.type,
                    "axes": _axes(trace),
                    "titles": _titles(figure, trace, cut),
                    "values": cut,
                }
            )
    return found


def _values(trace: Any, role: str | None) -> dict[str, np.ndarray]:
    """Return the arrays of a trace by what they are."""
    found: dict[str, np.ndarray] = {}
    for key in _VALUES:
        values = _array(trace, key)
        if values is not None:
            found[key] = values
    for key in _ERRORS:
        values = _array(getattr(trace, key, None), "array")
        if values is not None:
            found[key] = values
    custom, z = _array(trace, "customdata"), found.get("z")
    if custom is not None and custom.ndim == 1:
        found["iteration" if role == "trajectory" else "customdata"] = custom
    elif custom is not None and z is not None and custom.shape == z.shape and _is_value(trace):
        z = found["z"] = custom
    if z is not None and z.ndim == 2:
        found.setdefault("x", np.arange(z.shape[1]))
        found.setdefault("y", np.arange(z.shape[0]))
        found = {key: v for key, v in found.items() if key in ("x", "y", "z") or v.shape == z.shape}
    elif "y" in found and "x" not in found and trace.type.startswith("scatter"):
        found = {"x": np.arange(len(found["y"])), **found}
    return found


def _tiles(
    trace: Any, name: str, values: dict[str, np.ndarray]
) -> list[tuple[str, dict[str, np.ndarray]]]:
    """Return the maps that a map lays side by side, each with a name and places of its own."""
    meta = trace.meta if isinstance(trace.meta, Mapping) else {}
    if "tiles" not in meta:
        return [(name, values)]
    found = []
    places = np.arange(meta["cells"]) * meta["joined"]
    for number, (row, column) in enumerate(meta["tiles"]):
        part = np.s_[row : row + meta["cells"], column : column + meta["cells"]]
        cut = {key: array[part] for key, array in values.items() if key not in ("x", "y")}
        found.append((f"{meta['tile']} {number}", {"x": places, "y": places, **cut}))
    return found


def _is_value(trace: Any) -> bool:
    """Return whether the values of a map stand beside it: their logarithms are what is coloured."""
    shown = trace.hovertemplate or ""
    return "%{customdata" in shown and "%{z" not in shown


def _array(of: Any, key: str) -> np.ndarray | None:
    """Return an array of a trace; None where it has none, or one value for all."""
    try:
        values = of[key] if of is not None else None
    except (KeyError, ValueError):
        return None
    if values is None or isinstance(values, str | int | float):
        return None
    array = np.asarray(values)
    if array.dtype.kind in "US" or array.ndim == 0:
        array = np.atleast_1d(array).astype(object)
    return array if array.size else None


def _axes(trace: Any) -> str:
    """Return which axes of the figure a trace is drawn along, as a number from 1 on."""
    for key in ("xaxis", "scene", "subplot", "geo"):
        try:
            named = trace[key]
        except (KeyError, ValueError):
            continue
        digits = re.sub(r"\D", "", named or "")
        return digits or "1"
    return "1"


def _titles(figure: go.Figure, trace: Any, values: Mapping[str, Any]) -> dict[str, str]:
    """Return what the values are called in the figure: titles of axes, and of the colour bar."""
    number = _axes(trace)
    number = "" if number == "1" else number
    layout = figure.layout.to_plotly_json()
    titles = {}
    for key in ("x", "y", "z"):
        if key not in values:
            continue
        if trace.type.endswith("3d") or trace.type == "surface":
            axis = layout.get(f"scene{number}", {}).get(f"{key}axis", {})
        elif key == "z":
            bar = layout.get(trace.coloraxis or "", trace.to_plotly_json()).get("colorbar", {})
            titles[key] = plain_text(bar.get("title", {}).get("text")) or "value"
            continue
        else:
            axis = layout.get(f"{key}axis{number}", {})
        titles[key] = plain_text(axis.get("title", {}).get("text"))
    return titles


def _names(traces: list[dict[str, Any]]) -> dict[str, str]:
    """Return the heading of each kind of value: the title of its axis where all traces share it."""
    keys = list(dict.fromkeys(key for trace in traces for key in trace["values"]))
    names = {}
    for key in keys:
        titles = {trace["titles"].get(key, "") for trace in traces if key in trace["values"]}
        shared = titles.pop() if len(titles) == 1 else ""
        names[key] = shared or key
    taken = [*names.values(), "trace", "plot"]
    return {
        key: f"{name} ({key})" if taken.count(name) > 1 else name for key, name in names.items()
    }


def _plots(traces: list[dict[str, Any]]) -> dict[str, str]:
    """Return a name for each of the axes: what is drawn by what."""
    found: dict[str, str] = {}
    for trace in traces:
        titles = [trace["titles"].get(key, "") for key in ("z", "y", "x")]
        name = " by ".join(filter(None, titles)) or trace["axes"]
        if trace["axes"] not in found:
            found[trace["axes"]] = name if name not in found.values() else f"{name} {trace['axes']}"
    return found


def _rows(values: Mapping[str, np.ndarray]) -> Iterator[dict[str, Any]]:
    z = values.get("z")
    if z is not None and z.ndim == 2:
        for row, column in np.ndindex(*z.shape):
            yield {
                key: array[{"x": column, "y": row}[key]]
                if key in ("x", "y")
                else array[row, column]
                for key, array in values.items()
            }
        return
    for row in range(max(len(array) for array in values.values())):
        yield {key: array[row] for key, array in values.items() if row < len(array)}


def _cell(value: Any) -> Any:
    """Return a value for a cell of the table."""
    value = _plain(value)
    if isinstance(value, list):
        return " ".join(map(str, value))
    if isinstance(value, str):
        return plain_text(value)
    return "" if value is None else value


def _plain(value: Any) -> Any:
    """Return plain numbers, texts and lists; None for what is missing or not finite."""
    if isinstance(value, np.ndarray | list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)
