"""Figures of a run, one a file, each returned as a plotly figure.

Every function takes an opened run, fetches what it needs from :mod:`looplens.analysis` (computing
it in memory when the run does not hold it yet) and draws it. Beside each stands a ``..._figure``
function that draws labelled arrays and needs no run. A figure never computes a number of its own.
:func:`loop_span` draws no run but a result of :func:`looplens.analysis.choose_loop_span`, and
``compare_...`` a result of :func:`looplens.analysis.compare`; :func:`compare_tokens` and
:func:`compare_states` take two runs.

Figures are :class:`Figure` objects, which carry :data:`CONFIG` wherever they are shown; pass it
to ``dcc.Graph(config=plots.CONFIG)`` in Dash.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from looplens.plots._answers import (
    prediction_agreement,
    prediction_agreement_figure,
    target_ranks,
    target_ranks_figure,
)
from looplens.plots._attention import attention, attention_figure
from looplens.plots._attention_bound import attention_bound, attention_bound_figure
from looplens.plots._attention_change import attention_change
from looplens.plots._attention_difference import (
    attention_difference,
    attention_difference_figure,
)
from looplens.plots._attention_heads import attention_heads, attention_heads_figure
from looplens.plots._basins import basins, basins_figure
from looplens.plots._candidates import rank_trajectories, rank_trajectories_figure
from looplens.plots._certificate import certificate_figure
from looplens.plots._collapse import token_collapse, token_collapse_figure
from looplens.plots._compare import compare_curve, compare_forest, compare_words
from looplens.plots._compare_states import compare_states, compare_states_figure
from looplens.plots._compare_tokens import compare_tokens, compare_tokens_figure
from looplens.plots._convergence_heatmap import (
    convergence_heatmap,
    convergence_heatmap_figure,
)
from looplens.plots._cycle import cycle, cycle_figure
from looplens.plots._dmd import dmd, dmd_figure
from looplens.plots._dynamics._basin_map import basin_map, basin_map_figure
from looplens.plots._dynamics._causes import causes, causes_figure
from looplens.plots._dynamics._continuation import continuation, continuation_figure
from looplens.plots._dynamics._damage import damage_cone, damage_cone_figure
from looplens.plots._dynamics._effect import causal_effect, causal_effect_figure
from looplens.plots._dynamics._fixed_points import fixed_points, fixed_points_figure
from looplens.plots._dynamics._landscape import landscape, landscape_figure
from looplens.plots._dynamics._lyapunov import lyapunov, lyapunov_figure
from looplens.plots._dynamics._lyapunov_tokens import lyapunov_tokens, lyapunov_tokens_figure
from looplens.plots._dynamics._radius import basin_radius, basin_radius_figure
from looplens.plots._dynamics._recovery import recovery, recovery_figure
from looplens.plots._dynamics._spectra import spectra, spectra_figure
from looplens.plots._dynamics._swap import swap_states, swap_states_figure
from looplens.plots._exit_bench import exit_bench, exit_bench_figure
from looplens.plots._exits import exits, exits_figure
from looplens.plots._flips import flips, flips_figure
from looplens.plots._geometry import (
    geometry,
    geometry_figure,
    step_cosines,
    step_cosines_figure,
)
from looplens.plots._grouped import grouped, grouped_figure
from looplens.plots._input_dependence import input_dependence, input_dependence_figure
from looplens.plots._kv_sharing import kv_sharing_figure
from looplens.plots._labels import visible_text
from looplens.plots._lens import lens, lens_figure, lens_ranks, lens_ranks_figure
from looplens.plots._loop_span import loop_span
from looplens.plots._marks import CURSOR
from looplens.plots._path_independence import path_independence, path_independence_figure
from looplens.plots._predictions import predictions, predictions_figure
from looplens.plots._readout import readout, readout_figure
from looplens.plots._recurrence import recurrence, recurrence_figure
from looplens.plots._regimes import regime_examples, regimes, regimes_figure
from looplens.plots._restart_maps import (
    restart_agreement,
    restart_agreement_figure,
    restart_gaps,
    restart_gaps_figure,
)
from looplens.plots._restarts import restarts, restarts_figure
from looplens.plots._settling import settling, settling_figure
from looplens.plots._similarity import similarity, similarity_figure
from looplens.plots._stages import (
    compare_stages,
    compare_stages_figure,
    stages,
    stages_figure,
)
from looplens.plots._steps import steps, steps_figure
from looplens.plots._theme import CONFIG, PALETTES, REGIMES, Figure, Palette, RegimeStyle, palette
from looplens.plots._token_looks import TokenLook, TokenLooks, short_number, token_looks
from looplens.plots._tokens import tokens, tokens_figure
from looplens.plots._trajectory import trajectory, trajectory_figure
from looplens.plots._verdict import verdict, verdict_figure

FIGURES: dict[str, Callable[..., Any]] = {
    "convergence_heatmap": convergence_heatmap,
    "geometry": geometry,
    "step_cosines": step_cosines,
    "recurrence": recurrence,
    "dmd": dmd,
    "token_collapse": token_collapse,
    "trajectory": trajectory,
    "steps": steps,
    "restarts": restarts,
    "path_independence": path_independence,
    "restart_gaps": restart_gaps,
    "restart_agreement": restart_agreement,
    "basins": basins,
    "input_dependence": input_dependence,
    "cycle": cycle,
    "attention": attention,
    "attention_heads": attention_heads,
    "attention_difference": attention_difference,
    "attention_change": attention_change,
    "attention_bound": attention_bound,
    "similarity": similarity,
    "regimes": regimes,
    "verdict": verdict,
    "stages": stages,
    "readout": readout,
    "tokens": tokens,
    "predictions": predictions,
    "rank_trajectories": rank_trajectories,
    "flips": flips,
    "prediction_agreement": prediction_agreement,
    "target_ranks": target_ranks,
    "exits": exits,
    "exit_bench": exit_bench,
    "settling": settling,
    "grouped": grouped,
    "lens": lens,
    "lens_ranks": lens_ranks,
    "fixed_points": fixed_points,
    "spectra": spectra,
    "causes": causes,
    "lyapunov": lyapunov,
    "lyapunov_tokens": lyapunov_tokens,
    "continuation": continuation,
    "landscape": landscape,
    "basin_map": basin_map,
    "recovery": recovery,
    "damage_cone": damage_cone,
    "causal_effect": causal_effect,
    "basin_radius": basin_radius,
    "swap_states": swap_states,
}
"""Every figure of a run, by name."""

__all__ = [
    "CONFIG",
    "CURSOR",
    "FIGURES",
    "PALETTES",
    "REGIMES",
    "Figure",
    "Palette",
    "RegimeStyle",
    "TokenLook",
    "TokenLooks",
    "attention",
    "attention_bound",
    "attention_bound_figure",
    "attention_change",
    "attention_difference",
    "attention_difference_figure",
    "attention_figure",
    "attention_heads",
    "attention_heads_figure",
    "basin_map",
    "basin_map_figure",
    "basin_radius",
    "basin_radius_figure",
    "basins",
    "basins_figure",
    "causal_effect",
    "causal_effect_figure",
    "causes",
    "causes_figure",
    "certificate_figure",
    "compare_curve",
    "compare_forest",
    "compare_stages",
    "compare_stages_figure",
    "compare_states",
    "compare_states_figure",
    "compare_tokens",
    "compare_tokens_figure",
    "compare_words",
    "continuation",
    "continuation_figure",
    "convergence_heatmap",
    "convergence_heatmap_figure",
    "cycle",
    "cycle_figure",
    "damage_cone",
    "damage_cone_figure",
    "dmd",
    "dmd_figure",
    "exit_bench",
    "exit_bench_figure",
    "exits",
    "exits_figure",
    "fixed_points",
    "fixed_points_figure",
    "flips",
    "flips_figure",
    "geometry",
    "geometry_figure",
    "grouped",
    "grouped_figure",
    "input_dependence",
    "input_dependence_figure",
    "kv_sharing_figure",
    "landscape",
    "landscape_figure",
    "lens",
    "lens_figure",
    "lens_ranks",
    "lens_ranks_figure",
    "loop_span",
    "lyapunov",
    "lyapunov_figure",
    "lyapunov_tokens",
    "lyapunov_tokens_figure",
    "palette",
    "path_independence",
    "path_independence_figure",
    "prediction_agreement",
    "prediction_agreement_figure",
    "predictions",
    "predictions_figure",
    "rank_trajectories",
    "rank_trajectories_figure",
    "readout",
    "readout_figure",
    "recovery",
    "recovery_figure",
    "recurrence",
    "recurrence_figure",
    "regime_examples",
    "regimes",
    "regimes_figure",
    "restart_agreement",
    "restart_agreement_figure",
    "restart_gaps",
    "restart_gaps_figure",
    "restarts",
    "restarts_figure",
    "settling",
    "settling_figure",
    "short_number",
    "similarity",
    "similarity_figure",
    "spectra",
    "spectra_figure",
    "stages",
    "stages_figure",
    "step_cosines",
    "step_cosines_figure",
    "steps",
    "steps_figure",
    "swap_states",
    "swap_states_figure",
    "target_ranks",
    "target_ranks_figure",
    "token_collapse",
    "token_collapse_figure",
    "token_looks",
    "tokens",
    "tokens_figure",
    "trajectory",
    "trajectory_figure",
    "verdict",
    "verdict_figure",
    "visible_text",
]
