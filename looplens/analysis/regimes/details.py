"""Numbers that go with a verdict: how fast, how straight, how far above the noise, and until when.

Taken from the same products as the verdict. Nothing is decided here but where noise begins.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from looplens.analysis.algebra.gram import TINY, Floats
from looplens.analysis.algebra.products import Moments
from looplens.analysis.regimes.tail import Tail

SIGNAL = 3.0  # a step of more floors than this is signal
_FEWEST_STEPS = 4  # for a rate


def ways_of(tail: Tail, along: Floats) -> dict[str, Floats]:
    """Measure the way through each window.

    Parameters
    ----------
    tail : Tail
        Windows of b trajectories.
    along : ndarray, shape (b, n)
        Their states less the last one, along the direction of the last one.

    Returns
    -------
    dict
        ``speed``, ``straightness`` and ``radial_share``, each of shape (b,); see `Regimes`.
    """
    gram = tail.gram
    n = gram.shape[1]
    third = n // 3
    first, last = gram[:, :, :third].mean(2), gram[:, :, -third:].mean(2)
    between = last - first
    way2 = np.maximum(between[:, -third:].mean(1) - between[:, :third].mean(1), 0.0)
    scale = np.maximum(np.sqrt(tail.square.mean(1)), TINY)
    ends2 = np.maximum(gram[:, 0, 0] + gram[:, -1, -1] - 2 * gram[:, 0, -1], 0.0)
    path = np.sqrt(tail.step2).sum(1)
    radial = (along[:, -1] - along[:, 0]) ** 2 / np.maximum(ends2, TINY)
    return {
        "speed": np.sqrt(way2) / (n - third) / scale,
        "straightness": np.sqrt(ends2) / np.maximum(path, TINY),
        "radial_share": np.clip(radial, 0.0, 1.0),
    }


def floors_of(
    part: Moments, settled: NDArray[np.bool_], rounding: float
) -> tuple[Floats, NDArray[np.bool_], Floats]:
    """Find the noise floor of each record, and where its signal ends.

    Parameters
    ----------
    part : Moments
        Products of b trajectories.
    settled : ndarray of bool, shape (b,)
        Fixed points that have stopped coming nearer: only there is motion at the end noise.
    rounding : float
        Relative step of rounding.

    Returns
    -------
    floor : ndarray, shape (b,)
        Relative step up to which motion is noise.
    of_record : ndarray of bool
        Whether it is the median of the last quarter of the steps rather than rounding.
    signal_end : ndarray
        Number of the last state that was reached by a larger step than `SIGNAL` floors; 0 without
        any.

    Notes
    -----
    The rule is that of the self-audit named in `classify`: a record has a floor of its own only
    where its largest step is more than three times the median of the last quarter.
    """
    steps = np.sqrt(part.step2) / np.maximum(np.sqrt(part.norm2[:, -1:]), TINY)
    quarter = max(steps.shape[1] // 4, 4)
    median = np.median(steps[:, -quarter:], axis=1)
    of_record = settled & (steps.max(1) > SIGNAL * median) & (median > rounding)
    floor = np.where(of_record, median, rounding)
    signal = steps > SIGNAL * floor[:, None]
    count = steps.shape[1]
    end = np.where(signal.any(1), count - signal[:, ::-1].argmax(1), 0)
    return floor, of_record, end.astype(np.float64)


def rates_of(part: Moments, signal_end: Floats) -> Floats:
    """Factor from one step to the next while the signal lasts, shape (b,); NaN of too few steps.

    A straight line through the logarithms of the steps, without the first quarter of them where
    there are enough: what decays faster is over by then.
    """
    logs = np.log(np.maximum(part.step2, TINY)) / 2
    time = np.arange(logs.shape[1], dtype=np.float64)
    first = np.floor(np.clip(np.minimum(0.25 * signal_end, signal_end - 8), 0, None))
    use = (time >= first[:, None]) & (time < signal_end[:, None])
    count = use.sum(1)
    safe = np.maximum(count, 1)
    middle = (use * time).sum(1) / safe
    apart = use * (time - middle[:, None])
    slope = (apart * logs).sum(1) / np.maximum((apart**2).sum(1), TINY)
    return np.where(count >= _FEWEST_STEPS, np.exp(np.minimum(slope, 50.0)), np.nan)
