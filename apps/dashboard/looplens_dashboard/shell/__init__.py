"""What surrounds the panels: navigation, the bar, and what connects them."""
