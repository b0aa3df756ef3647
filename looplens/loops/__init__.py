"""The coordinates of a loop: which pass is running, and how a hook point in a pass is named."""

from looplens.loops.clock import LoopClock
from looplens.loops.sites import SiteAddress, match_sites

__all__ = ["LoopClock", "SiteAddress", "match_sites"]
