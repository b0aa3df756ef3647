"""The one selection that all panels share: what it holds, what it can be, how texts become it."""

from looplens_dashboard.selection.choices import Choice, Options
from looplens_dashboard.selection.limits import Limits
from looplens_dashboard.selection.reading import MOST_TOKENS, changed, read, texts, whole_number
from looplens_dashboard.selection.selection import (
    KEYS,
    LOOP_STATE,
    MEAN_HEAD,
    THEMES,
    Selection,
)

__all__ = [
    "KEYS",
    "LOOP_STATE",
    "MEAN_HEAD",
    "MOST_TOKENS",
    "THEMES",
    "Choice",
    "Limits",
    "Options",
    "Selection",
    "changed",
    "read",
    "texts",
    "whole_number",
]
