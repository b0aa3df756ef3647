"""What lenses showed inside the loop, as `looplens.lens` stored it: it needs the live model.

Nothing is computed here. The stored result is an analysis like the others so that summaries, the
report and the dashboard find it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from looplens.analysis.analyzers._analyzer import (
    Analyzer,
    Source,
    Summary,
    finite_or_none,
)
from looplens.errors import AnalysisError, CorruptRunError

if TYPE_CHECKING:
    from looplens.store import StoredRun

LENS_VERSION = 1
_MAKE_IT = (
    "Lenses need the live model: call looplens.lens(model, run, prompt=..., store=True) in Python."
)


def needs(run: StoredRun) -> str | None:
    """Ask for a result that was stored."""
    return None if "lens" in run.analyses else _MAKE_IT


def build(source: Source, plan: None, arrays: dict[str, np.ndarray]) -> xr.Dataset:
    """Return the stored result as it is.

    Raises
    ------
    AnalysisError
        If there is none, it is damaged, or another version of looplens stored it.
    """
    try:
        stored = source.run.analysis("lens")
    except CorruptRunError as error:
        raise AnalysisError(f"{error} {_MAKE_IT}") from error
    if stored is None or str(stored.attrs.get("version")) != str(LENS_VERSION):
        raise AnalysisError(f"The run holds no lenses of this version. {_MAKE_IT}")
    return stored


def summarize(dataset: xr.Dataset, run: StoredRun) -> Summary:
    """Return how often each lens shows the model's final prediction.

    ``<lens>_agreement`` is ``final_agreement`` at the last iteration, mean over layers,
    ``<lens>_last_layer`` after the last layer there; ``self_check_difference`` is the attribute.
    """
    found: Summary = {}
    last = dataset["final_agreement"].isel(iteration=-1)
    for name in dataset["lens"].values:
        found[f"{name}_agreement"] = finite_or_none(float(last.sel(lens=name).mean()))
        found[f"{name}_last_layer"] = finite_or_none(float(last.sel(lens=name).isel(layer=-1)))
    found["self_check_difference"] = dataset.attrs.get("self_check_difference")
    return found


ANALYZER = Analyzer(
    name="lens",
    version=LENS_VERSION,
    title="Lenses",
    needs=needs,
    build=build,
    summarize=summarize,
    standard=False,
)
