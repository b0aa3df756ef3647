"""The section that sums tokens up by what came with them: difficulty, task, any other column.

The numbers are those of `looplens.analysis.group_by`.
"""

from __future__ import annotations

import numpy as np

from looplens import analysis
from looplens.analysis.grouped import final_accuracy
from looplens.analysis.grouping import Groups, group_tokens, metadata_columns
from looplens.errors import AnalysisError
from looplens.plots._labels import number, percent, visible_text
from looplens.reports._material import Material
from looplens.reports._report import Section, Table

_MOST_COLUMNS = 3
_NUMBERS = (
    ("convergence", "settling_iteration", "settles at"),
    ("convergence", "rate", "factor per iteration"),
    ("path_independence", "token_aa", "cosine of the limits"),
    ("readout", "prediction_settling", "prediction settles at"),
)


def groups(material: Material) -> Section | None:
    """Return the section on groups of tokens, where the prompts brought columns to group by."""
    columns = metadata_columns(material.run)
    tables = [_table(material, group_tokens(material.run, by)) for by in columns[:_MOST_COLUMNS]]
    if not tables:
        return None
    left = columns[_MOST_COLUMNS:]
    text = "Medians over the tokens of each group and over restarts; shares of trajectories."
    if left:
        text += f" Not shown: {', '.join(left)} (looplens analyze --by)."
    return Section(key="groups", title="Groups of tokens", text=(text,), tables=tuple(tables))


def _table(material: Material, found: Groups) -> Table:
    run, labels = material.run, found.labels
    counts = [int((found.number == group).sum()) for group in range(len(labels))]
    columns = {"tokens": [str(count) for count in counts]}
    if "classify" in material:
        shares = analysis.group_by(run, "classify", found.by, variables=("regime",))["regime_share"]
        for word in shares["regime"].values:
            of_word = shares.sel(regime=word).values
            if of_word.any():
                columns[str(word).replace("_", " ")] = [percent(share) for share in of_word]
    for name, variable, title in _NUMBERS:
        if name in material and variable in material[name]:
            try:
                values = analysis.group_by(run, name, found.by, variables=(variable,))[variable]
            except AnalysisError:
                continue
            medians = values.sel(statistic="median").values
            if np.isfinite(medians).any():
                columns[title] = [number(value) for value in medians]
    accuracy = final_accuracy(run, found) if "readout" in material else None
    if accuracy is not None:
        columns["right at the end"] = [percent(share) for share in accuracy]
    rows = zip(*columns.values(), strict=True)
    return Table(
        caption=f"By {found.by}",
        columns=(found.by, *columns),
        rows=tuple(
            (visible_text(label, most=24), *row) for label, row in zip(labels, rows, strict=True)
        ),
    )
