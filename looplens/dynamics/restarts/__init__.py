"""Searching for initial states that the loop does not forget."""
