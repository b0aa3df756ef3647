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
from looplens.analysis.measures.readout import prediction_flips, prediction_settling

if TYPE_CHECKING:
    from looplens.store import StoredRun


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
    wanted += ["target_rank", "target_logprob"] if targets.any() else []
    shape = (run.restarts, run.n_tokens)
    flips, settling = np.full(shape, np.nan), np.full(shape, np.nan)
    readout = {name: np.full((*shape, iterations), np.nan, dtype=np.float32) for name in wanted[1:]}
    for tokens, part in readouts(source, tuple(wanted), rank=0):
        predicted = part.pop("topk_ids")  # restart token iteration
        flips[:, tokens] = prediction_flips(predicted)
        settling[:, tokens] = prediction_settling(predicted)
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
    if targets.any():
        correct = readout["target_rank"][:, targets] == 0
        data["accuracy"] = labelled(
            curve,
            correct.mean((0, 1)),
            "share of targets that are the best token",
            n=int(targets.sum()),
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
            names[column] = levels
    return xr.Dataset(data, coords=names)


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
    it), ``overthinking`` (best less final). Always: ``final_entropy``, ``final_kl_to_previous``,
    ``median_prediction_settling`` and ``mean_prediction_flips`` over trajectories, where runs keep
    every iteration.
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
            "overthinking": float(accuracy[best] - accuracy[-1]),
        }
    return summary


ANALYZER = Analyzer(
    name="readout",
    version=2,
    title="Predictions",
    needs=needs,
    build=build,
    summarize=summarize,
)
