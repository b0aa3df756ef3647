"""The section on basins: how many places restarts end in, and which restarts end where."""

from __future__ import annotations

import numpy as np

from looplens import plots
from looplens.plots._labels import number, percent
from looplens.reports._material import Material
from looplens.reports._report import Fact, Picture, Section


def basins(material: Material) -> Section | None:
    """Return the section on basins; None with a single restart."""
    if "basins" not in material:
        return None
    run, results, value = material.run, material["basins"], material.number
    count = results["basin_count"].values
    several = np.nan_to_num(count) > 1
    phase = value("basins", "out_of_phase_share")
    facts = [
        Fact(
            label="Tokens with several basins",
            value=percent(value("basins", "several_basins_share")),
            note=f"among {run.restarts} restarts; a basin that none of them fell into is not seen",
        ),
        Fact(
            label="Not decided yet",
            value=percent(value("basins", "undecided_share")),
            note="share of tokens whose restarts are apart and may yet meet",
        ),
        Fact(
            label="Most ways in which a prompt ends",
            value=number(value("basins", "max_prompt_basins")),
            note="restarts count as one if they share a basin at every token",
        ),
    ]
    if np.isfinite(phase):
        facts.append(
            Fact(
                label="Same orbit, other phase",
                value=percent(phase),
                note="share of the restarts that join an orbit which an earlier one is on",
            )
        )
    pictures: tuple[Picture, ...] = ()
    if several.any():
        prompts = run.tokens["prompt"].values[several]
        prompt = int(np.bincount(prompts.astype(np.int64)).argmax())
        pictures = (
            Picture(
                name="basins",
                figure=plots.basins(run, prompt),
                caption=f"Prompt {prompt}, where the most tokens have restarts that are apart.",
            ),
        )
    return Section(
        key="basins",
        title="Basins",
        text=(
            "Restarts share a basin if the states that they visit at the end are the same, as far "
            "as rounding, movement and sampling let one tell. On an orbit, the phase does not "
            "count.",
        ),
        facts=tuple(facts),
        pictures=pictures,
    )
