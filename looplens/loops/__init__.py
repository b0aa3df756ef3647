"""The coordinates of a loop: which pass is running, and how a hook point in a pass is named."""

from looplens.loops.clock import LoopClock
from looplens.loops.sites import SiteAddress, match_sites
from looplens.loops.spec import Loop, LoopSpec, Start, Tap

__all__ = ["Loop", "LoopClock", "LoopSpec", "SiteAddress", "Start", "Tap", "match_sites"]
