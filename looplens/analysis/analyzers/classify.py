"""The regime of every token, at the loop boundary and after every layer."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from looplens.analysis.analyzers._analyzer import (
    Analyzer,
    Source,
    Summary,
    coordinates,
    has_layers,
    labelled,
    needs_iterations,
)
from looplens.analysis.regimes.classifying import (
    NON_FINITE,
    REGIMES,
    SCORES,
    UNRESOLVED,
    RegimeThresholds,
    regimes_of,
    window_points,
)
from looplens.analysis.regimes.thresholds import ROUNDING_STEP, rounding_step
from looplens.analysis.running.engine import Block, Wants

if TYPE_CHECKING:
    from looplens.store import StoredRun

_TEXTS = ("regime", "unit_regime", "reason")
_THRESHOLDS = tuple(field.name for field in dataclasses.fields(RegimeThresholds))


def coarsest_dtype(run: StoredRun) -> str:
    """Of the dtype that the model ran in and the one that was stored, the coarser."""
    names = [str(run.source_dtype), str(run.attrs.get("store_dtype", "float32"))]
    return max((name for name in names if name in ROUNDING_STEP), key=rounding_step)


def plan(
    source: Source, *, source_dtype: str | None = None, **thresholds: Any
) -> tuple[str, RegimeThresholds]:
    """Check the thresholds and the dtype."""
    dtype = source_dtype or coarsest_dtype(source.run)
    rounding_step(dtype)
    return dtype, RegimeThresholds.from_keywords(**thresholds)


def wants(run: StoredRun, plan: tuple[str, RegimeThresholds]) -> Wants:
    """Ask for the window at the end, of loop states and of layers."""
    limits, length = plan[1], run.iterations
    window = window_points(length, limits) if length >= limits.shortest else None
    return Wants(layers=has_layers(run), window=window)


def measure(block: Block, plan: tuple[str, RegimeThresholds]) -> dict[str, np.ndarray]:
    """Classify iterations 1..T of every trajectory, and the same after every layer."""
    dtype, limits = plan
    restarts, tokens = block.shape
    shape = (restarts * tokens, block.run.iterations)
    step = rounding_step(dtype)
    if shape[1] < limits.shortest:
        block = dataclasses.replace(block, state=[], layers=[[] for _ in block.layers])
    found = regimes_of(block.state, shape, limits, step, dtype, True).reshaped(block.shape)
    arrays = {name: getattr(found, name).astype(object) for name in _TEXTS}
    arrays |= {"period": found.period, "amplitude": found.amplitude}
    arrays["scores"] = np.stack([found.scores[name] for name in SCORES], axis=-1)
    layers = [
        regimes_of(layer, shape, limits, step, dtype, False).reshaped(block.shape)
        for layer in block.layers
    ]
    if layers:
        regimes = np.stack([layer.regime for layer in layers], axis=-1)
        arrays["layer_regime"] = regimes.astype(object)
        arrays["layer_period"] = np.stack([layer.period for layer in layers], axis=-1)
    return arrays


def build(
    source: Source, plan: tuple[str, RegimeThresholds], whole: dict[str, np.ndarray]
) -> xr.Dataset:
    """Name the regimes; tokens that could not be looked at are unresolved and say why."""
    run, (dtype, limits) = source.run, plan
    unknown = ~source.coverage.known
    words = source.coverage.words(run.n_tokens)
    for name in ("regime", "unit_regime", "layer_regime"):
        if name in whole:
            whole[name][:, unknown] = UNRESOLVED
    whole["reason"][:, unknown] = words[unknown]
    pair = ("restart", "token")
    long_tail = {"tail": limits.tail, "confirm_tail": limits.confirm_tail, "source_dtype": dtype}
    data = {
        name: labelled(pair, whole[name], long_name, "", **attributes)
        for name, long_name, attributes in (
            ("regime", "regime", long_tail),
            ("unit_regime", "regime of the states divided by their norms", {}),
            ("reason", "why", {}),
        )
    }
    data |= {
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
    if "layer_regime" in whole:
        data["layer_regime"] = labelled(
            (*pair, "layer"), whole["layer_regime"], "regime after a layer", ""
        )
        data["layer_period"] = labelled(
            (*pair, "layer"), whole["layer_period"], "turn of an orbit after a layer", "iterations"
        )
        dims.append("layer")
    return xr.Dataset(
        data,
        coords={**coordinates(run, *dims), "score": np.array(SCORES, dtype=object)},
        attrs={"thresholds": dataclasses.asdict(limits), "source_dtype": dtype},
    )


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
    version=3,
    title="Regimes",
    needs=needs_iterations,
    plan=plan,
    wants=wants,
    measure=measure,
    build=build,
    summarize=summarize,
    parameters=("source_dtype", *_THRESHOLDS),
)
