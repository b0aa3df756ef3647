"""The facade: a stored run with the verbs that a notebook wants on it.

Each method is one call of the layer that does the work, imported when it is called, so that opening
a run stays quick.
"""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from looplens.store import StoredRun

if TYPE_CHECKING:
    import xarray as xr

    from looplens.analysis.comparing.comparison import Comparison
    from looplens.analysis.suite import Results


class Run(StoredRun):
    """A recorded run: labelled arrays, analyses, reports and the dashboard.

    Open one with `looplens.open_run`. Reading is documented on `looplens.store.StoredRun`.
    """

    def analyze(self, names: Any = None, **options: Any) -> Results:
        """Compute analyses and store them in the run; see `looplens.analysis.analyze`."""
        from looplens import analysis

        return analysis.analyze(self, names, **options)

    def results(self, name: str) -> xr.Dataset:
        """Return one analysis: the stored one when it is current, else computed now.

        See `looplens.analysis.get`.
        """
        from looplens import analysis

        return analysis.get(self, name)

    def summary(self) -> dict[str, dict[str, Any]]:
        """Return a few numbers of each analysis; see `looplens.analysis.summary`."""
        from looplens import analysis

        return analysis.summary(self)

    def compare(self, other: StoredRun, names: Any = None, **options: Any) -> Comparison:
        """Compare this run with another one of the same prompts; see `looplens.analysis.compare`.

        Differences are those of the other run less this one.
        """
        from looplens import analysis

        return analysis.compare(self, other, names, **options)

    def group_by(self, name: str, by: str | None = None, **options: Any) -> xr.Dataset:
        """Sum up an analysis in groups of tokens; see `looplens.analysis.group_by`."""
        from looplens import analysis

        return analysis.group_by(self, name, by, **options)

    def select(self, name: str, **place: Any) -> xr.Dataset:
        """Return a piece of an analysis with its tokens' texts; see `looplens.analysis.select`."""
        from looplens import analysis

        return analysis.select(self, name, **place)

    def report(self, out: str | os.PathLike[str], format: str = "html") -> Path:
        """Write a report of the run; see `looplens.reports.write_report`."""
        # Reports are a layer above this one, so they are imported by name and when called.
        return importlib.import_module("looplens.reports").write_report(self, out, format)

    def app(self, port: int | None = None, **options: Any) -> Any:
        """Open the dashboard on this run: below a cell of a notebook, else on a local port.

        See `looplens_dashboard.launch`. In a notebook it returns what runs, with ``url`` and
        ``stop()``; elsewhere it returns when it is interrupted.
        """
        return importlib.import_module("looplens_dashboard").launch(self, port=port, **options)


def open_run(path: str | os.PathLike[str], *, lazy: bool = False) -> Run:
    """Open a recorded run.

    Parameters
    ----------
    path : str or path
        The directory that was recorded to.
    lazy : bool
        Leave the numbers of stored analyses on disk until they are indexed; see `StoredRun`.

    Raises
    ------
    NotARunError
        If the path holds no run.
    SchemaVersionError
        If a newer looplens wrote the run.
    CorruptRunError
        If the run is damaged.
    """
    return Run(path, lazy=lazy)
