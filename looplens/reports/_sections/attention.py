"""The sections on attention: whether it settles, and how far below its bound it changes.

The numbers are those of the analyses ``attention_change`` and, where stored, ``attention_bound``.
"""

from __future__ import annotations

import numpy as np
import xarray as xr

from looplens import plots
from looplens.plots._labels import number, percent
from looplens.reports._material import Material, telling_prompt
from looplens.reports._report import Fact, Picture, Section


def attention(material: Material) -> Section | None:
    """Return the section on attention, if it was recorded."""
    if "attention_change" not in material:
        return None
    run = material.run
    change = material["attention_change"]["change"]
    readable = _known_prompts(change)
    if not readable:  # what is lost is counted with the damage
        return None
    prompt = telling_prompt(material, readable)
    layer, last = run.recorded_layers[0], run.kept_iterations[-1]
    first = int(material["attention_change"]["iteration"].values[0])
    tolerance = material["attention_change"]["settling_iteration"].attrs["tolerance"]
    median = material.number("attention_change", "median_settling_iteration")
    return Section(
        key="attention",
        title="Attention",
        facts=(
            Fact(
                label=f"Change at iteration {last}",
                value=number(material.number("attention_change", "final_change")),
                note="total variation, mean over heads and queries; 0 is no change. At iteration "
                f"{first}: {number(material.number('attention_change', 'first_change'))}",
            ),
            Fact(
                label="Heads that settle",
                value=percent(material.number("attention_change", "settled_share")),
                note=f"stay within {number(tolerance)} of their limit to the end; over layers, "
                "prompts and restarts",
            ),
            Fact(
                label="Median settling iteration of a head",
                value=number(median) if np.isfinite(median) else "half or more never settle",
                note=f"of {run.iterations}",
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


def attention_bound(material: Material) -> Section | None:
    """Return the section on the bound of the change of attention, if it was computed."""
    if "attention_bound" not in material:
        return None
    readable = _known_prompts(material["attention_bound"]["bound"])
    if not readable:
        return None
    prompt = telling_prompt(material, readable)
    value = material.number
    return Section(
        key="attention_bound",
        title="Bound on the change of attention",
        text=(
            "Attention cannot change faster than its input: the change of each map is bounded by "
            "the change of the states, times the norms of the weights. How far below the bound it "
            "stays says how little of that freedom is used.",
        ),
        facts=(
            Fact(
                label="Slack, median",
                value=number(value("attention_bound", "median_slack")),
                note="bound over measured change, of changes beyond rounding",
            ),
            Fact(
                label="Slack, least",
                value=number(value("attention_bound", "least_slack")),
                note="1 would be a change as large as it can be",
            ),
            Fact(
                label="Changes above the bound",
                value=percent(value("attention_bound", "violated_share")),
                note="anything but 0 is a fault of the recording",
            ),
        ),
        pictures=(
            Picture(
                name="attention-bound",
                figure=plots.attention_bound(material.run, prompt),
                caption="Left the head that comes closest to its bound; right all heads of the "
                "layer, below the diagonal by their slack.",
            ),
        ),
    )


def _known_prompts(values: xr.DataArray) -> tuple[int, ...]:
    """Return the prompts of which something is known."""
    by_prompt = values.transpose("prompt", ...)
    known = np.isfinite(by_prompt.values).any(tuple(range(1, by_prompt.ndim)))
    return tuple(int(prompt) for prompt in by_prompt["prompt"].values[known])
