"""Eigenvalues, singular values and non-normality of the loop's Jacobian, without forming it."""
