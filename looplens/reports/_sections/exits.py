"""The section on exit rules: what leaving early would have cost and kept.

The numbers are those of the analysis ``exits``.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from looplens import plots
from looplens.analysis import EXIT_RULES
from looplens.analysis.analyzers.exits import safe_policies
from looplens.plots._labels import number, percent
from looplens.reports._material import Material
from looplens.reports._report import Fact, Picture, Section, Table


def exits(material: Material) -> Section | None:
    """Return the section on exit rules, simulated on the recording."""
    if "exits" not in material or not np.isfinite(material["exits"]["iterations"].values).any():
        return None
    results = material["exits"]
    summary = material.summary["exits"]
    facts = []
    if "best_rule" in summary:
        facts.append(
            Fact(
                label="Cheapest rule that loses next to nothing",
                value=str(summary["best_rule"]),
                note="rule and threshold, within one point of the best "
                + ("accuracy" if "accuracy" in results else "agreement with full depth"),
            )
        )
    for key, label in (
        ("best_accuracy_per_gflop", "Accuracy per 10⁹ operations there"),
        ("full_accuracy_per_gflop", "Accuracy per 10⁹ operations at full depth"),
    ):
        if np.isfinite(material.number("exits", key)):
            facts.append(Fact(label=label, value=number(material.number("exits", key))))
    return Section(
        key="exits",
        title="Exit rules",
        text=(
            "Each rule is simulated on this recording, every token on its own, as if the others "
            "went on. A rule that looks at predictions pays for a readout in every iteration.",
        ),
        facts=tuple(facts),
        tables=(_table(material),),
        pictures=(
            Picture(
                name="exits",
                figure=plots.exits(material.run),
                caption="Every rule over its thresholds; large symbols are the defaults. What lies "
                "on the grey stairs is beaten by nothing else.",
            ),
        ),
    )


def _table(material: Material) -> Table:
    """List each rule at its default threshold, and where it loses next to nothing."""
    results = material["exits"]
    safe = safe_policies(results)
    rules = [str(rule) for rule in results["rule"].values]
    places: list[int] = []
    for rule in dict.fromkeys(rules):
        mine = [place for place, name in enumerate(rules) if name == rule]
        default = [place for place in mine if bool(results["is_default"].values[place])]
        # Fixed depth has no default; its full depth is what the others are held against.
        places += default or mine[-1:]
        if rule in safe and safe[rule] not in places:
            places.append(safe[rule])
    columns: dict[str, tuple[str, Callable[[float], str]]] = {
        "iterations": ("iterations", number),
        "gflops": ("10⁹ operations a token", number),
        "accuracy": ("accuracy", percent),
        "accuracy_per_gflop": ("accuracy per 10⁹ operations", number),
        "nll": ("NLL (nats)", number),
        "agreement": ("same as full depth", percent),
    }
    shown = {name: column for name, column in columns.items() if name in results}
    rows = []
    for place in places:
        rule, threshold = rules[place], float(results["threshold"].values[place])
        title = EXIT_RULES[rule].title if rule in EXIT_RULES else rule
        marks = " *" if safe.get(rule) == place else ""
        values = [write(float(results[name].values[place])) for name, (_, write) in shown.items()]
        rows.append((title, number(threshold) + marks, *values))
    return Table(
        caption="Each rule at its default threshold (fixed depth: in full), and marked * the "
        "cheapest threshold that comes within one point of the best.",
        columns=("rule", "threshold", *(title for title, _ in shown.values())),
        rows=tuple(rows),
    )
