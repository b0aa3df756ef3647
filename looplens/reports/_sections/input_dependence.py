"""The section on input dependence: whether limits tell inputs apart."""

from __future__ import annotations

from looplens import plots
from looplens.plots._labels import number, percent
from looplens.reports._material import Material
from looplens.reports._report import Fact, Picture, Section


def input_dependence(material: Material) -> Section | None:
    """Return the section on input dependence; None without different inputs, or restarts."""
    value = material.number
    if "input_dependence" not in material or not value("input_dependence", "n_positions"):
        return None
    position = value("input_dependence", "min_share_position")
    return Section(
        key="input_dependence",
        title="Input dependence",
        text=(
            "The variance of the limits at one position, between inputs and between restarts of "
            "the same input. A loop that forgets its initial state need not remember its input: "
            "only the first of the two variances shows that.",
        ),
        facts=(
            Fact(
                label="Between inputs",
                value=percent(value("input_dependence", "share")),
                note="share of the variance of the limits, pooled over positions",
            ),
            Fact(
                label="Between inputs over between restarts",
                value=number(value("input_dependence", "score")),
                note="ratio of the variances",
            ),
            Fact(
                label=f"Position {position:.0f}" if position == position else "Least position",
                value=percent(value("input_dependence", "min_share")),
                note="share at the position that depends least on the input",
            ),
        ),
        pictures=(
            Picture(
                name="input_dependence",
                figure=plots.input_dependence(material.run),
                caption="The farther the upper curve lies above the lower one, the more the input "
                "alone decides where tokens end.",
            ),
        ),
    )
