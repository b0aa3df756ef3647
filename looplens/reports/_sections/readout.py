"""The section on predictions: what the model would answer after each iteration.

The numbers are those of the analysis ``readout``.
"""

from __future__ import annotations

import numpy as np

from looplens import plots
from looplens.plots._labels import number, percent
from looplens.reports._material import Material
from looplens.reports._report import Fact, Picture, Section


def readout(material: Material) -> Section | None:
    """Return the section on predictions after each iteration."""
    if "readout" not in material:
        return None
    results, value = material["readout"], material.number
    by = "difficulty" if "accuracy_by_difficulty" in results else None
    facts = []
    if "prediction_settling" in results:
        facts.append(
            Fact(
                label="Prediction settles, median",
                value=number(value("readout", "median_prediction_settling")),
                note="first iteration from which on the best token stays the same",
            )
        )
    if np.isfinite(value("readout", "final_accuracy")):
        facts += [
            Fact(
                label="Accuracy at the last iteration",
                value=percent(value("readout", "final_accuracy")),
                note="tokens with a target",
            ),
            Fact(
                label="Best accuracy",
                value=percent(value("readout", "best_accuracy")),
                note=f"at iteration {number(value('readout', 'best_iteration'))}",
            ),
        ]
    return Section(
        key="readout",
        title="Predictions after each iteration",
        facts=tuple(facts),
        pictures=(
            Picture(
                name="readout",
                figure=plots.readout(material.run, by),
                caption="What the model would answer if the loop stopped there.",
            ),
        ),
    )
