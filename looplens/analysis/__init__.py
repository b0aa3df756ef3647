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

from looplens.analysis.measures.attention import (
    AttentionSettling,
    attention_change,
    attention_settling,
)
from looplens.analysis.measures.attention_bound import AttentionBound, attention_bound
from looplens.analysis.measures.basins import Basins, basins
from looplens.analysis.measures.change_points import ChangePoints, change_points
from looplens.analysis.measures.collapse import TokenCollapse, token_collapse
from looplens.analysis.measures.convergence import Convergence, convergence
from looplens.analysis.measures.cycle import Cycle, cycle
from looplens.analysis.measures.dmd import DMD, dmd
from looplens.analysis.measures.exit_signals import (
    gate_signals,
    readout_signals,
    state_signals,
)
from looplens.analysis.measures.exits import EXIT_RULES, exit_iteration, pareto_front
from looplens.analysis.measures.flops import Flops, flops
from looplens.analysis.measures.input_dependence import InputDependence, input_dependence
from looplens.analysis.measures.kneedle import Knee, kneedle
from looplens.analysis.measures.loop_span import LoopSpan, angular_distance, choose_loop_span
from looplens.analysis.measures.path_independence import PathIndependence, path_independence
from looplens.analysis.measures.pca import PCAResult, pca
from looplens.analysis.measures.power import Power, power_of
from looplens.analysis.measures.readout import (
    Overthinking,
    agreement_matrix,
    carried,
    last_right,
    overthinking,
    prediction_flips,
    prediction_settling,
)
from looplens.analysis.measures.recurrence import (
    Recurrence,
    dominant_frequency,
    recurrence,
    recurrence_matrix,
)
from looplens.analysis.measures.similarity import (
    DepthSimilarity,
    attention_distance,
    band_contrast,
    depth_similarity,
)
from looplens.analysis.measures.stages import (
    AttentionStages,
    attention_stages,
    matrix_entropy,
    sink_rate,
)
from looplens.analysis.measures.steps import Geometry, geometry
from looplens.analysis.measures.two_scale import two_scale_ratio
from looplens.analysis.regimes.classifying import (
    KINDS_OF_REGIMES,
    REGIMES,
    Regimes,
    RegimeThresholds,
    classify,
)

if TYPE_CHECKING:
    from looplens.analysis.attention_views import attention_difference as attention_difference
    from looplens.analysis.attention_views import attention_maps as attention_maps
    from looplens.analysis.comparing.compare import compare as compare
    from looplens.analysis.comparing.comparison import Comparison as Comparison
    from looplens.analysis.comparing.of_prompt import compare_prompt as compare_prompt
    from looplens.analysis.comparing.of_prompt import shared_tokens as shared_tokens
    from looplens.analysis.comparing.of_prompt import state_distance as state_distance
    from looplens.analysis.feed_forward import compare_stages as compare_stages
    from looplens.analysis.grouped import group_by as group_by
    from looplens.analysis.per_token.catalogue import token_statistics as token_statistics
    from looplens.analysis.per_token.known import TokenStatistic as TokenStatistic
    from looplens.analysis.per_token.matching import matches as matches
    from looplens.analysis.per_token.matching import next_match as next_match
    from looplens.analysis.per_token.readouts import candidates as candidates
    from looplens.analysis.per_token.readouts import prediction_changes as prediction_changes
    from looplens.analysis.per_token.readouts import token_readout as token_readout
    from looplens.analysis.per_token.values import token_values as token_values
    from looplens.analysis.per_token.values import value_range as value_range
    from looplens.analysis.per_token.values import word_counts as word_counts
    from looplens.analysis.projecting import projection as projection
    from looplens.analysis.registry import ANALYZERS as ANALYZERS
    from looplens.analysis.registry import Analyzer as Analyzer
    from looplens.analysis.restart_views import restart_curves as restart_curves
    from looplens.analysis.restart_views import restart_overview as restart_overview
    from looplens.analysis.selecting import select as select
    from looplens.analysis.suite import analyze as analyze
    from looplens.analysis.suite import get as get
    from looplens.analysis.suite import summary as summary

# The labelled layer needs xarray; arrays alone do not wait for it.
_LABELLED = {
    "attention_difference": "attention_views",
    "attention_maps": "attention_views",
    "ANALYZERS": "registry",
    "Analyzer": "registry",
    "Comparison": "comparing.comparison",
    "TokenStatistic": "per_token.known",
    "candidates": "per_token.readouts",
    "matches": "per_token.matching",
    "next_match": "per_token.matching",
    "prediction_changes": "per_token.readouts",
    "token_readout": "per_token.readouts",
    "token_statistics": "per_token.catalogue",
    "token_values": "per_token.values",
    "value_range": "per_token.values",
    "word_counts": "per_token.values",
    "compare": "comparing.compare",
    "compare_prompt": "comparing.of_prompt",
    "shared_tokens": "comparing.of_prompt",
    "state_distance": "comparing.of_prompt",
    "group_by": "grouped",
    "projection": "projecting",
    "restart_curves": "restart_views",
    "restart_overview": "restart_views",
    "select": "selecting",
    "compare_stages": "feed_forward",
    "analyze": "suite",
    "get": "suite",
    "summary": "suite",
}

__all__ = [
    "ANALYZERS",
    "DMD",
    "EXIT_RULES",
    "KINDS_OF_REGIMES",
    "REGIMES",
    "Analyzer",
    "AttentionBound",
    "AttentionSettling",
    "AttentionStages",
    "Basins",
    "ChangePoints",
    "Convergence",
    "Cycle",
    "DepthSimilarity",
    "Flops",
    "Geometry",
    "InputDependence",
    "Knee",
    "LoopSpan",
    "Overthinking",
    "PCAResult",
    "PathIndependence",
    "Power",
    "Recurrence",
    "RegimeThresholds",
    "Regimes",
    "TokenCollapse",
    "TokenStatistic",
    "agreement_matrix",
    "analyze",
    "angular_distance",
    "attention_bound",
    "attention_change",
    "attention_difference",
    "attention_distance",
    "attention_maps",
    "attention_settling",
    "attention_stages",
    "band_contrast",
    "basins",
    "candidates",
    "carried",
    "change_points",
    "choose_loop_span",
    "classify",
    "compare",
    "compare_prompt",
    "compare_stages",
    "convergence",
    "cycle",
    "depth_similarity",
    "dmd",
    "dominant_frequency",
    "exit_iteration",
    "flops",
    "gate_signals",
    "geometry",
    "get",
    "group_by",
    "input_dependence",
    "kneedle",
    "last_right",
    "matches",
    "matrix_entropy",
    "next_match",
    "overthinking",
    "pareto_front",
    "path_independence",
    "pca",
    "power_of",
    "prediction_changes",
    "prediction_flips",
    "prediction_settling",
    "projection",
    "readout_signals",
    "recurrence",
    "recurrence_matrix",
    "restart_curves",
    "restart_overview",
    "select",
    "shared_tokens",
    "sink_rate",
    "state_distance",
    "state_signals",
    "summary",
    "token_collapse",
    "token_readout",
    "token_statistics",
    "token_values",
    "two_scale_ratio",
    "value_range",
    "word_counts",
]


def __getattr__(name: str) -> Any:
    if name in _LABELLED:
        value = getattr(importlib.import_module(f"looplens.analysis.{_LABELLED[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'looplens.analysis' has no attribute {name!r}")


def __dir__() -> list[str]:
    return list(__all__)
