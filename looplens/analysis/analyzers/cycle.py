"""The limits of the core layers of every token, and how far apart they lie."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from looplens.analysis._cycle import cycle
from looplens.analysis.analyzers._analyzer import (
    Analyzer,
    Summary,
    blocks,
    coordinates,
    has_layers,
    labelled,
    needs_states,
    over_known,
    stack,
)

if TYPE_CHECKING:
    from looplens.store import StoredRun


def needs(run: StoredRun) -> str | None:
    """Ask for the residual stream after at least two core layers."""
    if not has_layers(run):
        return "The cycle needs the site 'resid_post'. Record with sites=('resid_post',)."
    if run.n_layers < 2:
        return "A cycle needs at least two core layers, and this model loops over one."
    return needs_states(run)


def compute(run: StoredRun) -> xr.Dataset:
    """Measure limits and distances of every token and restart."""
    names = ("distance", "movement", "separation_ratio", "degeneracy")
    parts = []
    for block in blocks(run):
        found = cycle(run.site("resid_post", tokens=block).values)
        parts.append({name: getattr(found, name) for name in names})
    whole = stack(parts, axis=1)
    pair = ("restart", "token")
    data = {
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
            pair, whole["separation_ratio"], "mean distance between layers over mean movement"
        ),
        "degeneracy": labelled(
            pair, whole["degeneracy"], "smallest cosine between the limits of layer 0 and another"
        ),
    }
    names_of_axes = coordinates(run, "restart", "token", "layer")
    return xr.Dataset(data, coords={**names_of_axes, "other_layer": np.arange(run.n_layers)})


def summarize(dataset: xr.Dataset, run: StoredRun) -> Summary:
    """Medians over all trajectories (restart x token) of the variables of the same name.

    ``median_distance`` is over trajectories and pairs of different layers; ``max_degeneracy`` is
    the token whose layers are most alike.
    """
    distance = dataset["distance"].values
    apart = distance[..., ~np.eye(distance.shape[-1], dtype=bool)]
    degeneracy = dataset["degeneracy"].values
    return {
        "median_separation_ratio": over_known(np.median, dataset["separation_ratio"].values),
        "median_degeneracy": over_known(np.median, degeneracy),
        "max_degeneracy": over_known(np.max, degeneracy),
        "median_distance": over_known(np.median, apart),
        "median_movement": over_known(np.median, dataset["movement"].values),
    }


ANALYZER = Analyzer(
    name="cycle",
    version=2,
    title="Cycle over the layers",
    needs=needs,
    compute=compute,
    summarize=summarize,
)
