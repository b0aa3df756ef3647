"""The section on steps: which way they go, whether the path returns, whether tokens grow alike.

The numbers are those of ``geometry``, ``recurrence``, ``change_points``, ``token_collapse`` and,
where it is stored, ``dmd``.
"""

from __future__ import annotations

import numpy as np

from looplens import plots
from looplens.plots._labels import cosine, number, percent
from looplens.reports._material import Material, telling_prompt
from looplens.reports._report import Fact, Picture, Section


def geometry(material: Material) -> Section | None:
    """Return the section on the geometry of steps."""
    if "geometry" not in material:
        return None
    prompt = telling_prompt(material)
    pictures = [
        Picture(
            name="step-cosines",
            figure=plots.step_cosines(material.run, prompt),
            caption=f"Prompt {prompt}, restart 0. A token that goes straight on has cosine 1, one "
            "that jumps to and fro −1; after the mark a row is rounding, whose steps have a cosine "
            "about −0.5.",
        )
    ]
    second = _second_picture(material, prompt)
    return Section(
        key="geometry",
        title="Step geometry",
        text=(
            "Medians are over all trajectories, and of the signal only: from iteration 2 on, "
            "without what is rounding.",
        ),
        facts=_facts(material),
        pictures=tuple(pictures + ([second] if second else [])),
    )


def _facts(material: Material) -> tuple[Fact, ...]:
    value = material.number
    facts = [
        Fact(
            label="Cosine of successive steps, median",
            value=cosine(value("geometry", "median_mean_step_cosine")),
            note="1 straight on, 0 aside, −1 straight back",
        ),
        Fact(
            label="Straightness, median",
            value=number(value("geometry", "median_straightness")),
            note="distance from the first to the last state over the path between",
        ),
    ]
    ratio = value("geometry", "median_two_scale_ratio")
    if np.isfinite(ratio):
        facts.append(
            Fact(
                label="Two-scale ratio, median",
                value=number(ratio),
                note="jump to the next layer over the mean step of a layer between iterations",
            )
        )
    if "recurrence" in material:
        closed = material["recurrence"]["closest_return"].attrs["threshold"]
        facts.append(
            Fact(
                label="Paths that close",
                value=percent(value("recurrence", "closed_share")),
                note=f"chord over arc below {number(closed)} in the last half; "
                f"{percent(value('recurrence', 'moving_share'))} still move there",
            )
        )
    if "change_points" in material:
        first = value("change_points", "median_first_change")
        facts.append(
            Fact(
                label="Trajectories whose pace changes",
                value=percent(value("change_points", "changing_share")),
                note=f"first at iteration {number(first)} (median)" if np.isfinite(first) else "",
            )
        )
    if "token_collapse" in material:
        facts.append(
            Fact(
                label="Cosine between tokens at the end, median",
                value=cosine(value("token_collapse", "median_token_cosine")),
                note=f"largest {cosine(value('token_collapse', 'max_token_cosine'))}; "
                "1 is a prompt whose tokens have become one",
            )
        )
    if "dmd" in material:
        facts.append(
            Fact(
                label="Modulus of the largest mode, median",
                value=number(value("dmd", "median_modulus")),
                note=f"{percent(value('dmd', 'turning_share'))} of the largest modes turn",
            )
        )
    return tuple(facts)


def _second_picture(material: Material, prompt: int) -> Picture | None:
    """Return what is most worth seeing: collapse, then eigenvalues, then a path that closes."""
    run = material.run
    if material.number("token_collapse", "collapsed_share") > 0:
        last = material["token_collapse"]["token_cosine"].isel(restart=0, iteration=-1).values
        worst = int(np.nanargmax(last)) if np.isfinite(last).any() else prompt
        return Picture(
            name="token-collapse",
            figure=plots.token_collapse(run, worst),
            caption=f"Prompt {worst} has the largest cosine at the end.",
        )
    if "dmd" in material:
        return Picture(
            name="dmd",
            figure=plots.dmd(run, prompt),
            caption="Modes on the circle last, modes inside die out; the angle is the turn per "
            "iteration.",
        )
    if material.number("recurrence", "closed_share") > 0:
        closest = material["recurrence"]["closest_return"].isel(restart=0).values
        if np.isfinite(closest).any():
            token = int(np.nanargmin(closest))
            return Picture(
                name="recurrence",
                figure=plots.recurrence(run, token),
                caption="The token whose path comes back the closest. Diagonals are a period, a "
                "block is rest.",
            )
    return None
