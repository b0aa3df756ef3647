"""A report as JSON: the metadata of the run and the nested summary of its analyses.

Keys are stable and sorted. JSON has no NaN, so a number that is missing is ``null``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from looplens.reports._report import Report

JSON_VERSION = 1


def to_json(report: Report) -> str:
    """Return the report as JSON.

    Parameters
    ----------
    report : Report
        A report.

    Returns
    -------
    str
        An object with ``report_version``, ``run``, ``verdict``, ``summary`` and ``not_concluded``.
    """
    content = {
        "report_version": JSON_VERSION,
        "run": report.metadata,
        "verdict": {statement.key: statement.text for statement in report.verdict},
        "summary": report.summary,
        "not_concluded": {statement.key: statement.text for statement in report.not_concluded},
    }
    return json.dumps(plain(content), indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)


def plain(value: Any) -> Any:
    """Turn a value into what JSON can hold: no NumPy scalars, no NaN, no infinities."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | np.ndarray):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return str(value)
