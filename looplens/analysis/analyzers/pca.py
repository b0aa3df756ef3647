"""One set of principal components for all tokens of a run, stored so that all viewers see the same.

Fitted on iterations 1..T (the random start would take the first components for itself), of all
tokens of a small run and of an evenly spaced sample of a large one. The variance that they explain
is that of all states.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from looplens.analysis.algebra.gram import Floats
from looplens.analysis.algebra.inputs import whole_number
from looplens.analysis.algebra.products import Moments
from looplens.analysis.analyzers._analyzer import (
    Analyzer,
    Source,
    Summary,
    coordinates,
    has_layers,
    labelled,
    needs_states,
)
from looplens.analysis.analyzers._sample import STATE, sampled
from looplens.analysis.measures.pca import Covariance
from looplens.analysis.running.engine import Block, Wants, first_iteration

if TYPE_CHECKING:
    from looplens.store import StoredRun

_TOGETHER = 2**13  # states to be added to a covariance at a time


@dataclass(frozen=True, kw_only=True, slots=True)
class Basis:
    """Components of one place in the loop.

    ``components`` (component, width) and ``mean`` (width,), fitted to ``states`` states; ``shares``
    (component,) of the variance of these.
    """

    components: Floats
    mean: Floats
    shares: Floats
    states: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Bases:
    """Components by number of the layer, -1 for the loop state; `sample` states were asked for."""

    places: dict[int, Basis]
    sample: int


def plan(source: Source, *, n_components: int = 6, sample: int = 2**16) -> Bases:
    """Fit components to loop states, and to the residual stream after each layer."""
    whole_number(n_components, "n_components", least=1)
    whole_number(sample, "sample", least=1)
    run = source.run
    numbers = [STATE, *(run.recorded_layers if has_layers(run) else ())]
    covariances = {number: Covariance(run.width) for number in numbers}
    waiting: dict[int, list[np.ndarray]] = {number: [] for number in numbers}
    for states in sampled(source, numbers, sample):
        for number in numbers:
            waiting[number].append(states[number].reshape(-1, run.width))
            # Many states at once: adding costs as much as so many states do.
            if sum(map(len, waiting[number])) >= _TOGETHER:
                covariances[number].add(np.concatenate(waiting[number]))
                waiting[number] = []
    for number in numbers:
        if waiting[number]:
            covariances[number].add(np.concatenate(waiting[number]))
    return Bases(
        places={
            number: _basis(covariance, n_components) for number, covariance in covariances.items()
        },
        sample=sample,
    )


def _basis(covariance: Covariance, n_components: int) -> Basis:
    components, shares = covariance.components(n_components)
    return Basis(
        components=components, mean=covariance.mean, shares=shares, states=covariance.count
    )


def keep(source: Source, stored: xr.Dataset, *, sample: int = 2**16, **_: int) -> Bases | None:
    """Return the components of a stored result, if a larger run would be fitted to no more."""
    places = {}
    run = source.run
    if run.is_reduced:  # what is stored are the directions in the model, not those of the fit
        return None
    counts = stored["components"].attrs.get("states", 0)
    if counts < sample:
        return None
    places[STATE] = Basis(
        components=stored["components"].values,
        mean=stored["mean"].values,
        shares=stored["explained_variance_ratio"].values,
        states=int(counts),
    )
    if has_layers(run):
        for index, number in enumerate(run.recorded_layers):
            places[number] = Basis(
                components=stored["layer_components"].values[index],
                mean=stored["layer_mean"].values[index],
                shares=stored["layer_explained_variance_ratio"].values[index],
                states=int(counts),
            )
    return Bases(places=places, sample=sample)


def wants(run: StoredRun, plan: Bases) -> Wants:
    """Ask for projections on the components, and for squares, about the mean."""
    return Wants(
        layers=has_layers(run),
        directions={number: basis.components for number, basis in plan.places.items()},
        origins={number: basis.mean for number, basis in plan.places.items()},
    )


def measure(block: Block, plan: Bases) -> dict[str, np.ndarray]:
    """Project, and sum up the variance along the components and altogether."""
    start = first_iteration(block.run)
    length = start + len(block.run.kept_iterations)
    places, variance = _projected(block.state, block.shape, length, plan.places[STATE], start)
    arrays = {"projection": places, "variance": variance}
    if block.layers:
        found = [
            _projected(parts, block.shape, length - start, plan.places[number], 0)
            for number, parts in zip(block.run.recorded_layers, block.layers, strict=True)
        ]
        layers = np.stack([one for one, _ in found], axis=2)
        missing = np.full((*layers.shape[:3], start, layers.shape[-1]), np.nan, dtype=layers.dtype)
        arrays["layer_projection"] = np.concatenate([missing, layers], axis=3)
        arrays["layer_variance"] = np.stack([one for _, one in found], axis=2)
    return arrays


def _projected(
    parts: list[Moments], shape: tuple[int, int], length: int, basis: Basis, start: int
) -> tuple[np.ndarray, Floats]:
    """Places (restart, token, iteration, component), and variances (restart, token, component + 1).

    The variances are summed over the iterations from index `start`: along each component, and in
    all directions.
    """
    count, n = shape[0] * shape[1], len(basis.components)
    places = np.full((count, length, n), np.nan, dtype=np.float32)
    variance = np.full((count, n + 1), np.nan)
    for part in parts:
        if part.projected is None or part.from_origin2 is None:
            raise ValueError("these products were taken without projections")
        with np.errstate(over="ignore"):  # infinite where float32 ends
            places[part.rows] = part.projected
        variance[part.rows, :n] = (part.projected[:, start:] ** 2).sum(1)
        variance[part.rows, n] = part.from_origin2[:, start:].sum(1)
    return places.reshape(*shape, length, n), variance.reshape(*shape, n + 1)


def build(source: Source, plan: Bases, whole: dict[str, np.ndarray]) -> xr.Dataset:
    """Name the components, the variance of all states that they explain, and the projections."""
    run, state = source.run, plan.places[STATE]
    components, mean = _in_the_model(run, state)
    sums = ("restart", "token", "part")
    data = {
        "components": labelled(
            ("component", "d_model"), components, "principal directions", states=state.states
        ),
        "mean": labelled(("d_model",), mean, "mean state over iterations 1..T", "state units"),
        "explained_variance_ratio": labelled(
            ("component",), _shares(whole["variance"]), "share of the variance it explains"
        ),
        "projection": labelled(
            ("restart", "token", "iteration", "component"),
            whole["projection"],
            "loop state in the principal components",
            "state units",
        ),
        "variance": labelled(
            sums,
            whole["variance"],
            "sum of squares over the iterations: along each component, then in all directions",
            "state units squared",
        ),
    }
    names = coordinates(run, "restart", "token", "iteration", first_iteration=0)
    if "layer_projection" in whole:
        names |= coordinates(run, "layer")
        bases = [_in_the_model(run, plan.places[number]) for number in run.recorded_layers]
        variance = whole["layer_variance"]
        shares = [_shares(variance[:, :, layer]) for layer in range(variance.shape[2])]
        data |= {
            "layer_components": labelled(
                ("layer", "component", "d_model"),
                np.stack([one for one, _ in bases]),
                "principal directions after a layer",
            ),
            "layer_mean": labelled(
                ("layer", "d_model"),
                np.stack([one for _, one in bases]),
                "mean after a layer",
                "state units",
            ),
            "layer_explained_variance_ratio": labelled(
                ("layer", "component"),
                np.stack(shares),
                "share of the variance after a layer that a component explains",
            ),
            "layer_projection": labelled(
                ("restart", "token", "layer", "iteration", "component"),
                whole["layer_projection"],
                "residual stream after a layer in the components of that layer",
                "state units",
            ),
            "layer_variance": labelled(
                ("restart", "token", "layer", "part"),
                variance,
                "the same sums after a layer",
                "state units squared",
            ),
        }
    return xr.Dataset(data, coords={**names, "component": np.arange(len(components))})


def _shares(variance: Floats) -> Floats:
    """Shares of the components from sums (restart, token, component + 1); zeros if all is still."""
    sums = np.nansum(variance, axis=(0, 1))
    return sums[:-1] / sums[-1] if sums[-1] > 0 else np.zeros(len(sums) - 1)


def _in_the_model(run: StoredRun, basis: Basis) -> tuple[Floats, Floats]:
    """Components and mean in the d_model dimensions of the model."""
    reduction = run.reduction
    if reduction is None:
        return basis.components, basis.mean
    return basis.components @ reduction.basis, basis.mean @ reduction.basis + reduction.mean


def summarize(dataset: xr.Dataset, run: StoredRun) -> Summary:
    """Shares of variance of the loop states.

    ``first_component_share`` and ``components_share`` (all stored ones together), and
    ``participation_ratio``, the effective number of stored components.
    """
    shares = dataset["explained_variance_ratio"].values
    total = float(shares.sum())
    return {
        "first_component_share": float(shares[0]),
        "components_share": total,
        "participation_ratio": total**2 / float((shares**2).sum()) if total > 0 else float("nan"),
    }


ANALYZER = Analyzer(
    name="pca",
    version=3,
    title="Principal components",
    needs=needs_states,
    plan=plan,
    wants=wants,
    measure=measure,
    build=build,
    summarize=summarize,
    parameters=("n_components", "sample"),
    keep=keep,
)
