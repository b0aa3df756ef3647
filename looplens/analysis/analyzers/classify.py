"""The regime of every token, at the loop boundary and after every layer."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from looplens.analysis._regimes import NON_FINITE, REGIMES, Regimes, RegimeThresholds, classify
from looplens.analysis._thresholds import ROUNDING_STEP, rounding_step
from looplens.analysis.analyzers._analyzer import (
    Analyzer,
    Summary,
    blocks,
    coordinates,
    has_layers,
    labelled,
    needs_states,
    stack,
)

if TYPE_CHECKING:
    from looplens.store import StoredRun

_THRESHOLDS = tuple(field.name for field in dataclasses.fields(RegimeThresholds))


def coarsest_dtype(run: StoredRun) -> str:
    """Of the dtype that the model ran in and the one that was stored, the coarser."""
    names = [str(run.source_dtype), str(run.attrs.get("store_dtype", "float32"))]
    return max((name for name in names if name in ROUNDING_STEP), key=rounding_step)


def compute(run: StoredRun, *, source_dtype: str | None = None, **thresholds: Any) -> xr.Dataset:
    """Classify iterations 1..T of every trajectory."""
    dtype = source_dtype or coarsest_dtype(run)
    limits = RegimeThresholds.from_keywords(**thresholds)
    parts: list[dict[str, np.ndarray]] = []
    score_names: list[str] = []
    for block in blocks(run):
        found = classify(run.state(tokens=block).values[:, :, 1:], source_dtype=dtype, **thresholds)
        score_names = list(found.scores)
        parts.append(_arrays(found))
    whole = stack(parts, axis=1)
    pair = ("restart", "token")
    long_tail = {"tail": limits.tail, "confirm_tail": limits.confirm_tail, "source_dtype": dtype}
    data = {
        "regime": labelled(pair, whole["regime"], "regime", "", **long_tail),
        "unit_regime": labelled(
            pair, whole["unit_regime"], "regime of the states divided by their norms", ""
        ),
        "reason": labelled(pair, whole["reason"], "why", ""),
        "period": labelled(pair, whole["period"], "turn of an orbit", "iterations"),
        "amplitude": labelled(
            pair,
            whole["amplitude"],
            "root-mean-square distance from the mean of the tail over the root-mean-square norm",
            threshold=limits.small_amplitude,
        ),
        "scores": labelled((*pair, "score"), whole["scores"], "measurements in the tail"),
    }
    dims = ["restart", "token"]
    if has_layers(run):
        layers = stack([_layer_arrays(run, block, dtype, thresholds) for block in blocks(run)], 1)
        data["layer_regime"] = labelled(
            (*pair, "layer"), layers["regime"], "regime after a layer", ""
        )
        data["layer_period"] = labelled(
            (*pair, "layer"), layers["period"], "turn of an orbit after a layer", "iterations"
        )
        dims.append("layer")
    return xr.Dataset(
        data,
        coords={**coordinates(run, *dims), "score": np.array(score_names, dtype=object)},
        attrs={"thresholds": dataclasses.asdict(limits), "source_dtype": dtype},
    )


def _arrays(found: Regimes) -> dict[str, np.ndarray]:
    texts = {
        name: getattr(found, name).astype(object) for name in ("regime", "unit_regime", "reason")
    }
    scores = np.stack(list(found.scores.values()), axis=-1)
    return {**texts, "period": found.period, "amplitude": found.amplitude, "scores": scores}


def _layer_arrays(
    run: StoredRun, block: slice, dtype: str, thresholds: dict[str, Any]
) -> dict[str, np.ndarray]:
    states = run.site("resid_post", tokens=block).values  # restart token layer iteration d_model
    found = classify(states, source_dtype=dtype, unit=False, **thresholds)
    return {"regime": found.regime.astype(object), "period": found.period}


def summarize(dataset: xr.Dataset, run: StoredRun) -> Summary:
    """Shares and counts over all trajectories (restart x token).

    ``<regime>_share`` and ``n_<regime>`` from ``regime``, ``unit_<regime>_share`` from
    ``unit_regime``; ``n_trajectories``, and of these ``n_non_finite``, which are unresolved;
    ``median_orbit_period`` over orbits, NaN without any;
    ``n_small_orbits``: orbits of relative amplitude under the threshold, likely driven by others.
    """
    regime, unit = dataset["regime"].values, dataset["unit_regime"].values
    summary: Summary = {
        "n_trajectories": int(regime.size),
        "n_non_finite": int((dataset["reason"].values == NON_FINITE).sum()),
    }
    for name in REGIMES:
        count = int((regime == name).sum())
        summary[f"{name}_share"] = count / regime.size
        summary[f"n_{name}"] = count
        summary[f"unit_{name}_share"] = float((unit == name).mean())
    orbits = regime == "orbit"
    periods = dataset["period"].values[orbits]
    small = dataset["amplitude"].values[orbits] < dataset["amplitude"].attrs["threshold"]
    summary["median_orbit_period"] = float(np.median(periods)) if periods.size else float("nan")
    summary["n_small_orbits"] = int(small.sum())
    return summary


ANALYZER = Analyzer(
    name="classify",
    version=2,
    title="Regimes",
    needs=needs_states,
    compute=compute,
    summarize=summarize,
    parameters=("source_dtype", *_THRESHOLDS),
)
