"""How often `looplens.analysis.classify` is right, on trajectories whose regime is known.

Prints a confusion table for each length and signal-to-noise ratio, the shares that the detector is
held to, and the cost. Thresholds were chosen on seeds below 1000, those of motion that is not over
on 3001 and 5001: quote numbers from others.

    python benchmarks/regimes.py --seed 1000 --systems 50
"""

from __future__ import annotations

import argparse
import time
from collections import Counter

import numpy as np

from looplens.analysis import REGIMES, classify
from looplens.testing import KINDS, make_system

TRUTHS = ("fixed_point", "orbit", "slider")


def run(iterations: int, snr_db: float, seed: int, systems: int, d_model: int) -> dict[str, float]:
    """Classify `systems` draws of every kind; print their table and return the shares."""
    made = [
        make_system(
            kind, iterations=iterations, snr_db=snr_db, d_model=d_model, seed=seed * 10_000 + draw
        )
        for kind in KINDS
        for draw in range(systems)
    ]
    states = np.stack([system.states for system in made])
    start = time.process_time()
    found = classify(states)
    milliseconds = 1e3 * (time.process_time() - start) / len(made)
    truth = np.array([system.truth for system in made])
    table = Counter(zip(truth.tolist(), found.regime.tolist(), strict=True))
    known = np.isin(truth, TRUTHS)
    right = found.regime == truth
    orbits = (truth == "orbit") & right
    turns = np.array([system.period for system in made])
    off = np.abs(found.period[orbits] / turns[orbits] - 1) > 0.03
    shares = {
        "right": right[known].mean(),
        "rejected": right[~known].mean(),
        "wrong": ((found.regime != "unresolved") & ~right).mean(),
        "period off": off.mean(),
        "ms": milliseconds,
    }
    print(
        f"\nT={iterations} SNR={snr_db:g} dB  "
        + "  ".join(f"{k} {v:.4f}" for k, v in shares.items())
    )
    print(f"{'truth':>12} " + " ".join(f"{name:>12}" for name in REGIMES))
    for name in REGIMES:
        print(f"{name:>12} " + " ".join(f"{table[name, other]:>12}" for other in REGIMES))
    kinds = np.repeat(KINDS, systems)
    missed = Counter(
        (str(kind), str(regime))
        for kind, regime, good in zip(kinds, found.regime, right, strict=True)
        if not good
    )
    for (kind, regime), count in missed.most_common(5):
        print(f"    {kind} called {regime}: {count} of {systems}")
    return shares


def main() -> None:
    """Run all lengths and ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=1000)
    parser.add_argument("--systems", type=int, default=50, help="draws of each kind")
    parser.add_argument("--d-model", type=int, default=64)
    options = parser.parse_args()
    for iterations in (16, 32, 64, 128):
        for snr_db in (np.inf, 40.0, 20.0, 10.0):
            run(iterations, snr_db, options.seed, options.systems, options.d_model)


if __name__ == "__main__":
    main()
