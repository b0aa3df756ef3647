"""Systems and runs with known answers, for tests of looplens and of what is built on it."""

from looplens.testing.runs import synthetic_run

__all__ = ["synthetic_run"]
