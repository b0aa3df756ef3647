"""Solving s = f(s): for points that iteration finds, and for those that it runs away from."""
