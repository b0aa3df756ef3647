"""How often `looplens.analysis.classify` and other rules are right where the regime is known.

Prints, for every rule, a confusion matrix for each length and signal-to-noise ratio; then the
goals, the cost, and the verdicts on trained models. Writes ``benchmarks/regimes.json`` and the
table of ``docs/analysis/calibration.md``.

Thresholds were chosen on `looplens.testing.KINDS` with seeds below 1000: quote numbers from others.

    python -m benchmarks.regimes                    # everything, a few minutes
    python -m benchmarks.regimes --quick            # few draws, writes nothing
    python -m benchmarks.regimes --seed 0 --only known --current
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from benchmarks._calibration import COST_LENGTHS, counts, goals, show
from benchmarks._calibration_page import PAGE, RESULTS, page
from benchmarks._detectors import RULES, Detector, Previous, current
from benchmarks._report import machine
from benchmarks._unseen import KINDS as UNSEEN
from benchmarks._unseen import make_unseen
from looplens.analysis import REGIMES, Regimes, classify
from looplens.testing import KINDS, System, make_system

LENGTHS = (16, 32, 64, 128)
RATIOS = (np.inf, 40.0, 20.0, 10.0)
PARTS: dict[str, tuple[tuple[str, ...], Callable[..., System]]] = {
    "known": (KINDS, make_system),
    "unseen": (UNSEEN, make_unseen),
}


def draws(part: str, iterations: int, snr_db: float, seed: int, count: int) -> list[System]:
    """Make `count` systems of every kind; seed 1000 means the seeds from 1,000,000 on."""
    kinds, make = PARTS[part]
    return [
        make(kind, iterations=iterations, snr_db=snr_db, seed=seed * 1000 + draw)
        for kind in kinds
        for draw in range(count)
    ]


def confusion(truth: np.ndarray, found: np.ndarray) -> list[list[int]]:
    """Count truths (rows) by labels (columns), both in the order of `REGIMES`."""
    table = Counter(zip(truth.tolist(), found.tolist(), strict=True))
    return [[table[name, other] for other in REGIMES] for name in REGIMES]


def tables(
    part: str, rules: dict[str, Detector], seed: int, count: int
) -> Iterator[dict[str, Any]]:
    """Put every rule to every length and ratio, and print a line for each."""
    print(f"\n{part} kinds: truth (rows) called {', '.join(REGIMES)}", flush=True)
    for iterations in LENGTHS:
        for snr_db in RATIOS:
            systems = draws(part, iterations, snr_db, seed, count)
            states = np.stack([system.states for system in systems])
            truth = np.array([system.truth for system in systems])
            for name, rule in rules.items():
                row: dict[str, Any] = {"part": part, "rule": name, "T": iterations}
                row["snr"] = "inf" if np.isinf(snr_db) else int(snr_db)
                if name == "current":
                    verdicts = classify(states, unit=False)
                    found = verdicts.regime
                    row["period"] = period_errors(systems, verdicts)
                    # Which of the unseen kinds are missed is not to be worked on.
                    row["missed"] = missed(systems, found) if part == "known" else {}
                else:
                    found = rule(states)
                row["table"] = confusion(truth, found)
                print(f"{name:16s} SNR={row['snr']!s:>3}", counts(row), flush=True)
                yield row


def missed(systems: list[System], found: np.ndarray) -> dict[str, int]:
    """Count the labels that are not the truth, by kind."""
    return dict(
        Counter(
            f"{system.kind} called {label}"
            for system, label in zip(systems, found.tolist(), strict=True)
            if label != system.truth
        )
    )


def period_errors(systems: list[System], found: Regimes) -> list[int]:
    """Orbits that were found, and those among them whose period is off by more than 3 %."""
    turn = np.array([system.period for system in systems])
    seen = (found.regime == "orbit") & np.isfinite(turn)
    return [int(seen.sum()), int((np.abs(found.period[seen] / turn[seen] - 1) > 0.03).sum())]


def cost(*, each: int = 4, d_model: int = 512) -> dict[str, float]:
    """Milliseconds of processor time a trajectory, `each` of every kind in one batch, in float32.

    With everything that `classify` does by default: surrogates, and states of unit norm.
    """
    found = {}
    for iterations in COST_LENGTHS:
        states = np.empty((len(KINDS) * each, iterations + 1, d_model), dtype=np.float32)
        for row in range(len(states)):
            kind, seed = KINDS[row // each], row % each
            states[row] = make_system(
                kind, iterations=iterations, d_model=d_model, snr_db=40.0, seed=seed
            ).states
        took = []
        for _ in range(3):
            start = time.process_time()
            classify(states)
            took.append(time.process_time() - start)
        found[str(iterations)] = 1e3 * statistics.median(took) / len(states)
        print(f"T={iterations:5d} d={d_model}: {found[str(iterations)]:.3f} ms a trajectory")
    return found


def on_trained(prompts: int) -> list[dict[str, Any]]:
    """Verdicts from the first iterations of trained models."""
    from benchmarks._trained import LENGTHS as SEEN
    from benchmarks._trained import has_repeated, trained

    rows = []
    for model in trained(prompts=prompts):
        for seen in SEEN:
            states = model.states[:, : seen + 1]
            found = classify(states, unit=False).regime
            early = ~has_repeated(states, model.period)
            rows.append(
                {
                    "model": model.name,
                    "T": seen,
                    "table": confusion(model.truth, found),
                    "not repeated": confusion(model.truth[early], found[early]),
                }
            )
            print(f"{model.name:28s}", counts(rows[-1]), flush=True)
    return rows


def show_missed(rows: list[dict[str, Any]]) -> None:
    """Print the known kinds that today's detector misses, at T >= 64, by the noise."""
    for clear in (True, False):
        total: Counter[str] = Counter()
        for row in rows:
            if (row["part"], row["rule"], row["T"] >= 64) == ("known", "current", True):
                total.update(row["missed"] if (row["snr"] != 10) == clear else {})
        if total:
            print(f"known kinds missed at {'SNR >= 20' if clear else '10'} dB, T >= 64:")
            print("  " + "; ".join(f"{name}: {count}" for name, count in total.most_common(12)))


