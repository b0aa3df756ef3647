"""Principal components of states, with signs that two machines agree on.

The covariance is exact and in float64, and can be gathered block by block. Which states belong in
the fit (the random start does not) is the caller's affair.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from looplens.analysis.algebra.gram import Floats
from looplens.analysis.algebra.inputs import as_array, whole_number
from looplens.errors import InputError

_LARGEST = 1e150  # squares of larger numbers overflow
_SINGLE = (1e-12, 1e15)  # and those of float32 between these do neither that nor vanish
_FEW_DIMENSIONS = 128


@dataclass(frozen=True, kw_only=True, slots=True)
class PCAResult:
    """Principal components.

    Attributes
    ----------
    components : ndarray, shape (component, d_model)
        Orthonormal directions, largest variance first; the loading of largest magnitude is
        positive.
    explained_variance_ratio : ndarray, shape (component,)
        Share of the total variance; zeros when nothing varies.
    mean : ndarray, shape (d_model,)
        The mean of the fitted states.
    projection : ndarray, shape (..., component)
        The states in these components; NaN where a state is not finite.
    """

    components: Floats
    explained_variance_ratio: Floats
    mean: Floats
    projection: Floats


class Covariance:
    """Mean and covariance of states, gathered block by block without loss of digits.

    Parameters
    ----------
    d_model : int
        Dimensions.

    References
    ----------
    Merging of means and scatter matrices: Chan, Golub and LeVeque 1983, Am. Stat. 37, 242.
    """

    def __init__(self, d_model: int) -> None:
        self.count = 0
        self.mean = np.zeros(d_model)
        self._scatter = np.zeros((d_model, d_model))

    def add(self, states: ArrayLike) -> None:
        """Take in states (..., d_model), without those that are not finite or beyond 1e150."""
        block = np.asarray(states)
        block = block.reshape(-1, block.shape[-1])
        # Products in float32 keep 1e-7 of what varies, at a third of the time, and are needed only
        # where the products of many dimensions take long.
        fast = block.dtype == np.float32 and block.shape[-1] > _FEW_DIMENSIONS
        if fast and not _SINGLE[0] < np.abs(block).max(initial=0) < _SINGLE[1]:  # nor where NaN
            fast = False
        if not fast:
            block = block.astype(np.float64, copy=False)
            block = block[(np.abs(block) < _LARGEST).all(-1)]
        if not len(block):
            return
        mean = block.mean(0, dtype=np.float64)
        centred = block - mean.astype(block.dtype)
        rest = mean - mean.astype(block.dtype)  # what rounding the mean has left
        shift, total = mean - self.mean, self.count + len(block)
        self._scatter += centred.T @ centred
        self._scatter -= np.outer(rest, rest) * len(block)
        self._scatter += np.outer(shift, shift) * (self.count * len(block) / total)
        self.mean = self.mean + shift * (len(block) / total)
        self.count = total

    def components(self, n_components: int) -> tuple[Floats, Floats]:
        """Return the leading directions (component, d_model) and their shares of the variance.

        Raises
        ------
        InputError
            If `n_components` is not a whole number of at least 1.
        """
        import scipy.linalg  # takes longer to load than the rest of this package

        d_model = len(self.mean)
        wanted = min(whole_number(n_components, "n_components", least=1), d_model)
        values, vectors = scipy.linalg.eigh(
            self._scatter, subset_by_index=[d_model - wanted, d_model - 1]
        )
        directions = vectors[:, ::-1].T
        total = np.trace(self._scatter)
        shares = np.maximum(values[::-1], 0.0) / total if total > 0 else np.zeros(wanted)
        return _sign_fixed(directions), shares


def pca(states: ArrayLike, n_components: int = 6) -> PCAResult:
    """Fit principal components to states and project them.

    Parameters
    ----------
    states : array_like, shape (..., d_model)
        States; all leading axes together are the sample. To keep the random start out of the fit,
        leave iteration 0 out.
    n_components : int
        How many components; at most d_model come back.

    Returns
    -------
    PCAResult

    Raises
    ------
    InputError
        If no state is finite, the states are not real numbers with an axis that is not empty, or
        `n_components` is not a whole number of at least 1.
    """
    array = as_array(states, ("d_model",))
    wanted = whole_number(n_components, "n_components", least=1)
    rows = array.reshape(-1, array.shape[-1])
    limit = _LARGEST if rows.dtype == np.float64 else np.inf
    rows = rows[(np.abs(rows) < limit).all(-1)]
    if not len(rows):
        raise InputError(f"pca needs at least one finite state; got an array of {array.shape}.")
    if wanted <= len(rows) < array.shape[-1]:
        components, shares, mean = _of_few(rows.astype(np.float64), wanted)
    else:
        covariance = Covariance(array.shape[-1])
        covariance.add(rows)
        components, shares = covariance.components(wanted)
        mean = covariance.mean
    return PCAResult(
        components=components,
        explained_variance_ratio=shares,
        mean=mean,
        projection=project(array, components, mean),
    )


def _of_few(states: Floats, wanted: int) -> tuple[Floats, Floats, Floats]:
    """Components, shares and mean of fewer states (state, d_model) than dimensions.

    From the products of the states with each other, which are few; the covariance of thousands of
    dimensions takes seconds.
    """
    mean = states.mean(0)
    centred = states - mean
    total = float(np.vdot(centred, centred))
    values, vectors = np.linalg.eigh(centred @ centred.T)
    values, vectors = values[::-1][:wanted], vectors[:, ::-1][:, :wanted]
    # QR makes directions of what does not vary orthogonal to those that do.
    directions = np.linalg.qr(centred.T @ vectors)[0].T
    shares = np.maximum(values, 0.0) / total if total > 0 else np.zeros(wanted)
    return _sign_fixed(directions), shares, mean


def _sign_fixed(directions: Floats) -> Floats:
    """Turn directions (component, d_model) so that the largest loading of each is positive."""
    largest = np.abs(directions).argmax(1)
    signs = np.sign(directions[np.arange(len(directions)), largest])
    return directions * np.where(signs == 0, 1.0, signs)[:, None]


def project(states: ArrayLike, components: Floats, mean: Floats) -> Floats:
    """Project states (..., d_model) on components: (..., component), NaN where not finite."""
    array = np.asarray(states, dtype=np.float64)
    finite = np.isfinite(array).all(-1, keepdims=True)
    return np.where(finite, (np.where(finite, array, 0.0) - mean) @ components.T, np.nan)
