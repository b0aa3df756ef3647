"""Labelled analyses over a run, one a file; they are listed in `looplens.analysis.registry`."""
