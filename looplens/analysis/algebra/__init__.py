"""Products of trajectories, and the sums over them that every measure is made of."""
