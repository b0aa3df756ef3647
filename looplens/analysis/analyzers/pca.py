"""One set of principal components for all tokens of a run, stored so that all viewers see the same.

Fitted on iterations 1..T: the random start would take the first components for itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from looplens.analysis._gram import Floats
from looplens.analysis._pca import Covariance, project
from looplens.analysis.analyzers._analyzer import (
    Analyzer,
    Summary,
    blocks,
    coordinates,
    has_layers,
    labelled,
    needs_states,
)

if TYPE_CHECKING:
    from looplens.store import StoredRun

Read = Callable[[slice], np.ndarray]


def compute(run: StoredRun, *, n_components: int = 6) -> xr.Dataset:
    """Fit components to loop states, and to the residual stream after each layer."""

    def boundary(block: slice) -> np.ndarray:
        return run.state(tokens=block).values  # restart token iteration d_model

    components, shares, mean = _fit(run, lambda block: boundary(block)[:, :, 1:], n_components)
    places = _project(run, boundary, components, mean)
    per_component = ("component",)
    data = {
        "components": labelled((*per_component, "d_model"), components, "principal directions"),
        "mean": labelled(("d_model",), mean, "mean state over iterations 1..T", "state units"),
        "explained_variance_ratio": labelled(
            per_component, shares, "share of the variance that a component explains"
        ),
        "projection": labelled(
            ("restart", "token", "iteration", "component"),
            places,
            "loop state in the principal components",
            "state units",
        ),
    }
    if has_layers(run):
        data |= _layers(run, n_components)
    names = coordinates(run, "restart", "token", "iteration", first_iteration=0)
    if has_layers(run):
        names |= coordinates(run, "layer")
    return xr.Dataset(data, coords={**names, "component": np.arange(len(shares))})


def _layers(run: StoredRun, n_components: int) -> dict[str, xr.Variable]:
    found: dict[str, list[np.ndarray]] = {"components": [], "mean": [], "shares": [], "places": []}
    for layer in range(run.n_layers):

        def after_layer(block: slice, layer: int = layer) -> np.ndarray:
            return run.site("resid_post", tokens=block, layer=layer).values

        components, shares, mean = _fit(run, after_layer, n_components)
        places = _project(run, after_layer, components, mean)
        start = np.full((*places.shape[:2], 1, places.shape[-1]), np.nan, dtype=places.dtype)
        found["components"].append(components)
        found["mean"].append(mean)
        found["shares"].append(shares)
        found["places"].append(np.concatenate([start, places], axis=2))
    return {
        "layer_components": labelled(
            ("layer", "component", "d_model"),
            np.stack(found["components"]),
            "principal directions after a layer",
        ),
        "layer_mean": labelled(
            ("layer", "d_model"), np.stack(found["mean"]), "mean after a layer", "state units"
        ),
        "layer_explained_variance_ratio": labelled(
            ("layer", "component"),
            np.stack(found["shares"]),
            "share of the variance after a layer that a component explains",
        ),
        "layer_projection": labelled(
            ("restart", "token", "layer", "iteration", "component"),
            np.stack(found["places"], axis=2),
            "residual stream after a layer in the components of that layer",
            "state units",
        ),
    }


def _fit(run: StoredRun, read: Read, n_components: int) -> tuple[Floats, Floats, Floats]:
    covariance = Covariance(run.d_model)
    for block in blocks(run):
        covariance.add(read(block))
    components, shares = covariance.components(n_components)
    return components, shares, covariance.mean


def _project(run: StoredRun, read: Read, components: Floats, mean: Floats) -> np.ndarray:
    places = [project(read(block), components, mean).astype(np.float32) for block in blocks(run)]
    return np.concatenate(places, axis=1)


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
    version=1,
    title="Principal components",
    needs=needs_states,
    compute=compute,
    summarize=summarize,
    parameters=("n_components",),
)
