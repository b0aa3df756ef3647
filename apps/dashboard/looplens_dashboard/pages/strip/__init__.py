"""The tokens of the prompt in the bar: coloured by what is known of them, filtered, selected."""

from looplens_dashboard.pages.strip.panel import COLOUR, FILTER, PANEL

__all__ = ["COLOUR", "FILTER", "PANEL"]
