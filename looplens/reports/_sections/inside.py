"""The sections on what happens inside an iteration: limits of the layers, and attention.

The numbers are those of the analyses ``cycle`` and ``attention_change``.
"""

from __future__ import annotations

import numpy as np

from looplens import plots
from looplens.plots._labels import cosine, number
from looplens.reports._material import Material, telling_prompt
from looplens.reports._report import Fact, Picture, Section


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
    return Section(
        key="cycle",
        title="Cycle over the layers",
        text=(
            "When the loop settles, every layer settles at a point of its own, and an iteration "
            "visits them in turn. Layers that all share one point add nothing any more.",
        ),
        facts=(
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
        ),
        pictures=tuple(pictures),
    )


def attention(material: Material) -> Section | None:
    """Return the section on attention, if it was recorded."""
    if "attention_change" not in material:
        return None
    run = material.run
    change = material["attention_change"]["change"]
    known = np.isfinite(change.values).any(tuple(range(1, change.ndim)))
    readable = tuple(int(prompt) for prompt in change["prompt"].values[known])
    if not readable:  # what is lost is counted with the damage
        return None
    prompt = telling_prompt(material, readable)
    layer, last = run.recorded_layers[0], run.kept_iterations[-1]
    first = int(material["attention_change"]["iteration"].values[0])
    return Section(
        key="attention",
        title="Attention",
        facts=(
            Fact(
                label=f"Change at iteration {last}",
                value=number(material.number("attention_change", "final_change")),
                note="total variation, mean over heads and queries; 0 is no change",
            ),
            Fact(
                label=f"Change at iteration {first}",
                value=number(material.number("attention_change", "first_change")),
                note="the same measure, for comparison",
            ),
        ),
        pictures=(
            Picture(
                name="attention-change",
                figure=plots.attention_change(run, prompt),
                caption="Attention that stabilises turns dark. Total variation is half the sum "
                "of the absolute differences of the weights, between 0 and 1.",
            ),
            Picture(
                name="attention",
                figure=plots.attention(run, prompt, last, layer),
                caption=f"Prompt {prompt} at iteration {last}, layer {layer}, mean over heads.",
            ),
        ),
    )
