"""Where a run lies and how its bytes are written and read; knows nothing of models."""
