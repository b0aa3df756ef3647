"""The section on stages of inference: what attention and the residual stream do, layer by layer.

The numbers are those of the analysis ``stages``.
"""

from __future__ import annotations

import numpy as np

from looplens import plots
from looplens.plots._labels import number, percent
from looplens.reports._material import Material
from looplens.reports._report import Fact, Picture, Section


def stages(material: Material) -> Section | None:
    """Return the section on stages of inference, if any of them could be measured."""
    if "stages" not in material:
        return None
    run, value = material.run, material.number
    known = [
        Fact(label=label, value=written, note=note)
        for key, label, written, note in (
            (
                "final_concentration",
                "Concentration of attention",
                number(value("stages", "final_concentration")),
                "0 is uniform attention, below 0 is more evenly spread over keys",
            ),
            (
                "final_sink_rate",
                "Heads with a sink",
                percent(value("stages", "final_sink_rate")),
                "heads of which one key gets at least 30 % of all attention",
            ),
            (
                "final_mixing",
                "Mixing",
                f"{number(value('stages', 'final_mixing'))} nats",
                "entropy of a query's attention; 0 reads one key",
            ),
            (
                "final_matrix_entropy",
                "Matrix entropy of the residual stream",
                f"{number(value('stages', 'final_matrix_entropy'))} nats",
                "0 is all tokens on one line",
            ),
            (
                "first_loop_similarity",
                "First loop like the last",
                number(value("stages", "first_loop_similarity")),
                "correlation of their profiles over layers, mean over stages",
            ),
        )
        if np.isfinite(value("stages", key))
    ]
    if not known:
        return None
    prompts = int(value("stages", "stage_prompts"))
    short = int(value("stages", "short_prompts"))
    text = [
        "The layers of a feed-forward model do different things from the first to the last. A "
        "loop may go through these stages again in every iteration, or spread them out. Means over "
        f"{prompts} prompt{'s' if prompts > 1 else ''}, at iteration {run.kept_iterations[-1]}."
    ]
    if short:
        text.append(
            f"{short} of them {'are' if short > 1 else 'is'} too short for sinks: even uniform "
            "attention gives the first key 30 % there."
        )
    return Section(
        key="stages",
        title="Stages of inference",
        text=tuple(text),
        facts=tuple(known),
        pictures=(
            Picture(
                name="stages",
                figure=plots.stages(run),
                caption="Every layer of every iteration. Dotted: uniform attention over the "
                "visible tokens. A pattern that repeats is a loop that goes through its stages "
                "again.",
            ),
        ),
    )
