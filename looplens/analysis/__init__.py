"""Analyses: plain array functions, and labelled ones over a run.

The array functions take numpy arrays with any leading axes and know nothing of runs::

    looplens.analysis.classify(states).regime

The labelled ones read a run, return an xarray Dataset and can store it in the run::

    looplens.analysis.analyze(run)
    looplens.analysis.get(run, "classify")["regime"]
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from looplens.analysis.measures.attention import attention_change
from looplens.analysis.measures.convergence import Convergence, convergence
from looplens.analysis.measures.cycle import Cycle, cycle
from looplens.analysis.measures.kneedle import Knee, kneedle
from looplens.analysis.measures.loop_span import LoopSpan, angular_distance, choose_loop_span
from looplens.analysis.measures.path_independence import PathIndependence, path_independence
from looplens.analysis.measures.pca import PCAResult, pca
from looplens.analysis.measures.readout import prediction_flips, prediction_settling
from looplens.analysis.regimes.classifying import (
    REGIMES,
    Regimes,
    RegimeThresholds,
    classify,
)

if TYPE_CHECKING:
    from looplens.analysis.registry import ANALYZERS as ANALYZERS
    from looplens.analysis.registry import Analyzer as Analyzer
    from looplens.analysis.suite import analyze as analyze
    from looplens.analysis.suite import get as get
    from looplens.analysis.suite import summary as summary

# The labelled layer needs xarray; arrays alone do not wait for it.
_LABELLED = {
    "ANALYZERS": "registry",
    "Analyzer": "registry",
    "analyze": "suite",
    "get": "suite",
    "summary": "suite",
}

__all__ = [
    "ANALYZERS",
    "REGIMES",
    "Analyzer",
    "Convergence",
    "Cycle",
    "Knee",
    "LoopSpan",
    "PCAResult",
    "PathIndependence",
    "RegimeThresholds",
    "Regimes",
    "analyze",
    "angular_distance",
    "attention_change",
    "choose_loop_span",
    "classify",
    "convergence",
    "cycle",
    "get",
    "kneedle",
    "path_independence",
    "pca",
    "prediction_flips",
    "prediction_settling",
    "summary",
]


def __getattr__(name: str) -> Any:
    if name in _LABELLED:
        value = getattr(importlib.import_module(f"looplens.analysis.{_LABELLED[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'looplens.analysis' has no attribute {name!r}")


def __dir__() -> list[str]:
    return list(__all__)
