"""The gallery: claims of papers about looped models, each put to the test by one script.

A script of ``examples/gallery`` defines a :class:`Claim`; ``looplens gallery`` lists and runs them.
"""

from looplens.gallery import pictures
from looplens.gallery.claim import Claim, Outcome, Picture, Table
from looplens.gallery.intervals import Interval, above, below, mean_interval, paired, share_interval
from looplens.gallery.parallel import in_parallel, train_all
from looplens.gallery.scale import Scale

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
