"""Every exit rule, simulated on one recording: when it leaves, what it costs and what it loses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from looplens.analysis.analyzers._analyzer import (
    Analyzer,
    Source,
    Summary,
    coordinates,
    finite_or_none,
    labelled,
    needs_iterations,
    readouts,
)
from looplens.analysis.analyzers._exit_outcomes import (
    Outcomes,
    exit_shares,
    mean_cost,
    mean_exit,
)
from looplens.analysis.analyzers._exit_simulation import (
    Bench,
    add_other_exits,
    exits_by_state,
)
from looplens.analysis.measures.exits import EXIT_RULES, pareto_front, policies
from looplens.analysis.measures.flops import per_gflop, run_flops
from looplens.analysis.running.engine import Block
from looplens.errors import InputError

if TYPE_CHECKING:
    from looplens.store import StoredRun

LOST = 0.01  # of the best accuracy, that a rule may lose and still count as safe
_READS = ("topk_ids", "topk_logprobs", "entropy", "kl_to_previous", "kl_to_last")
_TARGET_READS = ("target_rank", "target_logprob")


def needs(run: StoredRun) -> str | None:
    """Ask for predictions after each iteration."""
    if not run.has_readout:
        return (
            "Exit rules are judged by the predictions after each iteration, and this run has no "
            "readout. Record with readout=True (--readout on the command line)."
        )
    return needs_iterations(run)


def plan(source: Source, *, exit_thresholds: Mapping[str, Sequence[float]] | None = None) -> Bench:
    """List what is simulated: thresholds of the bench, or other ones by name of the rule.

    Rules on states are left out where states were reduced, since they compare with their norm;
    rules on an exit gate where the model has none.
    """
    run = source.run
    if exit_thresholds is not None and not isinstance(exit_thresholds, Mapping):
        raise InputError(
            "exit_thresholds must be a mapping from rules to lists of thresholds, such as "
            f"{{'kl': [1e-4, 1e-3]}}; got {exit_thresholds!r}."
        )
    possible = {"depth", "readout"}
    possible |= set() if run.is_reduced else {"state"}
    possible |= {"gate"} if run.has_exit_gate else set()
    rules = [name for name, rule in EXIT_RULES.items() if rule.reads in possible]
    for name in exit_thresholds or {}:
        if name in EXIT_RULES and name not in rules:
            what = "an exit gate" if EXIT_RULES[name].reads == "gate" else "whole states"
            raise InputError(f"The exit rule {name!r} needs {what}, which this run has not.")
    return Bench(policies=tuple(policies(run.iterations, rules, exit_thresholds)))


def measure(block: Block, plan: Bench) -> dict[str, np.ndarray]:
    """Simulate the rules on states; the other ones follow from the readout."""
    return {"exit_iteration": exits_by_state(block, plan)}


def build(source: Source, plan: Bench, arrays: dict[str, np.ndarray]) -> xr.Dataset:
    """Add the rules on predictions and gates, and look up what each policy leaves with."""
    run, exits = source.run, arrays["exit_iteration"]
    has_target = run.tokens["target"].values >= 0
    judged = has_target if has_target.any() else np.ones(run.n_tokens, dtype=bool)
    cost = run_flops(run)
    sums = Outcomes(len(plan.policies))
    names = _READS + (_TARGET_READS if has_target.any() else ())
    names += ("exit_gate",) if plan.of("gate") else ()
    for tokens, part in readouts(source, names, rank=0):
        add_other_exits(exits[:, tokens], part, plan)
        sums.add(exits[:, tokens], part, judged[tokens])
    exits[:, ~source.coverage.known] = np.nan
    left = sums.means()
    if not has_target.any():
        del left["accuracy"], left["nll"]
    chosen = np.flatnonzero(judged & source.coverage.known)
    left["iterations"] = mean_exit(exits[:, chosen])
    if cost is not None:
        left["gflops"] = np.array(
            [
                mean_cost(cost, name, exits[:, chosen, place].astype(np.float64), chosen)
                for place, (name, _) in enumerate(plan.policies)
            ]
        )
    shares = exit_shares(exits[:, chosen], run.iterations)
    count = int(np.isfinite(exits[:, chosen]).all(-1).any(0).sum())
    return _dataset(source, plan, exits, shares, left, count=count, targets=has_target.any())


_MEANS = {
    "iterations": ("mean iteration after which the rule leaves", "iteration"),
    "gflops": ("matrix operations a token, with what the rule looks at, mean", "1e9 operations"),
    "accuracy": ("share of targets that are the best token where the rule leaves", "1"),
    "nll": ("negative log-probability of the target there, mean", "nat"),
    "agreement": ("share of tokens whose best token is the one at the last iteration", "1"),
    "kl_to_last": ("KL of the last prediction from the one there, mean", "nat"),
    "at_end": ("share of trajectories that leave at the last iteration only", "1"),
}


def _dataset(
    source: Source,
    plan: Bench,
    exits: np.ndarray,
    shares: np.ndarray,
    means: dict[str, np.ndarray],
    *,
    count: int,
    targets: bool | np.bool_,
) -> xr.Dataset:
    """Name everything, and mark what nothing else beats."""
    run = source.run
    data = {
        "exit_iteration": labelled(
            ("restart", "token", "policy"),
            exits,
            "iteration after which the rule leaves, the last one where it never does",
            "iteration",
        ),
        "exit_share": labelled(
            ("policy", "iteration"),
            shares.astype(np.float32),
            "share of trajectories that leave after this iteration",
        ),
    }
    for name, (long_name, units) in _MEANS.items():
        if name in means:
            data[name] = labelled(("policy",), means[name], long_name, units)
    value = means["accuracy" if targets else "agreement"]
    cost = means.get("gflops", means["iterations"])
    if targets and "gflops" in means:
        data["accuracy_per_gflop"] = labelled(
            ("policy",),
            per_gflop(value, cost),
            "accuracy over the cost of a token",
            "1/(1e9 operations)",
        )
    data["on_front"] = labelled(
        ("policy",),
        pareto_front(cost, value),
        "whether no other policy is as cheap and better, or as good and cheaper",
        cost="gflops" if "gflops" in means else "iterations",
        value="accuracy" if targets else "agreement",
    )
    names = [name for name, _ in plan.policies]
    thresholds = np.array([threshold for _, threshold in plan.policies])
    data["is_default"] = labelled(
        ("policy",),
        [threshold == EXIT_RULES[name].threshold for name, threshold in plan.policies],
        "whether the threshold is the rule's default",
    )
    coords = coordinates(run, "restart", "token", "iteration")
    made = xr.Dataset(data, coords=coords)
    made = made.assign_coords(
        rule=("policy", np.array(names, dtype=object)), threshold=("policy", thresholds)
    )
    made.attrs["judged_tokens"] = count
    made.attrs["judged"] = "tokens with a target" if targets else "all tokens"
    return made


def summarize(dataset: xr.Dataset, run: StoredRun) -> Summary:
    """Means over trajectories of judged tokens: those with a target, where there are some.

    ``full_gflops`` and ``full_accuracy_per_gflop``: at full depth. ``iterations_by_rule`` and
    ``gflops_by_rule``: of the cheapest threshold of each rule that comes within one point of the
    best accuracy that any policy reaches (without targets: that keeps 99 % of the full depth's
    predictions); None where none does. ``best_rule``: the cheapest of these, with its threshold,
    and ``best_gflops``, ``best_accuracy_per_gflop`` there.
    """
    rules = [str(rule) for rule in dataset["rule"].values]
    thresholds = dataset["threshold"].values
    iterations, priced = dataset["iterations"].values, "gflops" in dataset
    cost = dataset["gflops"].values if priced else iterations
    ratio = dataset["accuracy_per_gflop"].values if "accuracy_per_gflop" in dataset else None
    summary: Summary = {"judged_tokens": int(dataset.attrs["judged_tokens"])}
    depths = [place for place, rule in enumerate(rules) if rule == "depth"]
    if priced and depths:
        full = max(depths, key=lambda place: thresholds[place])
        summary["full_gflops"] = float(cost[full])
        if ratio is not None:
            summary["full_accuracy_per_gflop"] = float(ratio[full])
    safe = safe_policies(dataset)
    cheapest = {rule: safe.get(rule) for rule in dict.fromkeys(rules)}
    for name, values in (("iterations_by_rule", iterations), ("gflops_by_rule", cost)):
        if name == "iterations_by_rule" or priced:
            summary[name] = {
                rule: None if place is None else finite_or_none(values[place])
                for rule, place in cheapest.items()
            }
    if safe:
        best = min(safe.values(), key=lambda place: cost[place])
        summary["best_rule"] = f"{rules[best]}:{thresholds[best]:g}"
        if priced:
            summary["best_gflops"] = float(cost[best])
        if ratio is not None:
            summary["best_accuracy_per_gflop"] = float(ratio[best])
    return summary


def safe_policies(dataset: xr.Dataset) -> dict[str, int]:
    """Return the place of the cheapest policy of each rule that loses next to nothing.

    Within one point of the best accuracy of all policies; without targets, of the predictions at
    full depth.
    """
    cost = dataset["gflops" if "gflops" in dataset else "iterations"].values
    worth = dataset["accuracy" if "accuracy" in dataset else "agreement"].values
    found: dict[str, int] = {}
    if not np.isfinite(worth).any():
        return found
    good = np.flatnonzero((worth >= np.nanmax(worth) - LOST) & np.isfinite(cost))
    for place in good[np.argsort(cost[good], kind="stable")]:
        found.setdefault(str(dataset["rule"].values[place]), int(place))
    return found


ANALYZER = Analyzer(
    name="exits",
    version=3,
    title="Exit rules",
    needs=needs,
    plan=plan,
    measure=measure,
    build=build,
    summarize=summarize,
    parameters=("exit_thresholds",),
)
