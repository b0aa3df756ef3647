"""What exit policies leave with: sums over the pieces of a run, and what the ways there cost."""

from __future__ import annotations

import numpy as np

from looplens.analysis.measures.exits import EXIT_RULES
from looplens.analysis.measures.flops import GIGA, Flops


class Outcomes:
    """Sums over trajectories, of what each policy leaves with."""

    def __init__(self, count: int) -> None:
        self.known = 0
        self.totals = {
            name: np.zeros(count)
            for name in ("accuracy", "nll", "agreement", "kl_to_last", "at_end")
        }

    def add(self, exits: np.ndarray, part: dict[str, np.ndarray], judged: np.ndarray) -> None:
        """Add the judged tokens of a piece."""
        exits = exits[:, judged]
        finite = np.isfinite(exits).all(-1)
        steps = exits[finite].astype(np.int64)  # trajectory policy
        if not len(steps):
            return
        rows = {name: values[:, judged][finite] for name, values in part.items()}
        last = np.isfinite(rows["topk_logprobs"]).cumsum(-1).argmax(-1)
        predicted = rows["topk_ids"]
        same = predicted == np.take_along_axis(predicted, last[:, None], axis=1)
        found = {"agreement": same, "kl_to_last": rows["kl_to_last"]}
        if "target_rank" in rows:
            found |= {"accuracy": rows["target_rank"] == 0, "nll": -rows["target_logprob"]}
        for name, values in found.items():
            self.totals[name] += np.take_along_axis(values, steps - 1, axis=1).sum(
                0, dtype=np.float64
            )
        self.totals["at_end"] += (steps == last[:, None] + 1).sum(0)
        self.known += len(steps)

    def means(self) -> dict[str, np.ndarray]:
        """Return means over trajectories; NaN without any."""
        if not self.known:
            return {name: np.full(total.shape, np.nan) for name, total in self.totals.items()}
        return {name: total / self.known for name, total in self.totals.items()}


def mean_exit(exits: np.ndarray) -> np.ndarray:
    """Mean over trajectories (restart, token, policy), of those that are known."""
    found = exits[np.isfinite(exits).all(-1)].astype(np.float64)
    return found.mean(0) if len(found) else np.full(exits.shape[-1], np.nan)


def exit_shares(exits: np.ndarray, iterations: int) -> np.ndarray:
    """Share of trajectories (restart, token, policy) that leave after each of 1..T.

    Returns
    -------
    ndarray, shape (policy, iteration)
        Over those that are known; each row sums to 1. NaN without any.
    """
    found = exits[np.isfinite(exits).all(-1)].astype(np.int64)  # trajectory policy
    if not len(found):
        return np.full((exits.shape[-1], iterations), np.nan)
    counts = [np.bincount(column - 1, minlength=iterations) for column in found.T]
    return np.stack(counts) / len(found)


def mean_cost(cost: Flops, name: str, steps: np.ndarray, tokens: np.ndarray) -> float:
    """Mean cost of a token in billions of operations, what the rule looks at included.

    Parameters
    ----------
    cost : Flops
        Of every token of the run.
    name : str
        The rule.
    steps : ndarray, shape (restart, token)
        When trajectories leave; NaN for those that are not known, which do not count.
    tokens : ndarray of int, shape (token,)
        Which tokens these are.
    """
    reads = EXIT_RULES[name].reads
    total = cost.at(tokens).total(
        steps,
        readouts=steps if reads == "readout" else 1,
        gates=steps if reads == "gate" else 0,
    )
    known = np.isfinite(total)
    return float(total[known].mean() / GIGA) if known.any() else float("nan")
