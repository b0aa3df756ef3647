"""What is known of a token by a name of its own: the numbers and words that people ask for first.

Which of them a run has is found out in :mod:`looplens.analysis.per_token.catalogue`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from looplens.analysis.regimes.classifying import REGIMES
from looplens.analysis.regimes.kinds import KINDS

RECORDING, TOKENS, PROMPTS, LAB = "recording", "tokens", "prompts", "dynamics"
CORRECT = ("right", "wrong")


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenStatistic:
    """One thing that is known of every token.

    Attributes
    ----------
    name, title : str
        As filters and functions name it, and in words.
    kind : {"number", "word"}
        What its values are.
    meaning : str
        What it is, in a sentence.
    units : str
        ``"iteration"`` for iterations from 1 to T; ``"1"`` or empty for none.
    source : str
        Name of the analysis; ``"recording"`` for the last readout, ``"tokens"`` or ``"prompts"``
        for a column of theirs, ``"dynamics/<name>"`` for a result of the lab.
    variable : str
        Its name there.
    words : tuple of str
        All words that there can be, where they are known.
    by_restart : bool
        Whether restarts have values of their own.
    layer_variable : str
        What is read in its place for a layer; empty where layers have none of their own.
    policy : tuple of str and float, optional
        The exit rule and its threshold.
    stored : bool
        Whether the run holds it; otherwise it is computed when it is asked for, over all tokens.
    """

    name: str
    title: str
    kind: Literal["number", "word"] = "number"
    meaning: str
    units: str = ""
    source: str
    variable: str = ""
    words: tuple[str, ...] = ()
    by_restart: bool = True
    layer_variable: str = ""
    policy: tuple[str, float] | None = None
    stored: bool = True


OF_ANALYSES: tuple[TokenStatistic, ...] = (
    TokenStatistic(
        name="regime",
        title="Regime",
        kind="word",
        meaning="regime of the states at the end",
        source="classify",
        variable="regime",
        words=REGIMES,
        layer_variable="layer_regime",
    ),
    TokenStatistic(
        name="settling_iteration",
        title="Settling iteration",
        meaning="first iteration from which on all relative steps are below the tolerance",
        units="iteration",
        source="convergence",
        variable="settling_iteration",
        layer_variable="layer_settling_iteration",
    ),
    TokenStatistic(
        name="restart_gap",
        title="Restart gap",
        meaning="distance between restarts over their norm at the last iteration, mean of pairs",
        source="path_independence",
        variable="final_gap",
        by_restart=False,
    ),
    TokenStatistic(
        name="kind",
        title="Kind of the regime",
        kind="word",
        meaning="what sort of the regime it is",
        source="classify",
        variable="kind",
        words=KINDS,
    ),
    TokenStatistic(
        name="reason",
        title="Reason of the regime",
        kind="word",
        meaning="what decided the regime",
        source="classify",
        variable="reason",
    ),
    TokenStatistic(
        name="period",
        title="Period of the orbit",
        meaning="iterations of one turn",
        units="iterations",
        source="classify",
        variable="period",
        layer_variable="layer_period",
    ),
    TokenStatistic(
        name="amplitude",
        title="Amplitude",
        meaning="root-mean-square distance from the mean of the tail over the norm",
        source="classify",
        variable="amplitude",
    ),
    TokenStatistic(
        name="rate",
        title="Rate",
        meaning="factor by which steps shrink in an iteration",
        source="convergence",
        variable="rate",
    ),
    TokenStatistic(
        name="regime_agreement",
        title="Restarts with the same regime",
        meaning="share of pairs of restarts with the same regime",
        source="classify",
        variable="regime_agreement",
        by_restart=False,
    ),
    TokenStatistic(
        name="basin_count",
        title="Basins",
        meaning="basins that the restarts end in",
        source="basins",
        variable="basin_count",
        by_restart=False,
    ),
    TokenStatistic(
        name="prediction_settling",
        title="Prediction settles",
        meaning="first iteration from which on the best token is the last one",
        units="iteration",
        source="readout",
        variable="prediction_settling",
    ),
    TokenStatistic(
        name="flips",
        title="Prediction flips",
        meaning="times that the best token changes",
        source="readout",
        variable="prediction_flips",
    ),
)

OF_READOUT: tuple[TokenStatistic, ...] = (
    TokenStatistic(
        name="entropy",
        title="Entropy of the prediction",
        meaning="entropy of the last prediction",
        units="nat",
        source=RECORDING,
        variable="entropy",
    ),
    TokenStatistic(
        name="prediction",
        title="Prediction",
        kind="word",
        meaning="most probable token at the end",
        source=RECORDING,
        variable="topk_ids",
    ),
    TokenStatistic(
        name="correct",
        title="Prediction is right",
        kind="word",
        meaning="whether the target is the most probable token at the end",
        source=RECORDING,
        variable="target_rank",
        words=CORRECT,
    ),
    TokenStatistic(
        name="target_logprob",
        title="Log-probability of the target",
        meaning="log-probability of the target at the end",
        units="nat",
        source=RECORDING,
        variable="target_logprob",
    ),
    TokenStatistic(
        name="target_rank",
        title="Rank of the target",
        meaning="rank of the target at the end, from 0",
        source=RECORDING,
        variable="target_rank",
    ),
)
"""The last three need targets."""
