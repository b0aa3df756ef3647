"""Reading a run once for all analyses, here or on a cluster, and only what is missing."""
