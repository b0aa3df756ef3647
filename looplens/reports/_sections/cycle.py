"""The section on the layers: the limit of each, and how alike they are over virtual depth.

The numbers are those of the analyses ``cycle``, ``classify`` and, where stored, ``similarity``.
"""

from __future__ import annotations

import numpy as np

from looplens import plots
from looplens.plots._labels import cosine, number, percent
from looplens.reports._material import Material
from looplens.reports._report import Fact, Picture, Section, Table

_MOST_ROWS = 24


def cycle(material: Material) -> Section | None:
    """Return the section on the limits of the layers."""
    if "cycle" not in material or len(material.run.recorded_layers) < 2:
        return None
    run, results, value = material.run, material["cycle"], material.number
    ratio = results["separation_ratio"].isel(restart=0).values
    settled = np.isfinite(ratio)
    if "classify" in material:
        settled &= material["classify"]["regime"].isel(restart=0).values == "fixed_point"
    candidates = np.flatnonzero(settled)
    pictures = []
    if candidates.size:
        typical = int(candidates[np.argsort(ratio[candidates])[candidates.size // 2]])
        pictures.append(
            Picture(
                name="cycle",
                figure=plots.cycle(run, typical),
                caption="The settled token with the middle separation ratio. Large markers are "
                "the limits of the layers, small ones the states on the way there; the "
                "lighter arrow passes the loop boundary.",
            )
        )
    if "similarity" in material and material["similarity"].sizes["prompt"]:
        pictures.append(
            Picture(
                name="similarity",
                figure=plots.similarity(run),
                caption="Every layer of every iteration against every other one. Dark diagonals "
                "beside the main one are layers that repeat themselves an iteration later.",
            )
        )
    return Section(
        key="cycle",
        title="Cycle over the layers",
        text=(
            "When the loop settles, every layer settles at a point of its own, and an iteration "
            "visits them in turn. Layers that all share one point add nothing any more.",
        ),
        facts=(
            Fact(
                label="Trajectories with a limit a layer",
                value=percent(value("cycle", "cyclic_share")),
                note="separation ratio above "
                f"{number(results['separation_ratio'].attrs['threshold'])}",
            ),
            Fact(
                label="Separation ratio, median",
                value=number(value("cycle", "median_separation_ratio")),
                note="mean distance between limits over the motion that is left",
            ),
            Fact(
                label="Degeneracy, median",
                value=cosine(value("cycle", "median_degeneracy")),
                note=f"smallest cosine between the limits of layer {run.recorded_layers[0]} and "
                "another; 1 is one shared point",
            ),
            *_bands(material),
        ),
        tables=(_by_layer(material),),
        pictures=tuple(pictures),
    )


def _by_layer(material: Material) -> Table:
    """One row a layer: does it settle, where, and how far is it to the next one."""
    results = material["cycle"].transpose("restart", "token", "layer", "other_layer")
    layers = results["layer"].values
    regimes = None
    if "classify" in material and "layer_regime" in material["classify"]:
        regimes = material["classify"]["layer_regime"].transpose("restart", "token", "layer").values
    known = np.isfinite(results["movement"].values).all(-1)
    rows = []
    for place, layer in enumerate(layers[:_MOST_ROWS]):
        following = (place + 1) % len(layers)
        chosen = results.isel(layer=place)
        numbers = [
            chosen["limit_norm"].values,
            chosen["distance"].isel(other_layer=following).values,
            chosen["movement"].values,
        ]
        settled = "–"
        if regimes is not None and known.any():
            settled = percent(float((regimes[..., place][known] == "fixed_point").mean()))
        rows.append(
            (
                str(layer),
                settled,
                *(number(float(np.median(n[known]))) if known.any() else "–" for n in numbers),
            )
        )
    left = len(layers) - len(rows)
    return Table(
        caption="Limits of the layers, medians over all trajectories"
        + (f" (the first {len(rows)} of {len(layers)} layers)" if left else ""),
        columns=("layer", "fixed points", "|limit|", "distance to the next", "motion left"),
        rows=tuple(rows),
    )


def _bands(material: Material) -> tuple[Fact, ...]:
    contrast = material.number("similarity", "median_state_contrast")
    if not np.isfinite(contrast):
        return ()
    return (
        Fact(
            label="Contrast of the band, states",
            value=cosine(contrast),  # close to 1 in a settled loop
            note="1: layers repeat themselves and differ among each other; 0: no band",
        ),
    )
