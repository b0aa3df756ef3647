"""The regime of every token, at the loop boundary and after every layer."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from looplens.analysis.algebra.inputs import whole_number
from looplens.analysis.analyzers._analyzer import (
    Analyzer,
    Source,
    Summary,
    coordinates,
    has_layers,
    labelled,
    needs_iterations,
    over_known,
    rounding_dtype,
)
from looplens.analysis.analyzers._restart_agreement import restart_agreement
from looplens.analysis.measures.power import power_of
from looplens.analysis.regimes.classifying import (
    NON_FINITE,
    NUMBERS,
    REGIMES,
    SCORES,
    UNRESOLVED,
    WORDS,
    RegimeThresholds,
    regimes_of,
    wide_points,
    window_points,
)
from looplens.analysis.regimes.kinds import KINDS
from looplens.analysis.regimes.thresholds import rounding_step
from looplens.analysis.running.engine import Block, Wants

if TYPE_CHECKING:
    from looplens.store import StoredRun

_LONG_NAMES = {
    "regime": "regime",
    "unit_regime": "regime of the states divided by their norms",
    "kind": "kind of the regime",
    "reason": "why",
    "floor_from": "what the noise floor is taken from",
    "period": "turn of an orbit",
    "amplitude": "root-mean-square distance from the mean of the tail over the norm",
    "rate": "factor by which the distance to a fixed point shrinks in an iteration",
    "integer_period": "iterations after which the states of an orbit recur",
    "turns": "turns of an orbit in the tail",
    "speed": "net motion of the tail in an iteration over the norm",
    "straightness": "distance between the ends of the tail over the length of the path",
    "radial_share": "share of the way between the ends of the tail along the state, squared",
    "floor": "relative step up to which motion is noise",
    "signal_end": "last iteration whose step exceeds three floors",
    "p_value": "share of surrogates that are as regular",
}
_UNITS = {
    **dict.fromkeys(("period", "integer_period"), "iterations"),
    "turns": "turns",
    **dict.fromkeys(("speed", "floor"), "1 / iteration"),
    "signal_end": "iteration",
    **dict.fromkeys(WORDS, ""),
}
_LEVEL = 0.05  # p-values up to this count as small
_THRESHOLDS = tuple(field.name for field in dataclasses.fields(RegimeThresholds))


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """The source dtype, the thresholds, and how many surrogates."""

    dtype: str
    limits: RegimeThresholds
    surrogates: int


def plan(
    source: Source, *, source_dtype: str | None = None, surrogates: int = 99, **thresholds: Any
) -> Plan:
    """Check the thresholds and the dtype."""
    return Plan(
        dtype=rounding_dtype(source.run, source_dtype),
        limits=RegimeThresholds.from_keywords(**thresholds),
        surrogates=whole_number(surrogates, "surrogates", least=0),
    )


def wants(run: StoredRun, plan: Plan) -> Wants:
    """Ask for the window at the end, of loop states and of layers."""
    limits, length = plan.limits, run.iterations
    window = window_points(length, limits) if length >= limits.shortest else None
    wide = wide_points(length, limits) if window is not None else 0
    return Wants(layers=has_layers(run), window=window, wide=wide)


def measure(block: Block, plan: Plan) -> dict[str, np.ndarray]:
    """Classify iterations 1..T of every trajectory, and the same after every layer."""
    dtype, limits = plan.dtype, plan.limits
    restarts, tokens = block.shape
    shape = (restarts * tokens, block.run.iterations)
    step = rounding_step(dtype)
    if shape[1] < limits.shortest:
        block = dataclasses.replace(block, state=[], layers=[[] for _ in block.layers])
    found = regimes_of(
        block.state, shape, limits, step, dtype, True, surrogates=plan.surrogates
    ).reshaped(block.shape)
    arrays = {name: getattr(found, name).astype(object) for name in WORDS}
    arrays |= {name: getattr(found, name) for name in NUMBERS}
    # The first state of the products is that of iteration 0, or of 1 where that was not kept.
    first = shape[1] + 1 - max((part.norm2.shape[1] for part in block.state), default=shape[1])
    arrays["signal_end"] = arrays["signal_end"] + first
    arrays["scores"] = np.stack([found.scores[name] for name in SCORES], axis=-1)
    layers = [
        regimes_of(layer, shape, limits, step, dtype, False, details=False).reshaped(block.shape)
        for layer in block.layers
    ]
    if layers:
        regimes = np.stack([layer.regime for layer in layers], axis=-1)
        arrays["layer_regime"] = regimes.astype(object)
        arrays["layer_period"] = np.stack([layer.period for layer in layers], axis=-1)
    return arrays


def build(source: Source, plan: Plan, whole: dict[str, np.ndarray]) -> xr.Dataset:
    """Name the regimes; tokens that could not be looked at are unresolved and say why."""
    run, dtype, limits = source.run, plan.dtype, plan.limits
    unknown = ~source.coverage.known
    words = source.coverage.words(run.n_tokens)
    for name in ("regime", "unit_regime", "layer_regime"):
        if name in whole:
            whole[name][:, unknown] = UNRESOLVED
    whole["reason"][:, unknown] = words[unknown]
    whole["kind"][:, unknown] = "non_finite"
    pair = ("restart", "token")
    attributes: dict[str, dict[str, Any]] = {
        "regime": {"tail": limits.tail, "confirm_tail": limits.confirm_tail, "source_dtype": dtype},
        "amplitude": {"threshold": limits.small_amplitude},
        "turns": {"threshold": limits.turns},
        "floor": {"source_dtype": dtype},
        "p_value": {"surrogates": plan.surrogates},
    }
    data = {
        name: labelled(
            pair, whole[name], long_name, _UNITS.get(name, "1"), **attributes.get(name, {})
        )
        for name, long_name in _LONG_NAMES.items()
    }
    data["scores"] = labelled((*pair, "score"), whole["scores"], "measurements in the tail")
    data |= restart_agreement(run, *(whole[name] for name in ("regime", "reason", "period")))
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
        coords={
            **coordinates(run, *dims),
            **({"prompt": np.arange(run.n_prompts)} if run.restarts > 1 else {}),
            "score": np.array(SCORES, dtype=object),
        },
        attrs={
            "thresholds": dataclasses.asdict(limits),
            "source_dtype": dtype,
            "surrogates": plan.surrogates,
        },
    )


def summarize(dataset: xr.Dataset, run: StoredRun) -> Summary:
    """Shares and counts over all trajectories (restart x token).

    ``<regime>_share`` and ``n_<regime>`` from ``regime``, ``unit_<regime>_share`` from
    ``unit_regime``; ``n_trajectories``, and of these ``n_non_finite``, which are unresolved;
    ``median_orbit_period`` over orbits, NaN without any;
    ``n_small_orbits``: orbits of relative amplitude under the threshold, likely driven by others;
    ``kinds``: how many trajectories there are of each kind; ``median_rate`` of fixed points;
    ``n_significant_orbits``: orbits with a p-value of at most 0.05. Of all trajectories that have
    a p-value (``n_tested``), ``n_significant`` are that small, and ``n_significant_by_chance``
    would be if chance were all there is. Of tokens, where a token with an orbit or slider in any
    restart counts once: ``n_moving_tokens``, and what that is worth:
    ``tokens_needed`` and ``chance_of_seeing`` at the base rates of the literature, and
    ``largest_moving_share``, the largest share that seeing none does not rule out (NaN where one
    was seen).
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
    p_value, surrogates = dataset["p_value"], dataset.attrs["surrogates"]
    significant = p_value.values <= _LEVEL
    summary["n_significant_orbits"] = int(significant[orbits].sum())
    tested = int(np.isfinite(p_value.values).sum())
    summary["n_tested"], summary["n_significant"] = tested, int(significant.sum())
    summary["n_significant_by_chance"] = tested * _chance(surrogates)
    summary["median_rate"] = over_known(np.median, dataset["rate"].values)
    kinds = Counter(dataset["kind"].values.ravel().tolist())
    summary["kinds"] = {kind: kinds[kind] for kind in KINDS}
    judged = (regime != UNRESOLVED).any(0)
    moving = np.isin(regime, ("orbit", "slider")).any(0)
    summary["n_moving_tokens"] = int(moving.sum())
    if judged.any():
        found = power_of(int(judged.sum()), int(moving.sum()))
        rates = [f"{rate:g}" for rate in found.rates]
        summary["tokens_needed"] = dict(zip(rates, found.needed, strict=True))
        summary["chance_of_seeing"] = dict(zip(rates, found.chance, strict=True))
        summary["largest_moving_share"] = found.largest_rate
    return summary


def _chance(surrogates: int) -> float:
    """Probability of a p-value of at most `_LEVEL` where chance is all there is."""
    return math.floor(_LEVEL * (surrogates + 1) + 1e-9) / (surrogates + 1)


ANALYZER = Analyzer(
    name="classify",
    version=6,
    title="Regimes",
    needs=needs_iterations,
    plan=plan,
    wants=wants,
    measure=measure,
    build=build,
    summarize=summarize,
    parameters=("source_dtype", "surrogates", *_THRESHOLDS),
)
