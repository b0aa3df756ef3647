"""The sections of a report, one file a question.

Each function takes the material and returns a section, or None when its analysis is missing. They
choose what to show (the most telling prompt, the worst token) and compute nothing.
"""

from __future__ import annotations

from looplens.reports._sections.attention import attention, attention_bound
from looplens.reports._sections.basins import basins
from looplens.reports._sections.convergence import convergence
from looplens.reports._sections.cycle import cycle
from looplens.reports._sections.dynamics import dynamics
from looplens.reports._sections.exits import exits
from looplens.reports._sections.geometry import geometry
from looplens.reports._sections.groups import groups
from looplens.reports._sections.input_dependence import input_dependence
from looplens.reports._sections.lens import lens
from looplens.reports._sections.numbers import numbers
from looplens.reports._sections.path_independence import path_independence
from looplens.reports._sections.readout import readout
from looplens.reports._sections.regimes import regimes
from looplens.reports._sections.stages import stages

__all__ = [
    "attention",
    "attention_bound",
    "basins",
    "convergence",
    "cycle",
    "dynamics",
    "exits",
    "geometry",
    "groups",
    "input_dependence",
    "lens",
    "numbers",
    "path_independence",
    "readout",
    "regimes",
    "stages",
]
