"""Systems and runs with known answers, for tests of looplens and of what is built on it."""

from looplens.testing.runs import synthetic_run
from looplens.testing.systems import KINDS, System, make_system

__all__ = ["KINDS", "System", "make_system", "synthetic_run"]
