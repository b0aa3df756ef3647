"""What `classify` returns: the verdicts, and the numbers that go with them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from looplens.analysis.algebra.gram import Floats
from looplens.analysis.regimes.thresholds import RegimeThresholds

NON_FINITE = "non-finite states"  # the reason of trajectories that are not judged for that
SCORES = (
    "settled_ratio",
    "linear_share",
    "drift_cosine",
    "drift_exponent",
    "drift_exponent_error",
    "smooth_residual",
    "step_exponent",
    "periodic_residual",
    "growth_exponent",
)
# Numbers of each trajectory beside the scores, in the order of the attributes.
NUMBERS = (
    "period",
    "amplitude",
    "rate",
    "integer_period",
    "turns",
    "speed",
    "straightness",
    "radial_share",
    "floor",
    "signal_end",
    "p_value",
)
WORDS = ("regime", "unit_regime", "kind", "reason", "floor_from")


@dataclass(frozen=True, kw_only=True, slots=True)
class Regimes:
    """Verdicts of `classify`; arrays of the leading shape of the states.

    Attributes
    ----------
    regime : ndarray of str
        ``fixed_point``, ``orbit``, ``slider`` or ``unresolved``.
    unit_regime : ndarray of str
        The same for the states divided by their norms. A norm that grows for ever over a direction
        that settles is a slider here and a fixed point there.
    kind : ndarray of str
        What sort of it: see `looplens.analysis.KINDS_OF_REGIMES`, or the page on regimes.
    reason : ndarray of str
        Why, with the numbers that decided.
    period : ndarray of float64
        Iterations in a turn of an orbit; NaN otherwise. A cycle that folding on an integer period
        describes as well as a harmonic does, and whose turn is within 3 % of an integer, is given
        that integer: a turn of 6.1 iterations can be reported as 6. Otherwise, when most of the
        motion has a single frequency, this is the turn of that rotation, also where states recur
        only after several.
    amplitude : ndarray of float64
        Root-mean-square distance from the mean of the long window over the root-mean-square norm.
    rate : ndarray of float64
        Factor by which the distance to a fixed point shrinks in an iteration: of the fall of the
        steps while it lasts, of the amplitude of a spiral, and at the end where the steps shrink
        like a power of t. NaN otherwise, and where it was over within three steps.
    integer_period : ndarray of float64
        The period where states recur after that whole number of iterations; NaN otherwise.
    turns : ndarray of float64
        Turns of an orbit in the long window; NaN otherwise.
    speed : ndarray of float64
        Distance between the means of the first and the last third of the long window, over the
        iterations between them and the root-mean-square norm: 1 / iteration.
    straightness : ndarray of float64
        Distance between the ends of the long window over the length of the path: 1 is a line.
    radial_share : ndarray of float64
        Share of the square of the way between the ends of the long window that lies along the
        last state: 1 where only the norm changes.
    floor : ndarray of float64
        Relative step up to which motion is noise: 1 / iteration.
    floor_from : ndarray of str
        ``record`` where the floor is the median step of the last quarter of the record itself,
        which is done for fixed points whose steps have stopped shrinking; else ``dtype``.
    signal_end : ndarray of float64
        Number of the last state, from 0, that was reached by a step of more than three floors.
    p_value : ndarray of float64
        Share of surrogates that recur as well (orbits and unresolved motion) or are as straight
        (sliders), see the page on surrogates; NaN for fixed points, where states are not finite,
        and without surrogates. Of n trajectories without order, n / 20 have one of at most 0.05.
    scores : dict of str to ndarray of float64
        Measurements in the long window: ``settled_ratio`` (spread over the distance of earlier
        states), ``linear_share``, ``drift_cosine``, ``drift_exponent`` (steps shrink like t^-q) and
        its error, ``smooth_residual`` (share that a cubic leaves), ``step_exponent``,
        ``periodic_residual`` (share that the best periodic model leaves), ``growth_exponent``
        (amplitude grows like t^g). NaN where motion is rounding only, or states are not finite; the
        last two also where a drift or a contraction was found without asking for a periodic model.
    thresholds : RegimeThresholds
        What was compared against.
    source_dtype : str
        The dtype whose rounding counts as no motion.
    """

    regime: NDArray[np.str_]
    unit_regime: NDArray[np.str_]
    kind: NDArray[np.str_]
    reason: NDArray[np.str_]
    period: Floats
    amplitude: Floats
    rate: Floats
    integer_period: Floats
    turns: Floats
    speed: Floats
    straightness: Floats
    radial_share: Floats
    floor: Floats
    floor_from: NDArray[np.str_]
    signal_end: Floats
    p_value: Floats
    scores: dict[str, Floats]
    thresholds: RegimeThresholds
    source_dtype: str

    def reshaped(self, leading: tuple[int, ...]) -> Regimes:
        """Return the same with other leading axes."""
        return dataclasses.replace(
            self,
            scores={name: score.reshape(leading) for name, score in self.scores.items()},
            **{name: getattr(self, name).reshape(leading) for name in WORDS + NUMBERS},
        )
