"""What the model would say after each iteration: accuracy, certainty, when it settles."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from looplens.analysis.analyzers._analyzer import (
    Analyzer,
    Source,
    Summary,
    coordinates,
    labelled,
    needs_states,
    over_known,
    readouts,
    token_columns,
)
from looplens.analysis.measures.flops import GIGA, per_gflop, run_flops
from looplens.analysis.measures.readout import (
    agreement_counts,
    carried,
    last_right,
    overthinking,
    prediction_flips,
    prediction_settling,
)

if TYPE_CHECKING:
    from looplens.store import StoredRun

_TARGET = ("target_rank", "target_logprob")
_MOST_COMPARED = 64  # iterations in the matrix of agreement


def needs(run: StoredRun) -> str | None:
    """Ask for predictions after each iteration."""
    if not run.has_readout:
        return (
            "This run has no readout. Record with looplens.record(..., readout=True), or with "
            "--readout on the command line."
        )
    return needs_states(run)


def build(source: Source, plan: None, arrays: dict[str, np.ndarray]) -> xr.Dataset:
    """Average the readout over tokens and restarts, and say when each prediction settles."""
    run = source.run
    iterations = len(run.kept_iterations)
    targets = run.tokens["target"].values >= 0
    wanted = ["topk_ids", "entropy", "kl_to_previous", "kl_to_last"]
    wanted += _TARGET if targets.any() else ()
    shape = (run.restarts, run.n_tokens)
    flips, settling = np.full(shape, np.nan), np.full(shape, np.nan)
    lost = np.full(shape, np.nan)
    shown = _spread(iterations)
    equal = pairs = np.zeros((len(shown), len(shown)), dtype=np.int64)
    readout = {name: np.full((*shape, iterations), np.nan, dtype=np.float32) for name in wanted[1:]}
    for tokens, part in readouts(source, tuple(wanted), rank=0):
        predicted = part.pop("topk_ids")  # restart token iteration
        # Numbers that are not finite have a best token all the same.
        answers = np.where(np.isfinite(part["entropy"]), predicted, -1)
        counted = agreement_counts(answers[..., shown])
        equal, pairs = equal + counted[0], pairs + counted[1]
        left_with = carried(answers, predicted)
        settled = left_with[..., -1] >= 0
        flips[:, tokens] = np.where(settled, prediction_flips(left_with), np.nan)
        settling[:, tokens] = np.where(settled, prediction_settling(left_with), np.nan)
        if "target_rank" in part:
            for name in _TARGET:
                part[name] = carried(part[name], predicted)
            lost[:, tokens] = last_right(part["target_rank"] == 0)
        for name, values in part.items():
            readout[name][:, tokens] = values
    known = source.coverage.known
    targets &= known
    curve, pair = ("iteration",), ("restart", "token")
    data = {
        "entropy": labelled(
            curve, _mean(readout["entropy"]), "entropy of the prediction, mean", "nat"
        ),
        "kl_to_previous": labelled(
            curve,
            _median(readout["kl_to_previous"]),
            "Kullback-Leibler divergence of the prediction before from this one, median",
            "nat",
        ),
        "kl_to_last": labelled(
            curve,
            _median(readout["kl_to_last"]),
            "Kullback-Leibler divergence of the last prediction from this one, median",
            "nat",
        ),
    }
    if run.all_iterations:  # what happens between kept ones is not known
        data["prediction_flips"] = labelled(pair, flips, "times that the best token changes")
        data["prediction_settling"] = labelled(
            pair,
            settling,
            "first iteration from which on the best token is the last one",
            "iteration",
        )
    names = coordinates(run, "restart", "token", "iteration")
    names["compared"] = names["other"] = names["iteration"][shown]
    data["prediction_agreement"] = labelled(
        ("compared", "other"),
        np.divide(equal, pairs, out=np.full(equal.shape, np.nan), where=pairs > 0),
        "share of trajectories with the same best token at two iterations",
    )
    cost = run_flops(run)
    judged = np.flatnonzero(targets if targets.any() else known)
    if cost is not None and len(judged):
        spent = cost.at(judged).mean().total(names["iteration"]) / GIGA
        data["gflops"] = labelled(
            curve,
            spent,
            "matrix operations of a token that is read out once, after this iteration, mean",
            "1e9 operations",
        )
    if targets.any():
        correct = readout["target_rank"][:, targets] == 0
        data["accuracy"] = labelled(
            curve,
            correct.mean((0, 1)),
            "share of targets that are the best token",
            n=int(targets.sum()),
        )
        if "gflops" in data:
            data["accuracy_per_gflop"] = labelled(
                curve,
                per_gflop(data["accuracy"].values, data["gflops"].values),
                "accuracy over the cost of a token",
                "1/(1e9 operations)",
            )
        ranks = np.where(readout["target_rank"] >= 0, readout["target_rank"], np.nan)
        data["target_rank"] = labelled(curve, _median(ranks), "rank of the target, from 0, median")
        data["last_right"] = labelled(
            pair,
            np.where(targets, lost, np.nan),
            "last iteration with a right answer, where the last answer is wrong",
            "iteration",
        )
        data["target_logprob"] = labelled(
            curve,
            _mean(readout["target_logprob"]),
            "log-probability of the target, mean",
            "nat",
        )
        for column, values in token_columns(run).items():
            levels = np.unique(values[targets & np.isfinite(values)])
            if not len(levels) or column in names:
                continue
            rows = [correct[:, values[targets] == level].mean((0, 1)) for level in levels]
            data[f"accuracy_by_{column}"] = labelled(
                (column, "iteration"), np.stack(rows), f"accuracy at each level of {column}"
            )
            data[f"overthinking_by_{column}"] = labelled(
                (column,),
                overthinking(np.stack(rows)).score,
                f"best accuracy over the iterations less the last, at each level of {column}",
            )
            names[column] = levels
    return xr.Dataset(data, coords=names)


def _spread(count: int) -> np.ndarray:
    """Return places on the axis of iterations: all, or as many in equal ratios as one can see."""
    if count <= _MOST_COMPARED:
        return np.arange(count)
    return np.unique(np.geomspace(1, count, _MOST_COMPARED).round().astype(int)) - 1


def _mean(values: np.ndarray) -> np.ndarray:
    """Mean over restarts and tokens, leaving out what is not known; NaN where nothing is."""
    known = np.isfinite(values)
    count = known.sum((0, 1))
    total = np.where(known, values, 0.0).sum((0, 1), dtype=np.float64)
    return np.divide(total, count, out=np.full(count.shape, np.nan), where=count > 0)


def _median(values: np.ndarray) -> np.ndarray:
    flat = values.reshape(-1, values.shape[-1])
    return np.array([over_known(np.median, column) for column in flat.T])


def summarize(dataset: xr.Dataset, run: StoredRun) -> Summary:
    """Take ends and extremes of the curves of the same name.

    With targets: ``final_accuracy``, ``best_accuracy``, ``best_iteration`` (the first one to reach
    it), ``overthinking`` (best less final), ``worst_overthinking`` (the largest at a level of a
    column of the tokens), ``lost_share`` (of targets that were right and are wrong at the end), and
    where operations can be counted ``final_accuracy_per_gflop`` and ``best_accuracy_per_gflop`` (at
    ``best_iteration``). Always: ``final_entropy``, ``final_kl_to_previous``, where operations can
    be counted ``final_gflops``, and ``median_prediction_settling`` and ``mean_prediction_flips``
    over trajectories, where runs keep every iteration.
    """
    summary: Summary = {
        "final_entropy": float(dataset["entropy"].values[-1]),
        "final_kl_to_previous": float(dataset["kl_to_previous"].values[-1]),
    }
    if "prediction_settling" in dataset:
        settling, flips = dataset["prediction_settling"].values, dataset["prediction_flips"].values
        summary["median_prediction_settling"] = over_known(np.median, settling)
        summary["mean_prediction_flips"] = over_known(np.mean, flips)
    if "accuracy" in dataset:
        accuracy = dataset["accuracy"].values
        best = int(accuracy.argmax())
        summary |= {
            "final_accuracy": float(accuracy[-1]),
            "best_accuracy": float(accuracy[best]),
            "best_iteration": int(dataset["iteration"].values[best]),
            "overthinking": float(overthinking(accuracy).score),
        }
        tiers = [
            float(variable.max())
            for name, variable in dataset.data_vars.items()
            if str(name).startswith("overthinking_by_")
        ]
        if tiers:
            summary["worst_overthinking"] = max(tiers)
        targets = int((run.tokens["target"].values[dataset["token"].values] >= 0).sum())
        lost = int(np.isfinite(dataset["last_right"].values).sum())
        summary["lost_share"] = lost / max(1, targets * run.restarts)
        if "accuracy_per_gflop" in dataset:
            ratio = dataset["accuracy_per_gflop"].values
            summary["final_accuracy_per_gflop"] = float(ratio[-1])
            summary["best_accuracy_per_gflop"] = float(ratio[best])
    if "gflops" in dataset:
        summary["final_gflops"] = float(dataset["gflops"].values[-1])
    return summary


ANALYZER = Analyzer(
    name="readout",
    version=4,
    title="Predictions",
    needs=needs,
    build=build,
    summarize=summarize,
)
