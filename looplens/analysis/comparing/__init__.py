"""Two runs of the same prompts: which tokens are the same, what differs, and how surely."""
