"""What is said of a series of growth: its mean, how sure that is, and the regime that it means."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

CUT = 0.05
SETTLE, MARGINAL, DRIFT, UNKNOWN = "settle", "marginal", "drift", "unknown"
REGIMES = (SETTLE, MARGINAL, DRIFT, UNKNOWN)
_BATCHES = (4, 8)  # at least, of two steps each, and at most: long ones hold slow motion
_ZERO = 1e-6  # what single precision makes of an exponent of 0


def error_of_mean(growth: Float[np.ndarray, "*rows step k"]) -> Float[np.ndarray, "*rows k"]:
    r"""Return the standard error of the mean over steps that depend on each other.

    The series is cut into b = 4 to 8 batches and the error is :math:`s / \sqrt b`, with s the
    standard deviation of the means of the batches (the method of batch means). What is slower than
    a batch is not in it, and a cycle that is cut makes it too large. NaN for fewer than 8 steps.
    """
    steps = growth.shape[-2]
    if steps < 2 * _BATCHES[0]:
        return np.full((*growth.shape[:-2], growth.shape[-1]), np.nan)
    batches = int(np.clip(np.sqrt(steps), *_BATCHES))
    length = steps // batches
    kept = growth[..., steps - batches * length :, :]  # what does not fit is left out at the start
    means = kept.reshape(*growth.shape[:-2], batches, length, growth.shape[-1]).mean(-2)
    with np.errstate(invalid="ignore"):  # of directions that are lost altogether
        return means.std(-2, ddof=1) / np.sqrt(batches)


def kaplan_yorke(
    exponents: ArrayLike, errors: ArrayLike = np.nan, size: float = np.inf
) -> np.ndarray:
    r"""Return the Kaplan-Yorke dimension, :math:`j + \sum_{i \le j} \lambda_i / |\lambda_{j+1}|`.

    Parameters
    ----------
    exponents : array_like, shape (..., k)
        Largest first.
    errors : array_like, shape (..., k), optional
        Their standard errors. An exponent within two of them of 0 counts as 0: a closed curve has
        dimension 1, whether its exponent comes out as 0.0003 or -0.0003.
    size : int, optional
        Numbers in a state: there are no more exponents than these.

    Returns
    -------
    ndarray, shape (...)
        j is the largest number of exponents whose sum is not negative: 0 where the first one is
        negative, `size` where that is all of them. NaN where more are needed than are given, or one
        that is needed is not known.

    References
    ----------
    Kaplan and Yorke, Lecture Notes in Mathematics 730 (1979).
    """
    values = np.asarray(exponents, dtype=np.float64)
    unsure = np.fmax(2 * np.asarray(errors, dtype=np.float64), _ZERO)  # fmax passes over NaN
    values = np.where(np.abs(values) <= unsure, 0.0, values)
    sums = np.cumsum(values, axis=-1)
    known = ~np.isnan(values[..., 0])
    ends = ~(sums >= 0)  # the first one that is not: where it is NaN, so is what comes out
    j = ends.argmax(-1)
    before = np.take_along_axis(sums, np.maximum(j - 1, 0)[..., None], -1)[..., 0]
    following = np.take_along_axis(values, j[..., None], -1)[..., 0]
    with np.errstate(divide="ignore", invalid="ignore"):
        found = np.where(j == 0, 0.0, j + before / np.abs(following))
    beyond = size if values.shape[-1] == size else np.nan
    return np.where(known, np.where(ends.any(-1), found, beyond), np.nan)


def regime_of(
    exponent: Float[np.ndarray, " token"], error: Float[np.ndarray, " token"], cut: float = CUT
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Name what leading exponents mean: neighbours meet, stay as they are, or part.

    Parameters
    ----------
    exponent, error : ndarray, shape (token,)
        Leading exponents and the standard errors of these means.
    cut : float
        ``settle`` below -cut, ``drift`` above cut, ``marginal`` between.

    Returns
    -------
    regime : ndarray of str
        ``unknown`` where the exponent is not known.
    margin : ndarray
        Distance of the exponent to the nearest cut.
    clear : ndarray of bool
        Whether the margin is more than two errors. False where the error is not known.

    References
    ----------
    Cuts: Viakhirev et al., arXiv:2608.18222 (as summarised in notes, paper text not read).
    """
    label = np.full(exponent.shape, MARGINAL, dtype=object)
    label[exponent < -cut], label[exponent > cut] = SETTLE, DRIFT
    label[np.isnan(exponent)] = UNKNOWN
    margin = np.abs(np.abs(exponent) - cut)
    with np.errstate(invalid="ignore"):
        # An infinite exponent has no error, and no doubt either.
        clear = (margin > 2 * error) | np.isinf(exponent)
    return label, margin, clear
