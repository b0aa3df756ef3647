"""Several experiments over the tokens of a run, and their results in the run."""
