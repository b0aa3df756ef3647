"""The limits of the core layers of every token, and how far apart they lie."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from looplens.analysis.analyzers._analyzer import (
    Analyzer,
    Source,
    Summary,
    coordinates,
    has_layers,
    labelled,
    needs_states,
    over_known,
)
from looplens.analysis.measures.cycle import cycle_of
from looplens.analysis.running.engine import Block, Wants

if TYPE_CHECKING:
    from looplens.store import StoredRun


# Limits that lie further apart than this many times the motion that is left are several points.
APART = 3.0


def needs(run: StoredRun) -> str | None:
    """Ask for the residual stream after at least two core layers."""
    if not has_layers(run):
        return "The cycle needs the site 'resid_post'. Record with sites=('resid_post',)."
    if len(run.recorded_layers) < 2:
        return (
            "A cycle needs at least two recorded core layers, and this run has "
            f"{len(run.recorded_layers)} of {run.n_layers}."
        )
    return needs_states(run)


def wants(run: StoredRun, plan: None) -> Wants:
    """Ask for the layers."""
    return Wants(state=False, layers=True)


def measure(block: Block, plan: None) -> dict[str, np.ndarray]:
    """Measure limits and distances of every token and restart."""
    layers, width = len(block.layers), block.run.width
    # One list of trajectories, token by token and in a token layer by layer.
    parts = [
        dataclasses.replace(part, rows=part.rows * layers + number)
        for number, layer in enumerate(block.layers)
        for part in layer
    ]
    restarts, tokens = block.shape
    found = cycle_of(parts, layers, restarts * tokens, width).reshaped(block.shape)
    names = ("limit_norm", "distance", "movement", "separation_ratio", "degeneracy")
    return {name: getattr(found, name) for name in names}


def build(source: Source, plan: None, whole: dict[str, np.ndarray]) -> xr.Dataset:
    """Name the numbers."""
    run, pair = source.run, ("restart", "token")
    data = {
        "limit_norm": labelled(
            (*pair, "layer"), whole["limit_norm"], "norm of the limit of each layer"
        ),
        "distance": labelled(
            (*pair, "layer", "other_layer"),
            whole["distance"],
            "distance between the limits of two layers over the mean of their norms",
        ),
        "movement": labelled(
            (*pair, "layer"),
            whole["movement"],
            "root-mean-square distance from the limit in the last quarter, over its norm",
        ),
        "separation_ratio": labelled(
            pair,
            whole["separation_ratio"],
            "mean distance between layers over mean movement",
            threshold=APART,
        ),
        "degeneracy": labelled(
            pair, whole["degeneracy"], "smallest cosine between the limits of layer 0 and another"
        ),
    }
    names_of_axes = coordinates(run, "restart", "token", "layer")
    return xr.Dataset(data, coords={**names_of_axes, "other_layer": names_of_axes["layer"]})


def summarize(dataset: xr.Dataset, run: StoredRun) -> Summary:
    """Medians over all trajectories (restart x token) of the variables of the same name.

    ``median_distance`` is over trajectories and pairs of different layers; ``max_degeneracy`` is
    the token whose layers are most alike, ``cyclic_share`` the share of trajectories with a
    separation ratio above 3: their layers have limits of their own.
    """
    distance = dataset["distance"].values
    apart = distance[..., ~np.eye(distance.shape[-1], dtype=bool)]
    degeneracy = dataset["degeneracy"].values
    ratio = dataset["separation_ratio"].values
    return {
        "cyclic_share": over_known(lambda known: (known > APART).mean(), ratio),
        "median_separation_ratio": over_known(np.median, ratio),
        "median_degeneracy": over_known(np.median, degeneracy),
        "max_degeneracy": over_known(np.max, degeneracy),
        "median_distance": over_known(np.median, apart),
        "median_movement": over_known(np.median, dataset["movement"].values),
    }


ANALYZER = Analyzer(
    name="cycle",
    version=4,
    title="Cycle over the layers",
    needs=needs,
    wants=wants,
    measure=measure,
    build=build,
    summarize=summarize,
)
