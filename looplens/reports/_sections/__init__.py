"""The sections of a report, one file a question.

Each function takes the material and returns a section, or None when its analysis is missing. They
choose what to show (the most telling prompt, the worst token) and compute nothing.
"""

from __future__ import annotations

from looplens.reports._sections.convergence import convergence
from looplens.reports._sections.inside import attention, cycle
from looplens.reports._sections.numbers import numbers
from looplens.reports._sections.path_independence import path_independence
from looplens.reports._sections.readout import readout
from looplens.reports._sections.regimes import regimes

__all__ = [
    "attention",
    "convergence",
    "cycle",
    "numbers",
    "path_independence",
    "readout",
    "regimes",
]
