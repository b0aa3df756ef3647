"""Whether the restarts of a token are judged alike: the same regime, orbits of the same period.

Takes the verdicts as they are given; `classify` stores them side by side, so that both are of the
same thresholds.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from looplens.analysis.analyzers._analyzer import labelled, over_known, pairs_that_agree
from looplens.analysis.regimes.classifying import NON_FINITE
from looplens.analysis.running.coverage import NOT_RECORDED, UNREADABLE

if TYPE_CHECKING:
    from looplens.store import StoredRun

UNKNOWN = (NON_FINITE, NOT_RECORDED, UNREADABLE)  # reasons of trajectories that were not judged
SAME_PERIOD = 0.02  # relative difference of two periods that count as equal


def restart_agreement(
    run: StoredRun, regime: np.ndarray, reason: np.ndarray, period: np.ndarray
) -> dict[str, xr.Variable]:
    """Compare the verdicts of all pairs of restarts, by token and by prompt.

    Parameters
    ----------
    run : StoredRun
        The run.
    regime, reason, period : ndarray, shape (restart, token)
        What `classify` found.

    Returns
    -------
    dict
        ``regime_agreement`` and ``period_agreement`` (token), NaN where fewer than two restarts are
        known, or are orbits; ``prompt_regime_agreement`` (prompt). Nothing with a single restart.
    """
    if run.restarts < 2:
        return {}
    regimes = pairs_that_agree(regime, ~np.isin(reason, UNKNOWN))
    return {
        "regime_agreement": labelled(
            ("token",), regimes, "share of pairs of restarts with the same regime"
        ),
        "period_agreement": labelled(
            ("token",),
            _same_period(regime == "orbit", period),
            "share of pairs of restarts with the same period, of those that are both orbits",
            threshold=SAME_PERIOD,
        ),
        "prompt_regime_agreement": labelled(
            ("prompt",), by_prompt(run, np.mean, regimes), "mean regime_agreement of a prompt"
        ),
    }


def by_prompt(
    run: StoredRun, statistic: Callable[[np.ndarray], Any], values: np.ndarray
) -> np.ndarray:
    """Return a statistic of the known tokens of every prompt; values (token,)."""
    return np.array(
        [over_known(statistic, values[run.token_range(prompt)]) for prompt in range(run.n_prompts)]
    )


def _same_period(orbit: np.ndarray, period: np.ndarray) -> np.ndarray:
    """Share of pairs of orbits with equal periods (token,)."""
    logs = np.log(np.where(orbit, period, 1.0))
    same, count = np.zeros(orbit.shape[1]), np.zeros(orbit.shape[1])
    for one, other in combinations(range(len(orbit)), 2):
        both = orbit[one] & orbit[other]
        same += both & (np.abs(logs[one] - logs[other]) < SAME_PERIOD)
        count += both
    return np.divide(same, count, out=np.full(count.shape, np.nan), where=count > 0)
