"""Fewer dimensions for states before they are stored: a mean, and orthonormal directions.

A state x is stored as ``basis @ (x - mean)``, with the share of its squared norm that this leaves
out. How a basis is found (at random, from the states themselves) is the recorder's affair.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import numpy as np

from looplens.errors import InputError, near_matches

REDUCTION_KINDS = ("random", "pca", "given")

# Rows of a QR in float32 are orthonormal to about 1e-6.
_ORTHONORMAL_TO = 1e-4


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Reduction:
    """A linear map from states to a few components, with orthonormal rows.

    Parameters
    ----------
    kind : {"random", "pca", "given"}
        How the basis was found.
    basis : array
        (component, d_model), float32; its rows are orthonormal.
    mean : array, optional
        (d_model,), float32, subtracted before; zeros by default, or when it is empty.
    seed : int, optional
        Seed of a random basis.
    source : str
        Where the basis comes from, in words.

    Raises
    ------
    InputError
        If the kind is unknown, the shapes do not fit, there are more components than dimensions,
        or the rows are not orthonormal.
    """

    kind: str
    basis: np.ndarray
    mean: np.ndarray = field(default_factory=lambda: np.zeros(0))
    seed: int | None = None
    source: str = ""

    def __post_init__(self) -> None:
        if self.kind not in REDUCTION_KINDS:
            raise InputError(
                f"A reduction is one of {', '.join(REDUCTION_KINDS)}, but {self.kind!r} was given."
                + near_matches(str(self.kind), REDUCTION_KINDS)
            )
        basis = np.ascontiguousarray(self.basis, dtype=np.float32)
        if basis.ndim != 2 or not 1 <= len(basis) <= basis.shape[1]:
            raise InputError(
                "The basis of a reduction must have the shape (component, d_model) with at most "
                f"as many components as dimensions, but has the shape {basis.shape}."
            )
        gram = basis.astype(np.float64) @ basis.T
        worst = np.abs(gram - np.eye(len(basis))).max()
        if not worst <= _ORTHONORMAL_TO:
            raise InputError(
                "The rows of the basis of a reduction must be orthonormal, but basis @ basis.T is "
                f"off the identity by {worst:.2g}. Make them so, for example with numpy.linalg.qr."
            )
        mean = np.ascontiguousarray(self.mean, dtype=np.float32)
        mean = mean if mean.size else np.zeros(basis.shape[1], dtype=np.float32)
        if mean.shape != (basis.shape[1],) or not np.isfinite(mean).all():
            raise InputError(
                f"The mean of a reduction must be {basis.shape[1]} finite numbers, one a dimension "
                f"of the basis, but has the shape {mean.shape}"
                + ("." if np.isfinite(mean).all() else " and numbers that are not finite.")
            )
        object.__setattr__(self, "basis", basis)
        object.__setattr__(self, "mean", mean)

    @property
    def width(self) -> int:
        """Number of components."""
        return len(self.basis)

    @property
    def d_model(self) -> int:
        """Number of dimensions of what is reduced."""
        return int(self.basis.shape[1])

    def apply(self, states: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Reduce states.

        Parameters
        ----------
        states : array
            (..., d_model).

        Returns
        -------
        components, discarded : array
            (..., component) and (...), float32: ``basis @ (x - mean)``, and the share of
            ``|x - mean|**2`` that is not in it, from 0 to 1; 0 where a state is the mean.
        """
        centred = np.asarray(states, dtype=np.float64) - self.mean
        components = centred @ self.basis.T.astype(np.float64)
        total = np.square(centred).sum(-1)
        kept = np.square(components).sum(-1)
        share = 1 - np.divide(kept, total, out=np.ones_like(total), where=total > 0)
        return components.astype(np.float32), np.clip(share, 0, 1).astype(np.float32)

    def reconstruct(self, components: np.ndarray) -> np.ndarray:
        """Return the states (..., d_model) nearest to what the components (..., component) say."""
        return np.asarray(components) @ self.basis + self.mean

    def describe(self) -> dict[str, str | int | None]:
        """Return what the attributes of a run say of the reduction, without its numbers."""
        return {"kind": self.kind, "seed": self.seed, "source": self.source}

    def digest(self) -> str:
        """Return a short fingerprint of the basis and the mean."""
        return hashlib.sha256(self.basis.tobytes() + self.mean.tobytes()).hexdigest()[:16]