def main() -> None:
    """Run everything, or what was asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seed", type=int, default=1000, help="from seed * 1000 on")
    parser.add_argument("--systems", type=int, default=20, help="draws of each kind")
    parser.add_argument("--only", action="append", choices=[*PARTS, "cost", "trained"])
    parser.add_argument("--current", action="store_true", help="leave the other rules out")
    parser.add_argument("--quick", action="store_true", help="few draws")
    options = parser.parse_args()
    parts = options.only or [*PARTS, "cost", "trained"]
    count = 3 if options.quick else options.systems
    began = time.perf_counter()
    classify(np.random.default_rng(0).normal(size=(8, 129, 24)))  # compiles once
    document: dict[str, Any] = {"seed": options.seed, "systems": count, "rows": []}
    with contextlib.ExitStack() as stack:
        rules: dict[str, Detector] = {} if options.current else dict(RULES)
        document["previous"] = ""
        if not options.current and set(parts) & set(PARTS):
            previous = stack.enter_context(Previous())
            if previous.missing:
                print(f"previous detector left out: {previous.missing}")
            else:
                rules["previous"] = previous
            document["previous"] = previous.missing
        rules["current"] = current
        for part in PARTS:
            if part in parts:
                document["rows"] += tables(part, rules, options.seed, count)
    document["cost"] = cost() if "cost" in parts else {}
    document["trained"] = on_trained(2 if options.quick else 8) if "trained" in parts else []
    document["seconds"] = round(time.perf_counter() - began)
    document["machine"] = machine()
    show(goals(document))
    show_missed(document["rows"])
    whole = not (options.quick or options.only or options.current)
    if whole:
        RESULTS.write_text(json.dumps(document, indent=1) + "\n")
        PAGE.write_text(page(PAGE.read_text(), document))
    print(f"{document['seconds']} s" + ("" if whole else "; nothing was written"))


if __name__ == "__main__":
    main()
