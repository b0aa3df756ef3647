"""The one list of analyses over a run.

An analysis is a file in `looplens.analysis.analyzers` with an `Analyzer`, and a line here. What is
done with them (storing, fetching, summing up) is in `looplens.analysis.suite`.
"""

from __future__ import annotations

from looplens.analysis.analyzers import (
    attention_change,
    classify,
    convergence,
    cycle,
    path_independence,
    pca,
    readout,
)
from looplens.analysis.analyzers._analyzer import Analyzer

# In the order in which they are computed and listed.
ANALYZERS: dict[str, Analyzer] = {
    analyzer.name: analyzer
    for analyzer in (
        convergence.ANALYZER,
        pca.ANALYZER,
        classify.ANALYZER,
        path_independence.ANALYZER,
        cycle.ANALYZER,
        attention_change.ANALYZER,
        readout.ANALYZER,
    )
}
