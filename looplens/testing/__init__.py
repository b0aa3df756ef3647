"""Systems and runs with known answers, for tests of looplens and of what is built on it."""

from looplens.testing.runs import synthetic_run
from looplens.testing.systems import KINDS, TRUTHS, System, kinds_of, make_system

__all__ = ["KINDS", "TRUTHS", "System", "kinds_of", "make_system", "synthetic_run"]
