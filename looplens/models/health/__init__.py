"""The health of a loop: numbers, thresholds with their sources, and a report."""

from looplens.models.health.examine import health
from looplens.models.health.report import Health
from looplens.models.health.signs import Sign

__all__ = ["Health", "Sign", "health"]
