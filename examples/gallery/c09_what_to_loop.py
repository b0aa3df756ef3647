"""Claim 9: choosing what to loop: the span between the knees of the angular distance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from looplens.analysis import LoopSpan, flops
from looplens.gallery import Claim, Interval, Outcome, Picture, Scale, Table, paired, train_all
from looplens.gallery import mean_interval as mean
from looplens.gallery.pictures import lines
from looplens.models import LoopedTransformer
from looplens.plots import loop_span
from looplens.tasks import get_task
from looplens.training import Recipe, Stage, etd_recipe, evaluate, k_by_l, span_to_loop

TASK = "affine"
LAYERS = 6
ONE, FEW, CHOSEN = "one pass", "chosen layers, two passes", "chosen layers"
FIRST, LAST, NEARLY_ALL = "first layers", "last layers", "all but the ends, twice"


@dataclass(frozen=True)
class Split:
    """Layers ``start`` to ``stop - 1`` are looped, ``passes`` times."""

    start: int
    stop: int
    passes: int

    def __str__(self) -> str:
        middle = f"{self.stop - self.start}*{self.passes}"
        return f"{self.start}-{middle}-{LAYERS - self.stop}"

    @property
    def layer_passes(self) -> int:
        """Layers that a token goes through."""
        return LAYERS + (self.passes - 1) * (self.stop - self.start)


def plain(seed: int, scale: Scale) -> Recipe:
    """Describe the plain model that the others continue from."""
    length = operations(scale)
    return k_by_l(
        TASK,
        LAYERS,
        1,
        d_model=scale.pick(smoke=16, quick=48, full=64),
        n_ctx=64,
        name=f"etd-plain-{seed}",
        steps=scale.pick(smoke=40, quick=1500, full=5000),
        batch=scale.pick(smoke=8, quick=32, full=64),
        learning_rate=2e-3,
        warmup=50,
        curriculum=(
            Stage(share=0.25, length=2, difficulty=(1, 2)),
            Stage(share=0.25, length=length // 2, difficulty=(1, length // 2)),
            Stage(share=0.5, length=length, difficulty=(1, length)),
        ),
        seed=seed,
    )


def operations(scale: Scale) -> int:
    """Return how many operations a text has."""
    return scale.pick(smoke=4, quick=10, full=12)


def further(base: Recipe, split: Split, scale: Scale) -> Recipe:
    """Describe the continued training of one split."""
    return etd_recipe(
        base,
        split.start,
        split.stop,
        split.passes,
        steps=scale.pick(smoke=15, quick=400, full=1500),
        learning_rate=2e-3,
        name=f"{base.name}-{split}",
    )


def window(span: LoopSpan) -> tuple[int, int]:
    """Return the layers to loop: those of the knees, or the middle third where there are none."""
    return (LAYERS // 3, LAYERS - LAYERS // 3) if span.reason else (span.start, span.stop)


def splits(span: LoopSpan, scale: Scale) -> dict[str, Split]:
    """Return what is trained on, by its role; all but the first two go through as many layers."""
    start, stop = window(span)
    width = stop - start
    passes = 1 + (LAYERS - 2) // width
    wanted = {
        ONE: Split(0, LAYERS, 1),
        FEW: Split(start, stop, 2),
        CHOSEN: Split(start, stop, passes),
        FIRST: Split(0, width, passes),
        LAST: Split(LAYERS - width, LAYERS, passes),
        NEARLY_ALL: Split(1, LAYERS - 1, 2),
    }
    return {
        role: wanted[role] for role in scale.pick(smoke=[ONE, CHOSEN], quick=wanted, full=wanted)
    }


def accuracy(model: LoopedTransformer, recipe: Recipe, scale: Scale) -> np.ndarray:
    """Return held-out accuracy by number of operations at the depth that was trained."""
    last = recipe.curriculum[-1]
    found = evaluate(
        model,
        get_task(TASK),
        recipe.generator("held_out"),
        iterations=[recipe.model.default_iterations],
        sequences=scale.pick(smoke=32, quick=1024, full=4096),
        length=last.length,
        difficulty=last.difficulty,
    )
    return np.array(found.accuracy_by_difficulty[0])


def cost(recipe: Recipe) -> float:
    """Return millions of operations of a token in the middle of a text."""
    middle = 1 + recipe.curriculum[-1].length
    return float(flops(recipe.model.to_dict(), middle).total(recipe.model.default_iterations)) / 1e6


def difference(found: dict[str, np.ndarray], one: str, other: str) -> Interval | None:
    """Return the difference in accuracy of two roles, paired by seed, where both were trained."""
    if one not in found or other not in found:
        return None
    return paired(found[one].mean(axis=1), found[other].mean(axis=1))


def run(scale: Scale) -> Outcome:
    """Train plain models, choose their spans, train on with each split, and compare."""
    bases = [plain(seed, scale) for seed in scale.seeds]
    models = train_all(bases, scale)
    spans = [span_to_loop(models[base.name], base) for base in bases]
    wanted = [splits(span, scale) for span in spans]
    recipes = {
        (role, base.seed): further(base, split, scale)
        for base, each in zip(bases, wanted, strict=True)
        for role, split in each.items()
    }
    trained = train_all({recipe.name: recipe for recipe in recipes.values()}.values(), scale)
    right = {  # role: (seed, operations)
        role: np.stack(
            [
                accuracy(trained[r.name], r, scale)
                for (which, _), r in recipes.items()
                if which == role
            ]
        )
        for role in wanted[0]
    }
    gains = {
        "the chosen layers, looped, beat one pass": difference(right, CHOSEN, ONE),
        "more passes of the chosen layers are better than two": difference(right, CHOSEN, FEW),
        "the chosen layers beat the first ones at equal cost": difference(right, CHOSEN, FIRST),
        "the chosen layers beat the last ones at equal cost": difference(right, CHOSEN, LAST),
        "the chosen layers beat nearly all of them twice": difference(right, CHOSEN, NEARLY_ALL),
    }
    known = {name: gain for name, gain in gains.items() if gain is not None}
    checks = {"the angular distance has a span between two knees": not any(s.reason for s in spans)}
    differences = "; ".join(f"{name}: {gain:+.3f}" for name, gain in known.items())
    chosen = ", ".join(str(each[CHOSEN]) for each in wanted)
    with_span = sum(not span.reason for span in spans)
    return Outcome(
        checks=checks | {name: gain.low > 0 for name, gain in known.items()},
        tables=[_accuracies(right, recipes, wanted), _spans(bases, spans)],
        pictures=[
            Picture(
                name="span",
                figure=loop_span(spans[0], name=bases[0].name),
                caption="Angular distance that each layer of the first seed's plain model adds.",
            ),
            Picture(
                name="operations",
                figure=lines(
                    {
                        role: (list(range(1, values.shape[1] + 1)), [mean(v) for v in values.T])
                        for role, values in right.items()
                    },
                    title="What further passes bring, by the operations before the answer",
                    x="operations",
                    y="accuracy",
                    y_range=(0, 1.02),
                ),
                caption="How far the running value is carried, after equal further steps.",
            ),
        ],
        summary=f"Plain models with a span between two knees: {with_span} of {len(spans)}; where "
        f"there is none, the middle third stands for it. Splits by seed: {chosen}. Differences in "
        f"accuracy: {differences}.",
        limits=(
            f"Models of {LAYERS} layers on one synthetic task, where the paper has 16 on language; "
            f"the knees are those of a curve of {LAYERS} points.",
            "Every split is trained on for equal steps, not for equal cost.",
            f"{len(scale.seeds)} seeds: effects smaller than their spread stay unproven.",
            "The paper's sensitivity of the knee and its text were not at hand; the exit router of "
            "its adaptive variant is not tried, nor are facts against reasoning.",
        ),
    )


def _accuracies(
    right: dict[str, np.ndarray],
    recipes: dict[tuple[str, int], Recipe],
    wanted: Sequence[dict[str, Split]],
) -> Table:
    rows = [
        [
            role,
            ", ".join(str(each[role]) for each in wanted),
            float(np.mean([cost(r) for (which, _), r in recipes.items() if which == role])),
            mean(values.mean(axis=1)),
            None if role == ONE else difference(right, role, ONE),
        ]
        for role, values in right.items()
    ]
    columns = ["looped", "split, by seed", "Mflop a token", "accuracy", "over one pass"]
    return Table(title="Accuracy after the further training", columns=columns, rows=rows)


def _spans(bases: Sequence[Recipe], spans: Sequence[LoopSpan]) -> Table:
    rows = [
        [base.seed, " ".join(f"{value:.3f}" for value in span.distance), str(span)]
        for base, span in zip(bases, spans, strict=True)
    ]
    columns = ["seed", "angular distance of layers 0, 1, ...", "span"]
    return Table(title="Spans of the plain models", columns=columns, rows=rows)


CLAIM = Claim(
    number=9,
    slug="what-to-loop",
    title="The span between the knees of the angular distance is the one to loop",
    paper="Koishekenov et al., Encode, Think, Decode, arXiv:2510.07358 (as summarised by others)",
    says=(
        "Early layers of a trained model turn the residual stream much, middle ones little, late "
        "ones much again. Knees of that curve bound the layers to loop: 7-4*k-5 for OLMo-2-1B. "
        "Trained on with up to five passes, GSM8K rises from 44.05 to 56.56 (k=5) and facts "
        "hardly; 7-4*4-5 beats 2-12*2-2 and 7-4*5-5 beats 0-16*2-0 at equal cost."
    ),
    does=(
        f"A plain model of {LAYERS} layers learns running arithmetic modulo 7. Knees are taken "
        "from its residual stream at the last token. Training goes on for equal steps with one "
        "pass, with the chosen layers looped, and with the first, the last and nearly all layers "
        "looped so that a token goes through as many layers."
    ),
    run=run,
)

if __name__ == "__main__":
    CLAIM.main()
