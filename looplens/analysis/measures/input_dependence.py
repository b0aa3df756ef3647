"""Whether limits tell inputs apart, or only the states that the loop was started from.

A one-way analysis of variance of the limits at each position: between inputs against within them,
over restarts. Says nothing about whether what is told apart is of any use.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from looplens.analysis.algebra.gram import TINY, Floats
from looplens.analysis.algebra.inputs import as_array
from looplens.errors import InputError


@dataclass(frozen=True, kw_only=True, slots=True)
class InputDependence:
    """What `input_dependence` measures; p are the positions that occur, in rising order.

    Variances are traces, in units of the mean squared norm of the limits of the position.

    Attributes
    ----------
    position : ndarray of int, shape (p,)
        The positions.
    inputs : ndarray of int, shape (p,)
        How many inputs have a limit there.
    between, within : ndarray, shape (p,)
        Variance between inputs, less what the scatter of restarts adds to it (not below 0); and
        mean variance over the restarts of an input.
    score : ndarray, shape (p,)
        ``between / within``; infinite where the restarts agree exactly. NaN with one input.
    share : ndarray, shape (p,)
        ``between / (between + within)``: 1 where the input alone decides, 0 where it does not
        matter.
    run_score, run_share : float
        The same of the variances pooled over positions by their degrees of freedom, each in units
        of its position, so that one massive token does not decide.
    """

    position: NDArray[np.int64]
    inputs: NDArray[np.int64]
    between: Floats
    within: Floats
    score: Floats
    share: Floats
    run_score: float
    run_share: float


def input_dependence(limits: ArrayLike, position: ArrayLike | None = None) -> InputDependence:
    r"""Compare the scatter of limits between inputs with that between restarts.

    With :math:`z_{ri}` the limit of restart r of input i, at one position, R restarts, N inputs,
    :math:`m_i` the mean over restarts and m that over inputs:

    .. math::
        W = \frac{1}{N} \sum_i \frac{1}{R-1} \sum_r |z_{ri} - m_i|^2, \qquad
        B = \frac{1}{N-1} \sum_i |m_i - m|^2 - \frac{W}{R}.

    Parameters
    ----------
    limits : array_like, shape (restart, input, d_model)
        Limits; inputs that are not finite in some restart are left out.
    position : array_like of int, shape (input,), optional
        Position of each in its prompt; by default all are at one. Limits at different positions are
        never compared.

    Returns
    -------
    InputDependence
        The variances and their ratios.

    Raises
    ------
    InputError
        For fewer than two restarts, or positions that do not fit.

    References
    ----------
    Input dependence of fixed points as one of three axes: Labovich 2026, arXiv:2604.15259
    (abstract and code; the paper's text was not read). The ratio of variances is ours.
    """
    array = as_array(limits, ("input", "d_model"), first="restart", name="limits")
    if array.ndim != 3 or len(array) < 2:
        raise InputError(
            "input_dependence needs limits (restart, input, d_model) with at least two restarts; "
            f"got an array of shape {array.shape}."
        )
    places = np.zeros(array.shape[1], dtype=np.int64) if position is None else np.asarray(position)
    if places.shape != array.shape[1:2] or places.dtype.kind not in "iu":
        raise InputError(
            f"position must be {array.shape[1]} whole numbers, one an input; got shape "
            f"{places.shape} of {places.dtype}."
        )
    wide = np.where(np.isfinite(array).all((0, 2))[:, None], array, np.nan).astype(np.float64)
    # All results are ratios; squares of huge limits would overflow.
    _, exponent = np.frexp(np.nanmax(np.abs(wide), initial=0.0))
    wide = np.ldexp(wide, -np.clip(exponent, -1000, 1000))
    mean = wide.mean(0)
    away = wide - mean
    scatter = np.vecdot(away, away).sum(0) / (len(array) - 1)
    return input_dependence_of(mean, scatter, places, len(array))


def input_dependence_of(
    mean: NDArray[np.floating], scatter: Floats, position: NDArray[np.int64], restarts: int
) -> InputDependence:
    """Compare variances from limits averaged over restarts.

    Parameters
    ----------
    mean : ndarray, shape (input, d_model)
        Mean limit of each input.
    scatter : ndarray, shape (input,)
        Variance over its restarts, summed over dimensions.
    position : ndarray of int, shape (input,)
        Positions.
    restarts : int
        How many restarts the means are of.
    """
    finite = np.isfinite(mean).all(1) & np.isfinite(scatter)
    places = np.unique(position)
    found = np.full((4, len(places)), np.nan)
    inputs = np.zeros(len(places), dtype=np.int64)
    for row, place in enumerate(places):
        here = np.flatnonzero(finite & (position == place))
        inputs[row] = len(here)
        if len(here) < 2:
            continue
        some = mean[here].astype(np.float64)
        size = np.vecdot(some, some).mean() + scatter[here].mean() * (1 - 1 / restarts)
        away = some - some.mean(0)
        within = scatter[here].mean()
        raw = np.vecdot(away, away).sum() / (len(here) - 1)
        found[:, row] = raw - within / restarts, within, max(size, TINY), len(here)
    signed, within, size, count = found
    signed, within = signed / size, within / size
    known = np.isfinite(signed)
    # Pooled before it is cut off at 0: chance alone would add up otherwise.
    total = (signed * (count - 1))[known].sum() / max((count - 1)[known].sum(), 1)
    total = max(total, 0.0)
    inside = (within * count)[known].sum() / max(count[known].sum(), 1)
    between = np.maximum(signed, 0.0)
    score, share = _ratios(between, within)
    pooled = (total, inside) if known.any() else (np.nan, np.nan)
    run_score, run_share = _ratios(*map(np.asarray, pooled))
    return InputDependence(
        position=places,
        inputs=inputs,
        between=between,
        within=within,
        score=score,
        share=share,
        run_score=float(run_score),
        run_share=float(run_share),
    )


def _ratios(between: Floats, within: Floats) -> tuple[Floats, Floats]:
    """Return between / within, and between of the sum; NaN where both are zero."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return between / within, between / (between + within)
