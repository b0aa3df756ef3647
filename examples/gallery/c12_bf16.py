"""Claim 12: in bfloat16 the end of a loop is rounding: what it hides, and what it fakes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import c02_iterations
import numpy as np
from measures_c12 import ENOUGH, EXACT, SMALL, WAYS, Found, Reading, cosines, read, shares
from numpy.typing import NDArray

from looplens.analysis import REGIMES
from looplens.gallery import Claim, Interval, Outcome, Picture, Scale, Table
from looplens.gallery.intervals import above, below, mean_interval, paired
from looplens.gallery.parallel import in_parallel, train_all
from looplens.gallery.pictures import bars, lines
from looplens.plots import Figure
from looplens.training import Recipe

BUNDLED = ("affine-huginn-mini", "phop-huginn-mini")  # these settle, as the trained ones do
MOVING = "phop-ouro-mini"  # for contrast: it moves to the end
EPSILON = 2.0**-7  # of bfloat16: the distance from 1 to the next number
STORED = 100 * 2.0**-23  # relative steps over this are seen well in float32
NEAR = 0.15  # cosines of successive steps as near as this to -1/2, that of noise, count as such


def near_noise(value: Interval) -> bool | None:
    """Tell whether the cosine of successive steps is near -1/2: True, False, None (open)."""
    both = above(value, -0.5 - NEAR), below(value, -0.5 + NEAR)
    return False if False in both else None if None in both else True


def told(share: Interval | None) -> str:
    """Return a share as text, also where no model has enough tokens for one."""
    return "an unknown share" if share is None else str(share)


def models_table(found: Found, hidden: Mapping[str, NDArray[np.bool_]]) -> Table:
    """One row a model and arithmetic: regimes, last steps, cosines, gap of restarts."""
    rows = []
    for name, by_way in found.items():
        at = hidden.get(name, np.zeros(1, dtype=bool))
        for way, one in by_way.items():
            rows.append(
                (
                    *(name, way),
                    *(int((one.known == regime).sum()) for regime in REGIMES),
                    *(f"{one.late(one.step):.1e}", one.cosine[at].mean() if at.any() else None),
                    one.late(one.cosine) if one.late(one.step) > STORED / 1000 else None,
                    None if np.isnan(one.gap) else f"{one.gap:.1e}",
                )
            )
    columns = ("model", "arithmetic", *REGIMES, "last steps", "cosine, below the floor")
    return Table(
        title="What is read in each model, the floor known",
        columns=(*columns, "cosine, last quarter", "gap of restarts"),
        rows=rows,
    )


def draw_steps(found: Found, names: Sequence[str]) -> Figure:
    """Draw the steps by iteration: intervals over the settling models, and the moving one."""
    shown = [n for p in range(9) for n in (2**p, 3 * 2**p) if n <= len(found[names[0]][EXACT].step)]
    at, curves = np.array(sorted(shown)), {}
    for way in ("float32", "bfloat16"):
        logs = [mean_interval(np.log10([found[n][way].step[i - 1] for n in names])) for i in at]
        curves[f"settling, {way}"] = (
            at.tolist(),
            [Interval(mean=10**v.mean, low=10**v.low, high=10**v.high, n=v.n) for v in logs],
        )
        if MOVING in found:
            curves[f"{MOVING}, {way}"] = (at.tolist(), found[MOVING][way].step[at - 1].tolist())
    return lines(
        curves,
        title="In bfloat16 steps stop falling early",
        subtitle=f"{len(names)} settling models (geometric mean, interval) and one that moves on",
        x="iteration",
        y="step over norm, median over tokens",
        log_x=True,
        log_y=True,
    )


def draw_cosines(found: Found, names: Sequence[str]) -> Figure:
    """Draw the cosine of successive steps by iteration, of one trained model and the bundled."""
    curves = {}
    for name in (names[0], *(name for name in BUNDLED if name in names)):
        exact = found[name][EXACT]
        at = np.flatnonzero((exact.step > STORED) & np.isfinite(exact.cosine))
        for way in (EXACT, "bfloat16"):
            curves[f"{name}, {way}"] = ((at + 1).tolist(), found[name][way].cosine[at].tolist())
    return lines(
        curves,
        title="In bfloat16 steps turn back as noise does, whatever the model does",
        subtitle="each model until its exact steps are too small to be stored; dotted: noise, -1/2",
        x="iteration",
        y="cosine of successive steps, median over tokens",
        level=("", -0.5),
    )


def run(scale: Scale) -> Outcome:
    """Record every model in four ways, and compare what is read."""
    recipes = [c02_iterations.recipe(seed, scale) for seed in scale.seeds]
    train_all(recipes, scale)
    models: dict[str, Recipe | None] = {f"trained-{one.seed}": one for one in recipes}
    models |= dict.fromkeys(scale.pick(smoke=(), quick=BUNDLED, full=BUNDLED))
    names = list(models)
    models |= dict.fromkeys(scale.pick(smoke=(), quick=(MOVING,), full=(MOVING,)))
    jobs = [(name, way, models[name], scale) for name in models for way in WAYS]
    readings = in_parallel(read, jobs, scale, label=lambda job: f"{job[0]} in {job[1]}")
    found: dict[str, dict[str, Reading]] = {name: {} for name in models}
    for (name, way, _, _), reading in zip(jobs, readings, strict=True):
        found[name][way] = reading

    # Iterations at which the model still moves, by less than bfloat16 can show.
    hidden = {
        name: (found[name][EXACT].step < EPSILON / 4) & (found[name][EXACT].step > STORED)
        for name in names
    }
    steps, gaps, turns = {}, {}, {}
    for way in WAYS:
        of_way = {name: found[name][way] for name in names}
        steps[way] = np.array([one.late(one.step) for one in of_way.values()])
        gaps[way] = np.array([one.gap for one in of_way.values()])
        turns[way] = np.array([of_way[n].cosine[at].mean() for n, at in hidden.items() if at.any()])
    table = shares(found, names)
    taken, known = table["bfloat16 taken for float32"], table["bfloat16, floor known"]
    rest, motion = taken["rest, not seen"], taken["rest, shown as motion"]
    floor = mean_interval(steps["bfloat16"] / EPSILON)
    turned = mean_interval(turns["bfloat16"])
    differ = mean_interval(np.abs(turns["bfloat16"] - turns[EXACT]))
    checks = {
        "steps stop falling over 1000 times as high as in float32": above(
            paired(np.log10(steps["bfloat16"]), np.log10(steps["float32"])), 3
        ),
        "restarts stop approaching each other, over 100 times as far apart": above(
            paired(np.log10(gaps["bfloat16"]), np.log10(gaps["float32"])), 2
        ),
        "while the model still moves below the floor, steps turn back as noise does": near_noise(
            turned
        ),
        f"those in {EXACT} do not at those iterations: the cosines differ by over {NEAR:g}": above(
            differ, NEAR
        ),
        "hidden: taken for float32, most tokens at rest are not seen to be": above(rest, 0.5),
        "faked: taken for float32, some tokens at rest are shown as motion": above(motion),
    }
    if taken["motion shown, in truth rest"] is not None:
        checks["faked: most motion shown then is of tokens at rest"] = above(
            taken["motion shown, in truth rest"], 0.5
        )
    if taken["small orbit, not seen"] is not None:
        checks[f"hidden: orbits under {SMALL:.0%} of the norm are not seen"] = above(
            taken["small orbit, not seen"], 0.95
        )
    noise = 1 + np.random.default_rng(0).normal(scale=1e-3, size=(1, 64, 129, 64))
    sanity = {
        "states of bfloat16 are numbers of bfloat16": all(
            one["bfloat16"].of_dtype for one in found.values()
        ),
        "noise about a point is measured to have a cosine of -1/2": bool(
            abs(np.nanmean(cosines(noise)) + 0.5) < 0.01
        ),
    }
    kinds = list(table["float32"])
    mostly = "Mostly" if motion.mean < rest.mean / 2 else "Not mostly"
    return Outcome(
        checks=checks,
        sanity=sanity,
        tables=[
            Table(
                title=f"What is hidden and what is faked, as shares of what {EXACT} shows",
                columns=("read as", *kinds),
                rows=[(label, *row.values()) for label, row in table.items()],
            ),
            models_table(found, hidden),
        ],
        pictures=[
            Picture(
                name="steps",
                figure=draw_steps(found, names),
                caption="The curves of the settling models are one until bfloat16 meets its "
                "floor. A model that moves by more to the end is touched far less.",
            ),
            Picture(
                name="cosines",
                figure=draw_cosines(found, names),
                caption=f"Where steps in {EXACT} go on in one direction or swing to and fro, "
                "those in bfloat16 come to the cosine of noise.",
            ),
            Picture(
                name="shares",
                figure=bars(
                    {
                        label: {
                            kind.replace(", ", ",<br>"): value
                            for kind, value in row.items()
                            if value is not None
                        }
                        for label, row in table.items()
                        if "bfloat16" in label
                    },
                    title="What rounding hides, and what it fakes",
                    subtitle="means and intervals over models",
                    y="share",
                    y_range=(0, 1.05),
                ),
                caption="The first three are hidden, the last two faked. Each is a share of the "
                "tokens that its first word names.",
            ),
        ],
        summary=(
            f"In bfloat16 the last steps are {floor} rounding steps long, "
            f"{np.mean(steps['bfloat16']):.1e} of the norm against "
            f"{np.mean(steps['float32']):.1e} in float32. While a model still moves by less, the "
            f"cosine of successive steps is {turned} in bfloat16, where {EXACT} has from "
            f"{turns[EXACT].min():.2f} to {turns[EXACT].max():.2f} by model. Hidden: taken for "
            f"float32, {rest} of the tokens at rest are not seen to be "
            f"({known['rest, not seen']} with the floor known), and "
            f"{told(taken['small orbit, not seen'])} of the orbits under {SMALL:.0%} of the norm "
            f"are not seen. Faked: taken for float32, {motion} of "
            "the tokens at rest are shown as orbits or sliders "
            f"({known['rest, shown as motion']} with the floor known); these are "
            f"{told(taken['motion shown, in truth rest'])} of all that are shown so. "
            f"{mostly} rounding leaves a reader without a verdict on rest, not with a wrong one."
        ),
        limits=(
            f"The intervals are over {len(names)} sets of weights: the models of claim 2, one a "
            "seed, and bundled ones. Each is recorded with prompts of its own. One that does not "
            "settle stands beside them for contrast and is in no check.",
            f"The shares of orbits are over the models that have {ENOUGH} or more, "
            f"{taken['small orbit, not seen'].n if taken['small orbit, not seen'] else 0} of "
            "them with small ones.",
            "What counts as an orbit is decided by a classifier that abstains where it sees noise. "
            "A reader who abstains less is deceived more often. With the floor known it takes all "
            f"motion under {SMALL:.0%} of the norm for rest, so what is read then follows mostly "
            "from that rule and is in no check.",
            "Small models, with states of 48 or 64 numbers. All arithmetic is rounded here: a "
            "float32 residual stream with products in bfloat16 has a floor between the two.",
            "The bounds (1000 and 100 times, 0.15 from -1/2, one half, 95 %) are ours. The checks "
            "were written after a look at regimes, cosines and repeats of these models, and after "
            "an earlier version that did not count the hidden and the faked apart.",
        ),
    )


CLAIM = Claim(
    number=12,
    slug="bf16",
    title="In bfloat16 the end of a loop is rounding: what it hides, and what it fakes",
    paper=(
        "A public self-audit of work on the geometry of Huginn's trajectories "
        "(Geometry-of-Reasoning-Trajectories, audit of 2026-07-25)"
    ),
    says=(
        "In bfloat16 the tail of Huginn's trajectories (from about iteration 15) is rounding "
        "noise: the step norm falls about 70-fold and then stays, successive steps have a cosine "
        "of -0.33 there after +0.08 while the state converges, and restarts stop approaching each "
        "other at the floor. Noise about a fixed point gives a cosine of -0.5. Oscillations that "
        "are read in the tail are suspect: they may be the arithmetic's and not the model's."
    ),
    does=(
        "Models that settle (claim 2's, one a seed, and two bundled ones) are recorded from the "
        "same prompts and initial states in float64, in float32, in float32 with weights rounded "
        "to bfloat16, and all in bfloat16. What float64 shows, stored in float32, is the truth. "
        "The bfloat16 states are judged twice: with their floor known, and as if of float32. "
        "What is hidden (rest and orbits that are not seen) and what is faked (motion shown where "
        "there is rest) is counted apart."
    ),
    robust=("steps stop falling over 1000 times as high as in float32",),
    run=run,
)


if __name__ == "__main__":
    CLAIM.main()
