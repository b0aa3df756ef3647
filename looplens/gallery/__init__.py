"""The gallery: claims of papers about looped models, each put to the test by one script.

A script of ``examples/gallery`` defines a :class:`Claim`; ``looplens gallery`` lists and runs them.
The names load on first use, so that a listing needs neither torch nor plotly.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from looplens.gallery import pictures as pictures
    from looplens.gallery.claim import Claim as Claim
    from looplens.gallery.claim import Outcome as Outcome
    from looplens.gallery.claim import Picture as Picture
    from looplens.gallery.claim import Table as Table
    from looplens.gallery.intervals import Interval as Interval
    from looplens.gallery.intervals import above as above
    from looplens.gallery.intervals import below as below
    from looplens.gallery.intervals import mean_interval as mean_interval
    from looplens.gallery.intervals import paired as paired
    from looplens.gallery.intervals import share_interval as share_interval
    from looplens.gallery.parallel import in_parallel as in_parallel
    from looplens.gallery.parallel import train_all as train_all
    from looplens.gallery.scale import Scale as Scale

_NAMES = {
    "Claim": "claim",
    "Interval": "intervals",
    "Outcome": "claim",
    "Picture": "claim",
    "Scale": "scale",
    "Table": "claim",
    "above": "intervals",
    "below": "intervals",
    "in_parallel": "parallel",
    "mean_interval": "intervals",
    "paired": "intervals",
    "share_interval": "intervals",
    "train_all": "parallel",
}

__all__ = [
    "Claim",
    "Interval",
    "Outcome",
    "Picture",
    "Scale",
    "Table",
    "above",
    "below",
    "in_parallel",
    "mean_interval",
    "paired",
    "pictures",
    "share_interval",
    "train_all",
]


def __getattr__(name: str) -> Any:
    if name == "pictures":
        return importlib.import_module("looplens.gallery.pictures")
    if name in _NAMES:
        return getattr(importlib.import_module(f"looplens.gallery.{_NAMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
