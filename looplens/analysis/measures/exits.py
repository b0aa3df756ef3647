"""When each exit rule would leave the loop, from what was recorded, and what that would have cost.

Every position is judged on its own, as if all others went on: a rule is simulated on one recording
over many thresholds, and no model runs. The rules are those of :mod:`looplens.thinking`, under the
same names and with the same defaults, and agree with them; here they take arrays. The one
difference is that nothing leaves by ``kl`` after iteration 1: see
:func:`~looplens.analysis.measures.exit_signals.readout_signals`.

References
----------
.. [1] Geiping et al., arXiv:2502.05171, section 6.1 and public code (kl, latent-diff, cosine,
   entropy-diff, argmax-stability).
.. [2] Zhu et al., arXiv:2510.25741, section 3.2 (gate).
.. [3] Pappone, Crisostomi, Rodola, arXiv:2509.23314 (acceleration on two steps in a row; as
   summarised elsewhere, paper text not read).
.. [4] Koishekenov et al., arXiv:2510.07358 (cumulative halting; likewise not read).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from looplens.analysis.algebra.gram import Floats
from looplens.analysis.algebra.inputs import as_array, real_number
from looplens.errors import InputError, near_matches

Reads = Literal["depth", "state", "readout", "gate"]
ROUND_OFF = 1e-6  # weights come in float32: 0.33 three times must reach 0.99
_MOST_DEPTHS = 64
_HALF_DECADES = tuple(float(f"{10.0 ** (-k / 2):.3g}") for k in range(13))


@dataclass(frozen=True, kw_only=True, slots=True)
class ExitRule:
    """A rule of the bench.

    Attributes
    ----------
    name, title : str
        As in :mod:`looplens.thinking`, and in words.
    reads : {"depth", "state", "readout", "gate"}
        What it looks at after every iteration, which is what it costs.
    threshold : float
        The default: that of the public code where there is one. Fixed depth has none.
    grid : tuple of float
        The thresholds of the bench.
    """

    name: str
    title: str
    reads: Reads
    threshold: float
    grid: tuple[float, ...]


def _below(name: str, title: str, reads: Reads, threshold: float, *more: float) -> ExitRule:
    grid = sorted({*_HALF_DECADES, threshold, *more}, reverse=True)
    return ExitRule(name=name, title=title, reads=reads, threshold=threshold, grid=tuple(grid))


_Q = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)
EXIT_RULES: dict[str, ExitRule] = {
    rule.name: rule
    for rule in (
        ExitRule(name="depth", title="fixed depth", reads="depth", threshold=0, grid=()),
        _below("latent-diff", "relative step", "state", 0.03, 0.2, 0.5),
        _below("cosine", "1 − cosine of states", "state", 1e-3, 1e-7, 1e-8),
        _below("acceleration", "acceleration, two hits", "state", 0.01),
        _below("kl", "KL to the prediction before", "readout", 1e-3, 5e-4),
        _below("entropy-diff", "change of entropy", "readout", 1e-3),
        ExitRule(
            name="argmax-stability",
            title="same best token",
            reads="readout",
            threshold=5,
            grid=(1, 2, 3, 4, 5, 6, 8, 12, 16),
        ),
        ExitRule(name="gate", title="exit gate, CDF", reads="gate", threshold=1.0, grid=_Q),
        ExitRule(
            name="act",
            title="cumulative halting",
            reads="gate",
            threshold=0.01,
            grid=(0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.05, 0.01),
        ),
    )
}


def exit_iteration(rule: str, signal: ArrayLike, threshold: float) -> Floats:
    """Return the iteration after which each trajectory leaves.

    Parameters
    ----------
    rule : str
        One of ``EXIT_RULES``.
    signal : array_like, shape (..., iteration 1..T)
        What the rule looks at; for ``depth`` anything of that shape.
    threshold : float
        The depth for ``depth``; the number of repeats for ``argmax-stability``; the cumulative
        probability q for ``gate``; what may be missing to 1 for ``act``; for all others the value
        to fall below.

    Returns
    -------
    ndarray of float64, shape (...)
        From 1 to T; T for those that never leave.

    Raises
    ------
    InputError
        For an unknown rule, a threshold that it cannot have, or a signal without iterations.
    """
    values = as_array(signal, ("iteration",), name="signal").astype(np.float64, copy=False)
    check_threshold(rule, threshold)
    if rule == "depth":
        return np.full(values.shape[:-1], float(min(threshold, values.shape[-1])))
    fired = fires(rule, values, threshold)
    return np.where(fired.any(-1), fired.argmax(-1), values.shape[-1] - 1) + 1.0


def fires(rule: str, values: Floats, threshold: float) -> NDArray[np.bool_]:
    """Tell which values mean that a trajectory leaves; NaN never does."""
    if rule == "argmax-stability":
        return values >= threshold
    if rule == "gate":
        # 1 - S cannot be compared with 1: S below 1e-16 would read as an exit.
        return np.isneginf(values) if threshold == 1 else -np.expm1(values) >= threshold
    if rule == "act":
        return values >= 1 - threshold - ROUND_OFF
    return values < threshold


def check_threshold(rule: str, threshold: float) -> None:
    """Raise InputError for an unknown rule, or a threshold that it cannot have."""
    if rule not in EXIT_RULES:
        raise InputError(
            f"Unknown exit rule {rule!r}; there are: {', '.join(EXIT_RULES)}."
            f"{near_matches(rule, EXIT_RULES)}"
        )
    low, high, what = {
        "depth": (1, np.inf, "a depth of at least 1"),
        "argmax-stability": (1, np.inf, "a number of repeats of at least 1"),
        "gate": (0, 1, "a probability between 0 and 1"),
        "act": (0, 1 - 1e-9, "at least 0 and below 1"),
    }.get(rule, (np.nextafter(0, 1), np.inf, "a positive number"))
    if not low <= real_number(threshold, f"The threshold of {rule!r}") <= high:
        raise InputError(f"The threshold of {rule!r} must be {what}; got {threshold!r}.")
    if rule in ("depth", "argmax-stability") and threshold != int(threshold):
        raise InputError(f"The threshold of {rule!r} must be a whole number; got {threshold!r}.")


def policies(
    iterations: int,
    rules: Sequence[str],
    thresholds: Mapping[str, Sequence[float]] | None = None,
) -> list[tuple[str, float]]:
    """List the pairs of rule and threshold to try.

    Parameters
    ----------
    iterations : int
        T. Fixed depths are all of 1..T, or 64 of them in equal ratios.
    rules : sequence of str
        Which rules.
    thresholds : mapping of str to sequence of float, optional
        Other thresholds than the rule's own.

    Raises
    ------
    InputError
        For an unknown rule or an impossible threshold.
    """
    given = dict(thresholds or {})
    depths = np.unique(np.geomspace(1, iterations, _MOST_DEPTHS).round().astype(int))
    found = []
    for name in [*rules, *(name for name in given if name not in EXIT_RULES)]:
        grid = EXIT_RULES[name].grid if name in EXIT_RULES else ()
        if name == "depth":
            whole = range(1, iterations + 1)
            grid = tuple(map(float, whole if iterations <= _MOST_DEPTHS else depths))
        wanted = given.get(name, grid)
        if isinstance(wanted, str) or not isinstance(wanted, Iterable):
            raise InputError(
                f"exit_thresholds must list the thresholds of each rule, such as "
                f"{{'kl': [1e-4, 1e-3]}}; got {wanted!r} for {name!r}."
            )
        for threshold in wanted:
            check_threshold(name, threshold)
            found.append((name, float(threshold)))
    return found


def pareto_front(cost: ArrayLike, value: ArrayLike) -> NDArray[np.bool_]:
    """Mark what nothing else beats: no other point costs as little and is worth more, or the like.

    Parameters
    ----------
    cost, value : array_like, shape (point,)
        Less is better, and more is better.

    Returns
    -------
    ndarray of bool, shape (point,)
        NaN is never on the front; of equal points all are.
    """
    spent, worth = np.asarray(cost, np.float64), np.asarray(value, np.float64)
    known = np.isfinite(spent) & np.isfinite(worth)
    on = np.zeros(spent.shape, dtype=bool)
    best = -np.inf
    for price in np.unique(spent[known]):
        here = known & (spent == price)
        top = worth[here].max()
        if top > best:
            on |= here & (worth == top)
            best = top
    return on
