"""Whether tokens end in the same place, and the same prediction, from every restart."""

from __future__ import annotations

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
    over_known,
    pairs_that_agree,
    readouts,
    rounding_dtype,
)
from looplens.analysis.analyzers._restart_agreement import by_prompt
from looplens.analysis.measures.path_independence import NUMBERS, path_independence_of
from looplens.analysis.regimes.thresholds import rounding_step
from looplens.analysis.running.engine import Block

if TYPE_CHECKING:
    from looplens.store import StoredRun


def needs(run: StoredRun) -> str | None:
    """Ask for at least two restarts."""
    if run.restarts < 2:
        return (
            "Path independence compares restarts, and this run has one. Record with restarts=2 or "
            "more, from a random initial state."
        )
    return needs_iterations(run)


def plan(source: Source) -> float:
    """Find what rounding alone shows: of the dtype of the model or of the run, the coarser."""
    return rounding_step(rounding_dtype(source.run))


def measure(block: Block, plan: float) -> dict[str, np.ndarray]:
    """Compare all pairs of restarts."""
    assert block.states is not None
    found = path_independence_of(block.state, block.states, plan)
    curves = {name: getattr(found, name).astype(np.float32) for name in ("gap", "gap_max")}
    return curves | {name: getattr(found, name) for name in NUMBERS}


def build(source: Source, plan: float, whole: dict[str, np.ndarray]) -> xr.Dataset:
    """Name the comparisons of states and limits, and compare predictions."""
    run = source.run
    curve, number = ("token", "iteration"), ("token",)
    score = over_known(np.mean, whole["token_aa"])
    data = {
        "gap": labelled(
            curve, whole["gap"], "distance between restarts over their norm, mean of pairs"
        ),
        "gap_max": labelled(curve, whole["gap_max"], "the same for the farthest pair"),
        "final_gap": labelled(number, whole["final_gap"], "gap at the last iteration"),
        "gap_rate": labelled(
            number,
            whole["gap_rate"],
            "factor by which the distance between restarts changes in an iteration",
        ),
        "gap_rate_error": labelled(number, whole["gap_rate_error"], "error of gap_rate"),
        "gap_fit_end": labelled(
            number, whole["gap_fit_end"], "last iteration that gap_rate is fitted on", "iterations"
        ),
        "gap_floor": labelled(number, whole["gap_floor"], "median gap over the last quarter"),
        "token_aa": labelled(
            number, whole["token_aa"], "cosine between the limits of restarts, mean of pairs"
        ),
        "aa_score": labelled((), score, "mean of token_aa over the tokens"),
    }
    if run.has_readout:
        agreement = _readout_agreement(source)
        data["readout_agreement"] = labelled(
            curve, agreement, "share of pairs of restarts that predict the same token"
        )
        at_end = over_known(np.mean, agreement[:, -1])
        data["agreement"] = labelled((), at_end, "mean of readout_agreement at the last iteration")
        data["prompt_readout_agreement"] = labelled(
            ("prompt",),
            by_prompt(run, np.mean, agreement[:, -1]),
            "mean readout_agreement of a prompt at the last iteration",
        )
    data |= {
        f"prompt_{name}": labelled(
            ("prompt",), by_prompt(run, statistic, data[name].values), f"{words} of a prompt"
        )
        for name, statistic, words in (
            ("token_aa", np.mean, "mean token_aa"),
            ("final_gap", np.median, "median final_gap"),
            ("gap_rate", np.median, "median gap_rate"),
        )
    }
    return xr.Dataset(
        data,
        coords={
            **coordinates(run, "token", "iteration", first_iteration=0),
            "prompt": np.arange(run.n_prompts),
        },
    )


def _readout_agreement(source: Source) -> np.ndarray:
    """Per token and iteration; NaN at iteration 0, and where fewer than two restarts predict.

    Logits that are not finite have an order all the same: it is not a prediction.
    """
    run = source.run
    agreement = np.full((run.n_tokens, run.iterations + 1), np.nan)
    for tokens, readout in readouts(source, ("topk_ids", "topk_logprobs"), rank=0):
        known = np.isfinite(readout["topk_logprobs"])
        agreement[tokens, 1:] = pairs_that_agree(readout["topk_ids"], known)
    return agreement


def summarize(dataset: xr.Dataset, run: StoredRun) -> Summary:
    """Over tokens that are finite in every restart; agreements over pairs that are both finite.

    ``aa_score`` (mean of token_aa), ``worst_token_aa``, ``median_final_gap``, ``max_final_gap``,
    ``median_gap_rate``, ``expanding_share`` (of the tokens with a rate: those whose rate lies above
    1 by more than twice its error), ``median_gap_floor``, ``worst_prompt_aa``,
    ``regime_agreement`` (mean, from the regimes of `classify`), ``period_agreement`` (over pairs
    that are both orbits; None without any),
    ``readout_agreement`` (mean at the last iteration; only with a readout), ``restarts``,
    ``n_tokens`` (that entered) and ``n_non_finite`` (that are not finite in some restart).
    """
    from looplens.analysis.suite import get  # the suite lists this module: not at import time

    verdicts = get(run, "classify")
    finite = int(np.isfinite(dataset["final_gap"].values).sum())
    rate, error = dataset["gap_rate"].values, dataset["gap_rate_error"].values
    expanding = (rate - 2 * error > 1)[np.isfinite(rate)]
    tokens = dataset["token"].values
    summary: Summary = {
        "aa_score": float(dataset["aa_score"]),
        "worst_token_aa": over_known(np.min, dataset["token_aa"].values),
        "median_final_gap": over_known(np.median, dataset["final_gap"].values),
        "max_final_gap": over_known(np.max, dataset["final_gap"].values),
        "median_gap_rate": over_known(np.median, rate),
        "expanding_share": finite_or_none(expanding.mean() if expanding.size else np.nan),
        "median_gap_floor": over_known(np.median, dataset["gap_floor"].values),
        "worst_prompt_aa": over_known(np.min, dataset["prompt_token_aa"].values),
        "regime_agreement": over_known(np.mean, verdicts["regime_agreement"].values[tokens]),
        "period_agreement": finite_or_none(
            over_known(np.mean, verdicts["period_agreement"].values[tokens])
        ),
        "restarts": int(run.restarts),
        "n_tokens": finite,
        "n_non_finite": int(dataset.sizes["token"]) - finite,
    }
    if "agreement" in dataset:
        summary["readout_agreement"] = float(dataset["agreement"])
    return summary


ANALYZER = Analyzer(
    name="path_independence",
    version=5,
    title="Path independence",
    needs=needs,
    plan=plan,
    measure=measure,
    build=build,
    token_axis=0,
    summarize=summarize,
)
