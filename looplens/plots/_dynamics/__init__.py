"""Figures of what the dynamics lab found; they read its results and need no torch."""
