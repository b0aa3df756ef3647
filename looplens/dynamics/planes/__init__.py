"""Two-dimensional slices of the state space: where the loop rests, pulls, and ends."""
