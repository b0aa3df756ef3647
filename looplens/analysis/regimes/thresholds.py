"""The numbers that the regime decision turns on, in one place, with what each of them means."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from looplens.analysis.algebra.inputs import real_number, whole_number
from looplens.errors import InputError, near_matches

# Relative step |s_t - s_{t-1}| / |s_t| of a settled trajectory whose motion is rounding only:
# measured on small looped models for float64, float32 and bfloat16 (1.6, 1.6 and 0.6 machine
# epsilons); float16 is taken as one epsilon.
ROUNDING_STEP = {"float64": 3.5e-16, "float32": 1.9e-7, "bfloat16": 4.9e-3, "float16": 9.8e-4}


@dataclass(frozen=True, kw_only=True, slots=True)
class RegimeThresholds:
    """Thresholds of `classify`.

    Attributes
    ----------
    tail, confirm_tail : float
        The two windows, as shares of the record from its end.
    shortest : int
        Records with fewer states are ``unresolved``: too short.
    longest_window : int
        States of a window at the most; of longer records the end is used.
    floor_multiple, largest_floor : float
        A relative spread of up to this many rounding steps of the source dtype is no motion, and
        never more than the second number. A trained model amplifies its rounding: settled tokens
        of small float32 models spread by up to 5e-6 of their norm, 25 rounding steps.
    drift_share, drift_cosine, drift_significance : float
        A drift has at least this share of its variance on a straight line in time, this cosine
        between its two halves, and a later half whose square exceeds what white noise shows by this
        factor.
    smooth_residual : float
        Share of the variance that a cubic may leave of a drift unless the rest is white noise.
    summable_exponent : float
        Steps that shrink like t^-q have a finite sum for q > 1: above this the motion settles. It
        lies between a logarithm (q = 1) and the slowest decay of a smooth map with slope 1 at its
        fixed point (distance t^-1/2, q = 3/2).
    spiral_exponent : float
        The same for the amplitude of a turn that shrinks like t^-q. About a fixed centre it need
        not have a finite sum, but has to fall to about a quarter over the record, in both windows.
    accelerating_exponent : float
        Below this q the drift accelerates, which no regime describes.
    contraction_fit, contraction_fall : float
        Share of the variance of log step norms on a straight line, and by how much (natural
        logarithm) they must fall over the window, for motion that needs no other model.
    end_motion : float
        Motion in the last third of the window, relative to the norm and without white noise, above
        which a contraction, a spiral or a drift that settles is not over yet, hence ``unresolved``.
    same_rate, end_rate : float
        Least ratio, either way, between the rates at which the two windows contract; and least
        ratio of the rate in the second half of the late window to that in the long one.
    periodic_residual : float
        Share that a periodic model may leave unless the rest is white noise or fading. Of white
        noise, a third of this may lie along the directions of the cycle beyond what chance puts
        there.
    fading_residual, fading : float
        Share that a transient may have beside an orbit, if the variance left in the second half of
        the window is under this multiple of that in the first half, and under three times
        `periodic_residual`.
    orbit_residual, decaying_residual : float
        Share that white noise may have beside an orbit (see `orbit_limit`), and beside a decaying
        spiral.
    steady_growth : float
        Growth of an orbit's amplitude, as a power of the iteration number, that passes as steady.
    turns, confirm_turns : float
        Turns that an orbit must complete in each of the two windows.
    fewest_turns : float
        Turns in the long window that do where the states before it are at the same distances, and
        the record holds three.
    turns_of_record : float
        Turns that an orbit must complete in all states that are looked at, where the window holds
        too few to show it.
    white : float
        Largest autocorrelation over lags 1 to 3 that passes as white, however little the evidence;
        see `white_limit`.
    isotropic : float
        Least participation ratio, over that of white noise of full dimension, that passes as noise,
        however little the evidence; see `isotropic_limit`.
    shape_residual, noisy_residual : float
        Share of the variance by which states may miss the line between their neighbours in phase,
        for a cycle of any shape; the second where they miss it by white noise.
    shape_gap : float
        Mean square distance of these neighbours over that of any two states, without noise: a
        cycle may jump, but not at every state.
    settled_ratio : float
        Spread of the window over the distance of the earlier states from its mean, under which
        motion has died down: white motion is then the noise floor of a settled trajectory.
    small_amplitude : float
        Relative amplitude under which motion is annotated as driven or small.
    """

    tail: float = 0.5
    confirm_tail: float = 0.3
    shortest: int = 16
    longest_window: int = 128
    floor_multiple: float = 50.0
    largest_floor: float = 0.01
    drift_share: float = 0.15
    drift_cosine: float = 0.45
    drift_significance: float = 4.0
    smooth_residual: float = 0.02
    summable_exponent: float = 1.25
    spiral_exponent: float = 1.0
    accelerating_exponent: float = -1.5
    contraction_fit: float = 0.8
    contraction_fall: float = 1.5
    end_motion: float = 0.01
    same_rate: float = 0.8
    end_rate: float = 0.5
    periodic_residual: float = 0.003
    fading_residual: float = 0.1
    fading: float = 0.3
    orbit_residual: float = 0.5
    decaying_residual: float = 0.7
    steady_growth: float = 0.25
    turns: float = 2.0
    confirm_turns: float = 1.2
    fewest_turns: float = 1.5
    turns_of_record: float = 3.0
    white: float = 0.35
    isotropic: float = 0.75
    shape_residual: float = 0.004
    shape_gap: float = 0.28
    noisy_residual: float = 0.3
    settled_ratio: float = 0.4
    small_amplitude: float = 0.1

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if field.name in ("shortest", "longest_window"):
                whole_number(getattr(self, field.name), field.name, least=16)
            else:
                real_number(getattr(self, field.name), field.name)
        if not 0 < self.confirm_tail <= self.tail <= 1:
            raise InputError(
                "The windows must satisfy 0 < confirm_tail <= tail <= 1; got "
                f"tail={self.tail}, confirm_tail={self.confirm_tail}."
            )

    def white_limit(self, points: int, d_model: int) -> float:
        """Largest autocorrelation of white noise of so many samples and dimensions.

        Its standard deviation is 1 / sqrt(points * d_model); four of them, and a little for what
        fitting does to noise. Of so few numbers that this exceeds a half, nothing passes: they do
        not tell noise from a walk.
        """
        limit = 0.05 + 4 / (points * d_model) ** 0.5
        return min(self.white, limit) if limit < 0.5 else 0.0

    def isotropic_limit(self, points: int, d_model: int) -> float:
        """Least participation ratio, over its mean, of white noise of so many samples."""
        return max(self.isotropic, 0.95 - 3.4 / (points * d_model) ** 0.5)

    def orbit_limit(self, points: int) -> float:
        """Largest share of noise beside an orbit: few states prove little about what they leave."""
        return self.orbit_residual * min(1.0, (points - 4) / 48)

    def slider_limit(self, states: float) -> float:
        """Exponent under which a drift of so many states does not settle.

        Short records show little of how it slows: of 16 states, a decay whose steps have not even
        halved.
        """
        return self.summable_exponent - min((20 / states) ** 1.35, 1.0)

    @classmethod
    def from_keywords(cls, **values: float) -> RegimeThresholds:
        """Build thresholds from keywords, naming the near matches of an unknown one."""
        known = [field.name for field in dataclasses.fields(cls)]
        for name in values:
            if name not in known:
                raise InputError(
                    f"Unknown threshold {name!r} of classify; known are {', '.join(known)}."
                    f"{near_matches(name, known)}"
                )
        return cls(**values)  # type: ignore[arg-type]


def resting_spread(step: float, limits: RegimeThresholds | None = None) -> float:
    """Motion over the norm that may still be rounding, where one rounding step is `step`."""
    limits = limits or RegimeThresholds()
    return min(step * limits.floor_multiple, limits.largest_floor)


def rounding_step(source_dtype: str) -> float:
    """Relative step of a settled trajectory computed in this dtype.

    Raises
    ------
    InputError
        For a dtype without a known rounding step.
    """
    name = str(source_dtype).removeprefix("torch.")
    if name not in ROUNDING_STEP:
        raise InputError(
            f"Unknown source dtype {source_dtype!r}; expected one of {', '.join(ROUNDING_STEP)}."
        )
    return ROUNDING_STEP[name]
