"""Closed-form trajectories whose regime is known, for checking what analyses say.

A system is built in a few dimensions from a formula, turned into ``d_model`` dimensions by a random
orthonormal embedding, moved by a random offset, and covered with white observation noise. Every
draw comes from one seed. This package knows nothing of the analyses that it is used to check, of
runs on disk, or of models.
"""

from looplens.testing.systems.making import KINDS, TRUTHS, System, kinds_of, make_system

__all__ = ["KINDS", "TRUTHS", "System", "kinds_of", "make_system"]
