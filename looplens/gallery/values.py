"""The numbers of a page: everything it shows, ready for JSON, and reading pages back.

Importing this loads neither torch nor plotly.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from looplens.gallery.running import Result

DIGITS = 6


def as_values(result: Result) -> dict[str, Any]:
    """Return what a page shows as plain values."""
    claim, outcome = result.claim, result.outcome
    return {
        "number": claim.number,
        "stem": claim.stem,
        "title": claim.title,
        "paper": claim.paper,
        "says": claim.says,
        "does": claim.does,
        "verdict": result.verdict,
        "summary": outcome.summary,
        "checks": dict(outcome.checks),
        "sanity": dict(outcome.sanity),
        "tables": [
            {"title": t.title, "columns": list(t.columns), "rows": [list(row) for row in t.rows]}
            for t in outcome.tables
        ],
        "pictures": [
            {"name": p.name, "caption": p.caption, "curves": curves(p.figure)}
            for p in outcome.pictures
        ],
        "limits": list(outcome.limits),
        "scale": result.scale,
        "command": result.command,
        "date": result.date,
        "seconds": round(result.seconds, 1),
        "cpu_seconds": round(result.cpu_seconds, 1),
        "computed": result.computed,
        "reused": result.reused,
        "kept_seconds": round(result.kept_seconds, 1),
        "workers": result.workers,
        "device": result.device,
        "commit": result.commit,
        "versions": result.versions,
    }


def as_json(result: Result) -> str:
    """Return :func:`as_values` as the text of a file."""
    return json.dumps(as_values(result), indent=1, default=_plain) + "\n"


def curves(figure: Figure) -> list[dict[str, Any]]:
    """Return what a figure draws as numbers.

    One entry a curve, a series of bars or a map: ``name``, its ``kind``, ``x``, ``y``, the values
    ``z`` of a map, and ``low`` and ``high``, the ends of the intervals, where there are any.
    Numbers have six digits. The bands themselves are left out.
    """
    found = []
    for trace in figure.data:
        if trace.type == "scatter" and trace.fill == "toself":
            continue
        entry: dict[str, Any] = {"name": trace.name or "", "kind": trace.type}
        for axis in ("x", "y", "z"):
            values = getattr(trace, axis, None) if axis in trace else None
            if values is not None:
                entry[axis] = _rounded(values)
        bars = trace.error_y if "error_y" in trace else None
        if bars is not None and bars.array is not None and bars.visible is not False:
            below = bars.array if bars.arrayminus is None else bars.arrayminus
            entry["low"] = _rounded([y - d for y, d in zip(trace.y, below, strict=True)])
            entry["high"] = _rounded([y + d for y, d in zip(trace.y, bars.array, strict=True)])
        elif isinstance(trace.meta, Mapping) and "low" in trace.meta:
            entry |= {end: _rounded(trace.meta[end]) for end in ("low", "high")}
        found.append(entry)
    return found


def pages_of(out: Path) -> list[dict[str, Any]]:
    """Return the numbers of the pages of a folder."""
    found = [json.loads(path.read_text(encoding="utf-8")) for path in out.glob("[0-9][0-9]-*.json")]
    return [page for page in found if (out / f"{page['stem']}.md").is_file()]


def counts(checks: Mapping[str, bool | None]) -> str:
    """Return how many checks held, are open, and are spoken against."""
    held = list(checks.values())
    named = {"held": held.count(True), "open": held.count(None), "against": held.count(False)}
    return ", ".join(f"{count} {name}" for name, count in named.items() if count)


def _rounded(value: Any) -> Any:
    """Return numbers with six digits, None for what is not finite; text stays."""
    if isinstance(value, str) or value is None or isinstance(value, bool):
        return value
    if hasattr(value, "tolist"):
        return _rounded(value.tolist())
    if isinstance(value, list | tuple):
        return [_rounded(one) for one in value]
    if isinstance(value, int):
        return value
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
    return str(value)


def _plain(value: Any) -> Any:
    """Return what JSON does not know as plain values."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    return value.item() if hasattr(value, "item") else str(value)
