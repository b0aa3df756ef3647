"""When each exit policy would leave, from the products of states and from what was read out.

Positions are judged one by one, as if all others went on; no model runs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from looplens.analysis.measures.exit_signals import (
    gate_signals,
    readout_signals,
    signals_of,
    state_signals,
)
from looplens.analysis.measures.exits import EXIT_RULES, exit_iteration
from looplens.analysis.running.engine import Block


@dataclass(frozen=True, kw_only=True, slots=True)
class Bench:
    """The pairs of rule and threshold that are simulated."""

    policies: tuple[tuple[str, float], ...]

    @property
    def rules(self) -> tuple[str, ...]:
        """The rules, in their order."""
        return tuple(dict.fromkeys(name for name, _ in self.policies))

    def of(self, reads: str) -> list[tuple[int, str, float]]:
        """Return place, rule and threshold of those that look at one thing."""
        return [
            (place, name, threshold)
            for place, (name, threshold) in enumerate(self.policies)
            if EXIT_RULES[name].reads == reads
        ]


def exits_by_state(block: Block, bench: Bench) -> np.ndarray:
    """Return when rules on states leave, (restart, token, policy); NaN for the other rules."""
    count = block.shape[0] * block.shape[1]
    exits = np.full((count, len(bench.policies)), np.nan, dtype=np.float32)
    wanted = bench.of("state")

    def leave(rows: np.ndarray, signals: dict[str, np.ndarray]) -> None:
        for place, name, threshold in wanted:
            exits[rows, place] = exit_iteration(name, signals[name], threshold)

    if wanted:
        assert block.states is not None
        for part in block.state:
            leave(part.rows, signals_of(part))
        # Products are of finite trajectories: what left the loop by itself, or the finite numbers,
        # is looked at as far as it went.
        whole = np.concatenate([part.rows for part in block.state] or [np.arange(0)])
        others = np.setdiff1d(np.arange(count), whole)
        if len(others):
            flat = block.states.reshape(count, *block.states.shape[2:])
            leave(others, state_signals(flat[others]))
    return exits.reshape(*block.shape, len(bench.policies))


def add_other_exits(exits: np.ndarray, part: dict[str, np.ndarray], bench: Bench) -> None:
    """Fill in the rules that do not look at states; nothing leaves later than it ran.

    Parameters
    ----------
    exits : ndarray, shape (restart, token, policy)
        Of some tokens; changed in place. NaN where there is no prediction at all.
    part : dict of str to ndarray, shape (restart, token, iteration)
        Their readout.
    bench : Bench
        The policies.
    """
    signals = readout_signals(part["kl_to_previous"], part["entropy"], part["topk_ids"])
    signals["depth"] = part["entropy"]
    reads = ["depth", "readout"]
    if "exit_gate" in part:
        signals |= gate_signals(part["exit_gate"])
        reads.append("gate")
    for kind in reads:
        for place, name, threshold in bench.of(kind):
            exits[..., place] = exit_iteration(name, signals[name], threshold)
    np.minimum(exits, _ran(part["topk_logprobs"])[..., None], out=exits)


def _ran(logprobs: np.ndarray) -> np.ndarray:
    """Last iteration with a prediction, (restart, token); NaN without any.

    Logits that are not finite have a best token and an entropy all the same.
    """
    known = np.isfinite(logprobs)
    last = known.shape[-1] - known[..., ::-1].argmax(-1)
    return np.where(known.any(-1), last, np.nan)
