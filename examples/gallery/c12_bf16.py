"""Claim 12: in bfloat16 a loop cannot come to rest, and what is read in its end is rounding."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

import looplens
from looplens.analysis import REGIMES, classify, convergence, geometry, path_independence
from looplens.gallery import Claim, Interval, Outcome, Picture, Scale, Table
from looplens.gallery.intervals import mean_interval, paired
from looplens.gallery.parallel import in_parallel
from looplens.gallery.pictures import lines
from looplens.plots import Figure
from looplens.tasks import prompts_trained_on

# What the model's weights are rounded to, and what it computes in.
DTYPES = {
    "float32": (torch.float32, torch.float32),
    "rounded weights": (torch.bfloat16, torch.float32),
    "bfloat16": (torch.bfloat16, torch.bfloat16),
}
SETTLING = ("affine-huginn-mini", "phop-huginn-mini")
MOVING = "phop-ouro-mini"
EPSILON = 2.0**-7  # of bfloat16: the distance from 1 to the next number
SMALL = 0.01  # an orbit of less than this share of the norm
EARLY = 8  # iterations that count as the start
SETTLED = 1e-3  # a relative step under which a token counts as settled


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """What is read in one recording of one model in one dtype."""

    step: NDArray[np.float64]  # relative step, median over tokens and restarts, by iteration
    floor: float  # its median over the last quarter
    early: float  # cosine of successive steps, first iterations, median over tokens and restarts
    cosine: float  # the same over the last quarter
    never: float  # share of tokens whose steps do not stay below SETTLED
    gap: float  # of two restarts at the end over the norm, median over tokens; 0: one restart
    known: NDArray[np.str_]  # regimes (restart, token), judged with the floor of the dtype
    taken: NDArray[np.str_]  # the same states judged as if they were float32
    amplitude: NDArray[np.float64]


def read(job: tuple[str, str, int, Scale]) -> Reading:
    """Record a bundled model from two initial states and measure the end of its loop."""
    model_name, dtype, seed, scale = job
    weights, computed = DTYPES[dtype]
    prompts = prompts_trained_on(
        looplens.models.model_card(model_name),
        scale.pick(smoke=1, quick=6, full=12),
        seed=seed,
    )
    model = looplens.load_model(model_name).to(weights).to(computed)
    draws = model.cfg.initial_state == "noise"  # the other starts are fixed
    run = looplens.record(
        model,
        prompts,
        out=scale.run_folder(f"bf16-{model_name}-{dtype}-{seed}".replace(" ", "-")),
        iterations=scale.pick(smoke=48, quick=128, full=256),
        restarts=2 if draws else 1,
        seed=seed,
        sites=(),
        readout=False,
        progress=False,
        overwrite=True,
    )
    states = run.state().transpose("restart", "token", "iteration", "d_model").to_numpy()
    tail = (states.shape[2] - 1) // 4
    moved = convergence(states, tolerance=SETTLED)
    taken = classify(states, source_dtype="float32", unit=False)
    known = classify(states, source_dtype="bfloat16", unit=False) if dtype == "bfloat16" else taken
    turning = geometry(states).step_cosine[..., 1:]  # the first step has none before it
    early, late = (
        # A step of exactly zero has no direction.
        float(np.nanmedian(np.nanmean(part, axis=-1)))
        for part in (turning[..., : EARLY - 1], turning[..., -tail:])
    )
    return Reading(
        step=np.median(moved.relative_step, axis=(0, 1)),
        floor=float(np.median(moved.relative_step[..., -tail:])),
        early=early,
        cosine=late,
        never=float(np.isnan(moved.settling_iteration).mean()),
        gap=float(np.median(path_independence(states).final_gap)) if draws else 0.0,
        known=known.regime,
        taken=taken.regime,
        amplitude=known.amplitude,
    )


def agreement(readings: list[Reading], others: list[Reading], judged: str = "known") -> Interval:
    """Share of trajectories with the regime of float32, over seeds."""
    return mean_interval(
        [
            float((getattr(other, judged) == one.known).mean())
            for one, other in zip(readings, others, strict=True)
        ]
    )


def orbits_found(by_dtype: Mapping[str, list[Reading]] | None, small: bool) -> tuple[int, int]:
    """Count the small (or large) orbits that bfloat16 shows, of those of its weights in float32."""
    found = total = 0
    readings = by_dtype or {"rounded weights": [], "bfloat16": []}
    for one, other in zip(readings["rounded weights"], readings["bfloat16"], strict=True):
        there = (one.known == "orbit") & ((one.amplitude < SMALL) == small)
        found += int((other.known[there] == "orbit").sum())
        total += int(there.sum())
    return found, total


def percent(shares: list[Interval]) -> str:
    """Return the means of the models, from the lowest to the highest."""
    low, high = (f"{function(one.mean for one in shares):.0%}" for function in (min, max))
    return low if low == high else f"{low} to {high}"


def regimes_table(read_as: Mapping[str, Mapping[str, list[Reading]]]) -> Table:
    """One row a model and a way to read it: regimes, steps, cosines, settling, gaps."""
    rows = []
    for model, by_dtype in read_as.items():
        ways = [(dtype, readings, "known") for dtype, readings in by_dtype.items()]
        ways.append(("bfloat16 taken for float32", by_dtype["bfloat16"], "taken"))
        for label, readings, judged in ways:
            regimes = np.concatenate([getattr(one, judged).ravel() for one in readings])
            rows.append(
                (
                    model,
                    label,
                    *(int((regimes == name).sum()) for name in REGIMES),
                    agreement(by_dtype["float32"], readings, judged),
                    f"{np.median([one.floor for one in readings]):.1e}",
                    mean_interval([one.early for one in readings]),
                    mean_interval([one.cosine for one in readings]),
                    mean_interval([one.never for one in readings]),
                    f"{np.median([one.gap for one in readings]):.1e}" if readings[0].gap else None,
                )
            )
    columns = (
        *("model", "read as", *REGIMES, "as in float32", "last steps"),
        *("cosine, first steps", "cosine, last steps", "never settled", "gap of restarts"),
    )
    return Table(title="What is read in the same model", columns=columns, rows=rows)


SETTLES = (
    "The curves are one until bfloat16 meets its floor. What float32 shows below it cannot be seen "
    "in bfloat16."
)
MOVES = "This model moves by more than a rounding step to the end, so rounding hides little of it."


def draw(name: str, by_dtype: Mapping[str, list[Reading]]) -> Figure:
    """Draw the steps of one model by iteration, a curve for each dtype."""
    steps = {
        dtype: np.median([one.step for one in readings], axis=0)
        for dtype, readings in by_dtype.items()
    }
    halves = np.array([[2**power, 3 * 2**power] for power in range(9)]).ravel()
    shown = np.sort(halves[halves <= len(steps["float32"])])
    return lines(
        {dtype: (shown.tolist(), values[shown - 1].tolist()) for dtype, values in steps.items()},
        title="Rounding ends what a loop can show",
        subtitle=name,
        x="iteration",
        y="step over norm, median over tokens",
        log_x=True,
        log_y=True,
    )


def run(scale: Scale) -> Outcome:
    """Record every model in three ways for every seed, and compare what is read."""
    names = (*SETTLING, MOVING)[: scale.pick(smoke=1, quick=3, full=3)]
    found: dict[str, dict[str, list[Reading]]] = {
        name: {dtype: [] for dtype in DTYPES} for name in names
    }
    jobs = [
        (name, dtype, seed, scale) for name in names for dtype in DTYPES for seed in scale.seeds
    ]
    readings = in_parallel(read, jobs, scale, label=lambda job: f"{job[0]} in {job[1]}")
    for (name, dtype, _, _), reading in zip(jobs, readings, strict=True):
        found[name][dtype].append(reading)
    settling = [found[name] for name in names if name in SETTLING]

    def each(dtype: str, value: str) -> NDArray[np.float64]:
        """Mean over the settling models, for every seed."""
        table = [[getattr(one, value) for one in by_dtype[dtype]] for by_dtype in settling]
        return np.mean(table, axis=0)

    def over(dtype: str, value: str) -> Interval:
        return mean_interval(each(dtype, value))

    turned = paired(each("bfloat16", "cosine"), each("bfloat16", "early"))
    floor, exact_floor = over("bfloat16", "floor"), over("float32", "floor")
    cosine, exact_cosine = over("bfloat16", "cosine"), over("float32", "cosine")
    never, gap, exact_gap = (
        over("bfloat16", "never"), over("bfloat16", "gap"), over("float32", "gap"),
    )  # fmt: skip
    weights = [agreement(one["float32"], one["rounded weights"]) for one in settling]
    known = [agreement(one["float32"], one["bfloat16"]) for one in settling]
    taken = [agreement(one["float32"], one["bfloat16"], "taken") for one in settling]
    checks = {
        "steps end at about one rounding step of bfloat16, over 1000 times those of float32": (
            EPSILON / 4 < floor.low <= floor.high < 4 * EPSILON
            and floor.low > 1000 * exact_floor.high
        ),
        "the last steps turn back on themselves (cosine near -1/2), in float32 too": (
            abs(cosine.mean + 0.5) < 0.15 and abs(exact_cosine.mean + 0.5) < 0.15
        ),
        "they do so more than the first steps": turned.high < 0,
        "restarts stop approaching at the floor": gap.low > 100 * exact_gap.high,
        f"no token stays under a step of {SETTLED:g}": never.low > 0.95,
        "taken for float32, most tokens lose their regime": all(one.high < 0.5 for one in taken),
        "rounding the weights alone leaves the regimes": all(one.low > 0.9 for one in weights),
    }
    small, large = (orbits_found(found.get("phop-huginn-mini"), size) for size in (True, False))
    if small[1]:
        checks[f"orbits under {SMALL:.0%} of the norm are not seen in bfloat16"] = (
            small[0] <= 0.05 * small[1]
        )
    summary = (
        f"In bfloat16 the last steps are {floor.mean:.1e} of the norm ({floor.mean / EPSILON:.1f} "
        f"rounding steps), in float32 {exact_floor.mean:.1e}; the cosine of successive "
        f"steps is {over('bfloat16', 'early')} in the first {EARLY} iterations and {cosine} in the "
        f"last quarter. With the floor known {percent(known)} of the trajectories of the settling "
        f"models keep the regime of float32; taken for float32, {percent(taken)} do. "
        f"Two restarts end {gap.mean:.1e} of the norm apart, in float32 {exact_gap.mean:.1e}. Of "
        f"the orbits of phop-huginn-mini in float32, bfloat16 shows {small[0]} of the {small[1]} "
        f"under {SMALL:.0%} of the norm and {large[0]} of the {large[1]} larger ones."
    )
    return Outcome(
        checks=checks,
        tables=[regimes_table(found)],
        pictures=[
            Picture(
                name=f"steps-{name}",
                figure=draw(name, by_dtype),
                caption=SETTLES if name in SETTLING else MOVES,
            )
            for name, by_dtype in found.items()
        ],
        summary=summary,
        limits=(
            "One set of weights a model: the seeds draw prompts and initial states.",
            "These models have a state of 64 numbers; the share of rounding in a step does not "
            "depend on the width, what a model makes of it does.",
            "All arithmetic is rounded here. A float32 residual stream with products in bfloat16 "
            "has a floor between the two.",
            "The check that compares the tail with the first steps was added after the others had "
            "been seen.",
        ),
    )


CLAIM = Claim(
    number=12,
    slug="bf16",
    title="What rounding fakes: a loop in bfloat16 cannot come to rest",
    paper=(
        "A public self-audit of work on the geometry of Huginn's trajectories "
        "(Geometry-of-Reasoning-Trajectories, audit of 2026-07-25)"
    ),
    says=(
        "In bfloat16 the tail of Huginn's trajectories (from about iteration 15) is rounding "
        "noise: the step norm falls about 70-fold and then stays, successive steps have a cosine "
        "of -0.33 there after +0.08 while the state converges, and restarts stop approaching each "
        "other at the floor. Noise about a fixed point gives a cosine of -0.5. Oscillations, "
        "periods or wandering that are read there are the arithmetic's and not the model's."
    ),
    does=(
        "The bundled models are recorded from the same prompts and initial states in float32, in "
        "float32 with weights rounded to bfloat16, and all in bfloat16. The bfloat16 states are "
        "judged twice: with their floor known, and as if they were float32."
    ),
    robust=(
        "steps end at about one rounding step of bfloat16, over 1000 times those of float32",
        "taken for float32, most tokens lose their regime",
    ),
    run=run,
)


if __name__ == "__main__":
    CLAIM.main()
