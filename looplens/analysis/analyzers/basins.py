"""How many basins the restarts of every token and prompt fall into."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from looplens.analysis.analyzers._analyzer import (
    Analyzer,
    Source,
    Summary,
    coordinates,
    finite_or_none,
    labelled,
    needs_iterations,
    over_known,
    rounding_dtype,
)
from looplens.analysis.measures.basins import UNKNOWN, basins_of, check_tolerance
from looplens.analysis.regimes.thresholds import rounding_step
from looplens.analysis.running.engine import Block

if TYPE_CHECKING:
    from looplens.store import StoredRun

FEWEST_ITERATIONS = 4
OUT_OF_PHASE = 0.25  # iterations


def needs(run: StoredRun) -> str | None:
    """Ask for at least two restarts of a few iterations."""
    if run.restarts < 2:
        return (
            "Basins are told apart by restarts, and this run has one. Record with restarts=8 or "
            "more, from a random initial state: rare basins need many."
        )
    if run.iterations < FEWEST_ITERATIONS:
        return (
            f"Basins need at least {FEWEST_ITERATIONS} iterations, and this run has "
            f"{run.iterations}. Record more of them."
        )
    return needs_iterations(run)


def plan(source: Source, *, basin_tolerance: float = 1e-3) -> tuple[float, float]:
    """Check the tolerance; also find what rounding alone shows."""
    check_tolerance(basin_tolerance)
    return rounding_step(rounding_dtype(source.run)), float(basin_tolerance)


def measure(block: Block, plan: tuple[float, float]) -> dict[str, np.ndarray]:
    """Sort the restarts of every token; restart is the last axis, so that token is the first."""
    assert block.states is not None
    found = basins_of(block.states, *plan)
    return {
        "basin": np.where(found.basin == UNKNOWN, np.nan, found.basin).T.astype(np.float32),
        "phase_shift": found.shift.T.astype(np.float32),
        "basin_count": found.count,
        "largest_basin_share": found.largest_share,
        "basin_separation": found.separation,
        "basin_tolerance": found.tolerance,
        "undecided": np.where(np.isfinite(found.count), found.undecided, np.nan),
    }


def build(source: Source, plan: tuple[float, float], whole: dict[str, np.ndarray]) -> xr.Dataset:
    """Name the basins, and count those of prompts: restarts that agree at every token."""
    run = source.run
    pair, number = ("token", "restart"), ("token",)
    norm = "over the norm"
    data = {
        "basin": labelled(pair, whole["basin"], "basin, the one with most restarts first"),
        "phase_shift": labelled(
            pair,
            whole["phase_shift"],
            "iterations ahead of the first restart on the same orbit",
            "iterations",
        ),
        "basin_count": labelled(number, whole["basin_count"], "basins that the restarts end in"),
        "largest_basin_share": labelled(
            number, whole["largest_basin_share"], "share of the restarts in the largest basin"
        ),
        "basin_separation": labelled(
            number, whole["basin_separation"], f"distance of the nearest two basins {norm}"
        ),
        "basin_tolerance": labelled(
            number,
            whole["basin_tolerance"],
            f"distance {norm} from which restarts count as apart",
            threshold=plan[1],
        ),
        "undecided": labelled(
            number, whole["undecided"], "1 where restarts that are apart may yet meet"
        ),
        "prompt_basin_count": labelled(
            ("prompt",),
            _prompt_counts(run, whole["basin"], whole["undecided"] == 1),
            "ways to end of a prompt: restarts in the same basin at every token that is decided",
        ),
        "prompt_largest_share": labelled(
            ("prompt",),
            np.array(
                [
                    over_known(np.mean, whole["largest_basin_share"][run.token_range(prompt)])
                    for prompt in range(run.n_prompts)
                ]
            ),
            "mean largest_basin_share of a prompt",
        ),
    }
    names = {**coordinates(run, "token", "restart"), "prompt": np.arange(run.n_prompts)}
    return xr.Dataset(data, coords=names)


def _prompt_counts(run: StoredRun, basin: np.ndarray, undecided: np.ndarray) -> np.ndarray:
    """Count the different columns of basins of every prompt, over the tokens that are known.

    Tokens whose restarts may yet meet are left out.
    """
    counts = np.full(run.n_prompts, np.nan)
    for prompt in range(run.n_prompts):
        tokens = run.token_range(prompt)
        rows = basin[tokens]
        rows = rows[np.isfinite(rows).all(1) & ~undecided[tokens]]
        if len(rows):
            counts[prompt] = len(np.unique(rows, axis=1).T)
    return counts


def summarize(dataset: xr.Dataset, run: StoredRun) -> Summary:
    """Over tokens that are finite in every restart.

    ``undecided_share`` of them have restarts that are apart and may yet meet: how many basins those
    have is not known. Over the others: ``max_basins`` and ``mean_basins`` of
    ``basin_count``, ``several_basins_share`` (more than one), ``median_separation`` where there are
    several (None without any). Further
    ``max_prompt_basins``; ``out_of_phase_share``: of the restarts on an orbit that they share with
    an earlier one (by the regimes of `classify`), those more than a quarter of an iteration off
    it (None without any); ``restarts`` and ``n_tokens``.
    """
    count = dataset["basin_count"].values
    undecided = dataset["undecided"].values == 1
    count = np.where(undecided, np.nan, count)
    decided = count[np.isfinite(count)]
    separation = np.where(undecided, np.nan, dataset["basin_separation"].values)
    return {
        "max_basins": over_known(np.max, count),
        "mean_basins": over_known(np.mean, count),
        "several_basins_share": over_known(np.mean, (decided > 1).astype(float)),
        "undecided_share": over_known(np.mean, dataset["undecided"].values),
        "median_separation": finite_or_none(over_known(np.median, separation)),
        "max_prompt_basins": over_known(np.max, dataset["prompt_basin_count"].values),
        "out_of_phase_share": finite_or_none(_out_of_phase(dataset, run)),
        "restarts": int(run.restarts),
        "n_tokens": int(np.isfinite(dataset["basin_count"].values).sum()),
    }


def _out_of_phase(dataset: xr.Dataset, run: StoredRun) -> float:
    """Share of restarts that follow an earlier one on its orbit at another phase."""
    from looplens.analysis.suite import get  # the suite lists this module: not at import time

    orbit = get(run, "classify")["regime"].values[:, dataset["token"].values].T == "orbit"
    basin = np.where(orbit, dataset["basin"].values, np.nan)
    follows = np.zeros(basin.shape, dtype=bool)
    for restart in range(1, basin.shape[1]):
        earlier = dataset["basin"].values[:, :restart] == basin[:, restart, None]
        follows[:, restart] = earlier.any(1)
    shift = np.abs(dataset["phase_shift"].values)
    follows &= np.isfinite(shift)
    return float((shift[follows] > OUT_OF_PHASE).mean()) if follows.any() else float("nan")


ANALYZER = Analyzer(
    name="basins",
    version=2,
    title="Basins of restarts",
    needs=needs,
    plan=plan,
    measure=measure,
    build=build,
    summarize=summarize,
    parameters=("basin_tolerance",),
    token_axis=0,
)
