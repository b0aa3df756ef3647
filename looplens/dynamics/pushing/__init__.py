"""Pushes: change the loop at a place and a pass, and see what it makes of that."""
