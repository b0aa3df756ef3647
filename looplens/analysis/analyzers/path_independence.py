"""Whether tokens end in the same place, and the same prediction, from every restart."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from looplens.analysis._path_independence import path_independence
from looplens.analysis.analyzers._analyzer import (
    Analyzer,
    Summary,
    blocks,
    coordinates,
    labelled,
    needs_states,
    stack,
)

if TYPE_CHECKING:
    from looplens.store import StoredRun


def needs(run: StoredRun) -> str | None:
    """Ask for at least two restarts."""
    if run.restarts < 2:
        return (
            "Path independence compares restarts, and this run has one. Record with restarts=2 or "
            "more, from a random initial state."
        )
    return needs_states(run)


def compute(run: StoredRun) -> xr.Dataset:
    """Compare all pairs of restarts: states, limits, predictions and regimes."""
    parts = []
    for block in blocks(run):
        found = path_independence(run.state(tokens=block).values)
        curves = {name: getattr(found, name).astype(np.float32) for name in ("gap", "gap_max")}
        numbers = ("gap_rate", "gap_floor", "final_gap", "token_aa")
        parts.append(curves | {name: getattr(found, name) for name in numbers})
    whole = stack(parts, axis=0)
    curve, number = ("token", "iteration"), ("token",)
    known = whole["token_aa"][np.isfinite(whole["token_aa"])]
    score = float(known.mean()) if known.size else float("nan")
    data = {
        "gap": labelled(
            curve, whole["gap"], "distance between restarts over their norm, mean of pairs"
        ),
        "gap_max": labelled(curve, whole["gap_max"], "the same for the farthest pair"),
        "final_gap": labelled(number, whole["final_gap"], "gap at the last iteration"),
        "gap_rate": labelled(
            number,
            whole["gap_rate"],
            "factor by which the gap changes in an iteration, fitted above three times its floor",
        ),
        "gap_floor": labelled(number, whole["gap_floor"], "median gap over the last quarter"),
        "token_aa": labelled(
            number, whole["token_aa"], "cosine between the limits of restarts, mean of pairs"
        ),
        "regime_agreement": labelled(
            number, _regime_agreement(run), "share of pairs of restarts with the same regime"
        ),
        "aa_score": labelled((), score, "mean of token_aa over the tokens"),
    }
    if run.has_readout:
        agreement = _readout_agreement(run)
        data["readout_agreement"] = labelled(
            curve, agreement, "share of pairs of restarts that predict the same token"
        )
        data["agreement"] = labelled(
            (), float(agreement[:, -1].mean()), "mean of readout_agreement at the last iteration"
        )
    return xr.Dataset(
        data,
        coords=coordinates(run, "token", "iteration", first_iteration=0),
        attrs={"aa_score": score},
    )


def _same(values: np.ndarray) -> np.ndarray:
    """Share of pairs along the first axis that are equal."""
    pairs = [values[one] == values[other] for one, other in combinations(range(len(values)), 2)]
    return np.mean(pairs, axis=0)


def _readout_agreement(run: StoredRun) -> np.ndarray:
    """Per token and iteration; NaN at iteration 0, which nothing is read out of."""
    predicted = run.readout["topk_ids"].isel(rank=0).values  # restart token iteration
    agreement = _same(predicted)
    return np.concatenate([np.full((agreement.shape[0], 1), np.nan), agreement], axis=1)


def _regime_agreement(run: StoredRun) -> np.ndarray:
    from looplens.analysis.suite import get  # the suite lists this module: not at import time

    return _same(get(run, "classify")["regime"].values)


def summarize(dataset: xr.Dataset, run: StoredRun) -> Summary:
    """Over tokens, of ``final_gap``, ``gap_rate``, ``token_aa``, and agreements at the end.

    ``aa_score`` (mean of token_aa), ``worst_token_aa``, ``median_final_gap``, ``max_final_gap``,
    ``median_gap_rate``, ``regime_agreement`` (mean), ``readout_agreement`` (mean at the last
    iteration; only with a readout), ``restarts``.
    """
    summary: Summary = {
        "aa_score": float(dataset["aa_score"]),
        "worst_token_aa": _of(np.min, dataset["token_aa"].values),
        "median_final_gap": _of(np.median, dataset["final_gap"].values),
        "max_final_gap": _of(np.max, dataset["final_gap"].values),
        "median_gap_rate": _of(np.median, dataset["gap_rate"].values),
        "regime_agreement": float(dataset["regime_agreement"].mean()),
        "restarts": int(run.restarts),
    }
    if "agreement" in dataset:
        summary["readout_agreement"] = float(dataset["agreement"])
    return summary


def _of(statistic: object, values: np.ndarray) -> float:
    known = values[np.isfinite(values)]
    return float(statistic(known)) if known.size else float("nan")  # type: ignore[operator]


ANALYZER = Analyzer(
    name="path_independence",
    version=1,
    title="Path independence",
    needs=needs,
    compute=compute,
    summarize=summarize,
)
