"""One sentence for each verdict, with the numbers that decided it.

Formats text only: the verdicts come in as they are.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from looplens.analysis.algebra.gram import Floats
from looplens.analysis.regimes.thresholds import RegimeThresholds
from looplens.analysis.regimes.verdict import (
    ORBIT,
    REGIME_OF,
    REGIMES,
    UNRESOLVED,
    Codes,
    Finding,
    Seen,
    rates_differ,
)
from looplens.analysis.regimes.window import Window


def describe_converged(amplitude: Floats, floor: float) -> list[str]:
    """Reasons of trajectories that move by rounding only."""
    return [
        f"converged: at the end the motion is under the rounding floor (relative spread "
        f"{value:.1e} over the whole window, floor {floor:.1e})"
        for value in amplitude
    ]


def describe(
    regime: Codes,
    long: Window,
    late: Window,
    seen: Seen,
    confirmed: Seen,
    by_late: NDArray[np.bool_],
    limits: RegimeThresholds,
) -> list[str]:
    """Reasons of trajectories that move.

    Parameters
    ----------
    regime : ndarray of int
        The joint verdicts, as indices into `REGIMES`.
    long, late : Window
        Measurements of the two windows.
    seen, confirmed : Seen
        Findings of the two windows.
    by_late : ndarray of bool
        Where the late window decided.
    limits : RegimeThresholds
        For the shares of the windows and the amplitude that counts as small.
    """
    reasons = []
    unresolved, orbit = REGIMES.index(UNRESOLVED), REGIMES.index(ORBIT)
    differ = rates_differ(seen, confirmed, limits)
    for row in range(len(regime)):
        first, second = Finding(seen.finding[row]), Finding(confirmed.finding[row])
        text = _sentence(second, late, confirmed, row) if by_late[row] else ""
        text = text or _sentence(first, long, seen, row)
        if regime[row] == unresolved and REGIME_OF[first] != REGIME_OF[second]:
            other = _sentence(second, late, confirmed, row)
            text = (
                f"windows disagree: last {limits.tail:.0%} {text}; "
                f"last {limits.confirm_tail:.0%} {other}"
            )
        elif regime[row] == unresolved and differ[row]:
            rates = (seen.contraction, confirmed.contraction, confirmed.end_contraction)
            whole, late_rate, end = (f"{np.exp(-rate[row]):.3g}" for rate in rates)
            text = (
                f"a contraction without a steady rate: each step is {whole} of the one before in "
                f"the last {limits.tail:.0%}, {late_rate} in the last {limits.confirm_tail:.0%}, "
                f"{end} at the end"
            )
        elif regime[row] == unresolved and REGIME_OF[first] != unresolved:
            text = (
                f"windows disagree on the period: {seen.period[row]:.3g} and "
                f"{confirmed.period[row]:.3g}"
            )
        amplitude = long.amplitude[row]
        if regime[row] == orbit and amplitude < limits.small_amplitude:
            text += f"; driven / small amplitude ({amplitude:.2g} of the norm)"
        reasons.append(text)
    return reasons


def _sentence(finding: Finding, window: Window, seen: Seen, row: int) -> str:
    exponent = seen.exponent[row]
    period, left = seen.period[row], seen.periodic_residual[row]
    growth = seen.growth_exponent[row]
    match finding:
        case Finding.CONVERGED:
            return "converged: at the end the motion is under the rounding floor"
        case Finding.CONTRACTING:
            rate = np.exp(-window.step_exponent[row] / window.centre)
            return f"contracting: each step is {rate:.3g} of the one before"
        case Finding.DRIFT_SETTLES:
            return f"drift that settles: steps shrink like t^-{exponent:.2f}, a finite sum"
        case Finding.DRIFT_UNCERTAIN:
            error = window.drift_exponent_error[row]
            return (
                f"drift: noise hides whether it settles (steps like t^-q, q = {exponent:.2f} "
                f"+- {error:.2f})"
            )
        case Finding.DRIFT_ACCELERATES:
            return f"drift that accelerates: steps grow like t^{-exponent:.2f}"
        case Finding.DRIFT:
            straight = window.linear_share[row]
            return (
                f"drift: {straight:.0%} of the variance on a line, steps like t^{-exponent:.2f} "
                "do not settle"
            )
        case Finding.ORBIT:
            return f"periodic: period {period:.4g}, leaves {left:.1%} of the variance"
        case Finding.SPIRAL:
            return f"decaying spiral: period {period:.4g}, amplitude like t^{growth:.2f}"
        case Finding.OSCILLATION_CHANGES:
            return (
                f"oscillation of period {period:.4g} whose amplitude still changes "
                f"(like t^{growth:.2f})"
            )
        case Finding.NOISE_FLOOR:
            ratio = window.settled_ratio[row]
            return f"settled into white noise, {ratio:.2g} of the distance it came from"
        case Finding.STILL_MOVING:
            return (
                f"still moving: steps shrink, but the end still spreads by "
                f"{seen.end_motion[row]:.2g} of the norm"
            )
        case Finding.STRUCTURELESS:
            return "no structure: white noise, or hops without order"
    smooth = window.smooth_residual[row]
    return f"irregular: a smooth drift leaves {smooth:.0%} of the variance, a cycle {left:.0%}"
