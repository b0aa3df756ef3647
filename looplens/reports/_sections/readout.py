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
        if value("readout", "overthinking") > 0:
            facts.append(
                Fact(
                    label="Settled, then lost",
                    value=percent(value("readout", "lost_share")),
                    note="of targets that were right at some iteration and are wrong at the last",
                )
            )
        if np.isfinite(value("readout", "final_accuracy_per_gflop")):
            facts.append(
                Fact(
                    label="Accuracy per 10⁹ operations",
                    value=number(value("readout", "final_accuracy_per_gflop")),
                    note="at the last iteration; at the best one "
                    + number(value("readout", "best_accuracy_per_gflop")),
                )
            )
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
            Picture(
                name="prediction-agreement",
                figure=plots.prediction_agreement(material.run),
                caption="Blocks along the diagonal are stretches in which the answers stay.",
            ),
        ),
    )
