"""The section on convergence: when tokens settle, and how it depends on their difficulty.

The numbers are those of the analysis ``convergence``; here they are chosen and written down.
"""

from __future__ import annotations

import numpy as np

from looplens import plots
from looplens.analysis import grouping
from looplens.plots._labels import number, percent
from looplens.reports._material import Material, telling_prompt
from looplens.reports._recorded import plural
from looplens.reports._report import Fact, Picture, Section, Table


def convergence(material: Material) -> Section | None:
    """Return the section on convergence: when tokens settle, and how."""
    if "convergence" not in material:
        return None
    run, results = material.run, material["convergence"]
    settling = results["settling_iteration"]
    groups = grouping.group_tokens(run)
    medians = grouping.median_by_group(settling, groups).values
    counts = [int((groups.number == group).sum()) for group in range(len(groups.labels))]
    rows = tuple(
        (label, str(count), number(median) if np.isfinite(median) else "half or more never settle")
        for label, count, median in zip(groups.labels, counts, medians, strict=True)
    )
    prompt = telling_prompt(material)
    pictures = [
        Picture(
            name="convergence",
            figure=plots.convergence_heatmap(run, prompt=prompt),
            caption=f"Prompt {prompt}, restart 0. A token that settles turns dark and stays dark; "
            "the ring is its settling iteration. A row that stays bright orbits or "
            "drifts.",
        ),
        Picture(
            name="settling",
            figure=plots.settling(run, groups.by),
            caption="One point a trajectory. Trajectories that never settle are counted as the "
            "latest in the median, so a median can be missing.",
        ),
    ]
    return Section(
        key="convergence",
        title="Convergence",
        facts=(
            Fact(
                label="Trajectories that settle",
                value=percent(material.number("convergence", "settled_share")),
                note=threshold_note(settling.attrs),
            ),
            Fact(
                label="Median settling iteration",
                value=number(material.number("convergence", "median_settling_iteration")),
                note=f"of {plural(run.iterations, 'iteration')}",
            ),
        ),
        tables=(
            Table(
                caption=f"Settling by {groups.by}",
                columns=(groups.by, "tokens", "median settling iteration"),
                rows=rows,
            ),
        ),
        pictures=tuple(pictures),
    )


def threshold_note(attributes: dict) -> str:
    """Return the note that names the tolerance of a settling iteration."""
    tolerance = attributes.get("tolerance", attributes.get("threshold"))
    return "" if tolerance is None else f"relative step below {number(float(tolerance))} to the end"
