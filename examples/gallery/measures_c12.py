"""What claim 12 measures: models recorded in several arithmetics, and what is read in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

import looplens
from looplens.analysis import classify, convergence, geometry, path_independence
from looplens.gallery import Interval, Scale, share_interval, train_all
from looplens.tasks import get_task, prompts_trained_on
from looplens.training import Recipe

# What the weights are rounded to, and what the model computes in; states are stored in float32.
WAYS = {
    "float64": (torch.float32, torch.float64),
    "float32": (torch.float32, torch.float32),
    "rounded weights": (torch.bfloat16, torch.float32),
    "bfloat16": (torch.bfloat16, torch.bfloat16),
}
EXACT = "float64"  # what it shows counts as the truth
SMALL = 0.01  # an orbit of less than this share of the norm
ENOUGH = 10  # orbits that a model must have for a share of them
Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """What is read in one recording of one model in one way."""

    step: Floats  # relative step, median over tokens and restarts, by iteration
    cosine: Floats  # of the step with the one before, the same
    gap: float  # of two restarts at the end over the norm, median over tokens; NaN: one restart
    known: NDArray[np.str_]  # regimes (restart, token), judged with the floor of the dtype
    taken: NDArray[np.str_]  # the same states judged as if they were float32
    amplitude: Floats
    of_dtype: bool  # the states are numbers of the dtype

    def late(self, values: Floats) -> float:
        """Return the median over the last quarter of the iterations."""
        return float(np.nanmedian(values[-(len(values) // 4) :]))


def read(job: tuple[str, str, Recipe | None, Scale]) -> Reading:
    """Record a model, bundled or trained, from two initial states and measure its loop."""
    name, way, recipe, scale = job
    weights, computed = WAYS[way]
    count = scale.pick(smoke=2, quick=12, full=24)
    if recipe is None:
        model = looplens.load_model(name)
        prompts = prompts_trained_on(looplens.models.model_card(name), count, seed=0)
    else:
        model, last = train_all([recipe], scale)[recipe.name], recipe.curriculum[-1]
        prompts = get_task(recipe.task).prompts(
            count, seed=100 + recipe.seed, length=last.length, difficulty=last.difficulty
        )
    draws = model.cfg.initial_state == "noise"  # the other starts are fixed
    run = looplens.record(
        model.to(weights).to(computed),
        prompts,
        out=scale.run_folder(f"bf16-{name}-{way}".replace(" ", "-")),
        iterations=scale.pick(smoke=64, quick=128, full=256),
        restarts=2 if draws else 1,
        sites=(),
        readout=False,
        progress=False,
        overwrite=True,
    )
    states = run.state().transpose("restart", "token", "iteration", "d_model").to_numpy()
    taken = classify(states, source_dtype="float32", unit=False)
    known = classify(states, source_dtype="bfloat16", unit=False) if way == "bfloat16" else taken
    return Reading(
        step=np.median(convergence(states).relative_step, axis=(0, 1)),
        cosine=cosines(states),
        gap=float(np.median(path_independence(states).final_gap)) if draws else np.nan,
        known=known.regime,
        taken=taken.regime,
        amplitude=known.amplitude,
        of_dtype=are_numbers_of(torch.from_numpy(states[..., 1:, :]), computed),
    )


def are_numbers_of(states: torch.Tensor, dtype: torch.dtype) -> bool:
    """Tell whether rounding to a dtype changes no number."""
    return bool((states.to(dtype).to(states.dtype) == states).all())


def cosines(states: Floats) -> Floats:
    """Return the cosine of each step with the one before, median over tokens, by iteration.

    NaN at the first iteration, and where no token moves.
    """
    turning = geometry(states).step_cosine
    known = np.isfinite(turning).any(axis=(0, 1))
    found = np.full(turning.shape[-1], np.nan)
    found[known] = np.nanmedian(turning[..., known], axis=(0, 1))
    return found


def tell(exact: Reading, other: Reading, judged: str) -> dict[str, float | None]:
    """Compare the regimes of one model read in two ways, token by token; None: of too few."""
    told = getattr(other, judged)
    moves = np.isin(told, ("orbit", "slider"))
    rest, orbit = exact.known == "fixed_point", exact.known == "orbit"
    small = exact.amplitude < SMALL

    def share(of: NDArray[np.bool_], among: NDArray[np.bool_], least: int = 1) -> float | None:
        return float(of[among].mean()) if among.sum() >= least else None

    return {
        "rest, not seen": share(told != "fixed_point", rest),
        "small orbit, not seen": share(~moves, orbit & small, ENOUGH),
        "larger orbit, not seen": share(~moves, orbit & ~small, ENOUGH),
        "rest, shown as motion": share(moves, rest),
        "motion shown, in truth rest": share(rest, moves),
    }


Found = Mapping[str, Mapping[str, Reading]]  # by model and way
READ_AS = {
    "float32": ("float32", "known"),
    "rounded weights": ("rounded weights", "known"),
    "bfloat16, floor known": ("bfloat16", "known"),
    "bfloat16 taken for float32": ("bfloat16", "taken"),
}


def shares(found: Found, names: Sequence[str]) -> dict[str, dict[str, Interval | None]]:
    """Return the intervals over models of what is hidden and faked, by the way of reading."""
    table: dict[str, dict[str, Interval | None]] = {}
    for label, (way, judged) in READ_AS.items():
        told = [tell(found[name][EXACT], found[name][way], judged) for name in names]
        columns = {
            share: [one[share] for one in told if one[share] is not None] for share in told[0]
        }
        table[label] = {
            name: share_interval(all_) if all_ else None for name, all_ in columns.items()
        }
    return table
