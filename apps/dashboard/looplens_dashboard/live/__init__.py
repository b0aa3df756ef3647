"""Recording from the page: which models there are, what may be asked, one process at a time."""

from looplens_dashboard.live.job import LiveState
from looplens_dashboard.live.models import LiveModel, find_models
from looplens_dashboard.live.request import STARTS, LiveLimits
from looplens_dashboard.live.session import LiveSession
from looplens_dashboard.live.shelf import LiveShelf

__all__ = [
    "STARTS",
    "LiveLimits",
    "LiveModel",
    "LiveSession",
    "LiveShelf",
    "LiveState",
    "find_models",
]
