"""The one list of analyses over a run.

An analysis is a file in `looplens.analysis.analyzers` with an `Analyzer`, and a line here. What is
done with them (storing, fetching, summing up) is in `looplens.analysis.suite`.
"""

from __future__ import annotations

from looplens.analysis.analyzers import (
    attention_bound,
    attention_change,
    basins,
    change_points,
    classify,
    convergence,
    cycle,
    dmd,
    exits,
    geometry,
    input_dependence,
    lens,
    path_independence,
    pca,
    readout,
    recurrence,
    similarity,
    stages,
    token_collapse,
)
from looplens.analysis.analyzers._analyzer import Analyzer

# In the order in which they are computed and listed.
ANALYZERS: dict[str, Analyzer] = {
    analyzer.name: analyzer
    for analyzer in (
        convergence.ANALYZER,
        geometry.ANALYZER,
        recurrence.ANALYZER,
        change_points.ANALYZER,
        dmd.ANALYZER,
        token_collapse.ANALYZER,
        pca.ANALYZER,
        classify.ANALYZER,
        path_independence.ANALYZER,
        basins.ANALYZER,
        input_dependence.ANALYZER,
        cycle.ANALYZER,
        similarity.ANALYZER,
        attention_change.ANALYZER,
        attention_bound.ANALYZER,
        stages.ANALYZER,
        readout.ANALYZER,
        lens.ANALYZER,
        exits.ANALYZER,
    )
}
