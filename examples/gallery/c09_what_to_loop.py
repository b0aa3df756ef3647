"""Claim 9: choosing what to loop: the span between the knees of the angular distance."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from looplens.analysis import LoopSpan, flops
from looplens.gallery import Claim, Interval, Outcome, Picture, Scale, Table, paired, train_all
from looplens.gallery.intervals import above, share_interval
from looplens.gallery.pictures import lines
from looplens.models import LoopedTransformer
from looplens.plots import loop_span
from looplens.tasks import get_task
from looplens.training import Recipe, Stage, etd_recipe, evaluate, k_by_l, span_to_loop

TASK = "group"  # products in S3, six elements
LAYERS = 12
WIDEST = LAYERS // 2  # a wider span leaves no others to compare it with
GUESS = 1 / 6
FROM = 3  # shorter products are left out: see the limits
ONE, FEW, KNEES = "one pass", "knee span, two passes", "knee span"
OTHERS, WIDE = "other spans of that width", "wide span, two passes"


@dataclass(frozen=True)
class Split:
    """Layers ``start`` to ``stop - 1`` are looped, ``passes`` times."""

    start: int
    stop: int
    passes: int

    def __str__(self) -> str:
        return f"{self.start}-{self.stop - self.start}*{self.passes}-{LAYERS - self.stop}"

    @property
    def layer_passes(self) -> int:
        """Layers that a token goes through."""
        return LAYERS + (self.passes - 1) * (self.stop - self.start)


Splits = Mapping[str, Sequence[Split]]  # by role
Key = tuple[int, str, Split]  # seed, role, split


def plain(seed: int, scale: Scale) -> Recipe:
    """Describe the plain model that the others continue from."""
    width, steps, batch, most, rate = scale.pick(
        smoke=(16, 20, 8, 4, 4e-3), quick=(32, 1000, 64, 8, 4e-3), full=(48, 5000, 64, 12, 2e-3)
    )
    stages = ((0.2, 2), (0.2, most // 2), (0.6, most))
    return k_by_l(
        TASK,
        LAYERS,
        1,
        d_model=width,
        n_ctx=32,
        name=f"etd-plain-{seed}",
        steps=steps,
        batch=batch,
        learning_rate=rate,
        warmup=50,
        curriculum=tuple(Stage(share=x, length=n, difficulty=(1, n)) for x, n in stages),
        seed=seed,
    )


def further(base: Recipe, role: str, split: Split, scale: Scale) -> Recipe:
    """Describe the continued training of one split, at a rate that falls nearly from the start."""
    steps = scale.pick(smoke=5, quick=250, full=1000)
    made = etd_recipe(base, split.start, split.stop, split.passes, steps=steps, learning_rate=1e-3)
    settings = {"warmup": 20, "decay_share": 0.9, "batch": min(base.batch, 32)}
    return dataclasses.replace(made, name=f"{base.name}-{role}-{split}", **settings)


def window(span: LoopSpan, scale: Scale) -> tuple[int, int] | None:
    """Return the layers between the knees, at smoke size the middle third where there are none."""
    if not span.reason and span.stop - span.start <= WIDEST:
        return span.start, span.stop
    return (LAYERS // 3, 2 * LAYERS // 3) if scale.name == "smoke" else None


def splits(start: int, stop: int, others: int) -> dict[str, list[Split]]:
    """Return what is trained on, by its role; the last three go through equally many layers.

    About eight layers are run again. The wide span has as many layers as that and takes them twice,
    as the paper compares 7-4*4-5 with 2-12*2-2. The others of the width are spread evenly over all
    that there are, the first and the last layers among them.
    """
    width = stop - start
    passes = max(3, 1 + round(8 / width))
    again = width * (passes - 1)
    first = (LAYERS - again) // 2
    places = [place for place in range(LAYERS - width + 1) if place != start]
    spread = np.linspace(0, len(places) - 1, min(others, len(places))).round().astype(int)
    return {
        ONE: [Split(0, LAYERS, 1)],
        FEW: [Split(start, stop, 2)],
        KNEES: [Split(start, stop, passes)],
        OTHERS: [Split(places[i], places[i] + width, passes) for i in spread],
        WIDE: [Split(first, first + again, 2)],
    }


def accuracy(model: LoopedTransformer, recipe: Recipe, scale: Scale) -> np.ndarray:
    """Return held-out accuracy by number of elements, from FROM, at the depth that was trained."""
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
    return np.array(found.accuracy_by_difficulty[0])[FROM - 1 :]


@dataclass(frozen=True)
class Found:
    """Accuracies by seed, role and split, and by role."""

    each: Mapping[Key, float]
    seeds: Sequence[int]

    def right(self, role: str) -> np.ndarray:
        """Return the accuracy of a role by seed, mean over its splits."""
        mine = {key: value for key, value in self.each.items() if key[1] == role}
        return np.array([np.mean([mine[k] for k in mine if k[0] == s]) for s in self.seeds])

    def over(self, role: str, other: str) -> Interval:
        """Return the difference in accuracy of two roles, paired by seed."""
        return paired(self.right(role), self.right(other))


def run(scale: Scale) -> Outcome:
    """Train plain models, find their knees, train on with each split, and compare."""
    count, others = scale.pick(smoke=(1, 1), quick=(4, 3), full=(5, LAYERS))
    bases = [plain(seed, scale) for seed in range(count)]
    models = train_all(bases, scale)
    spans = [span_to_loop(models[base.name], base) for base in bases]
    learned = np.stack([accuracy(models[base.name], base, scale) for base in bases])
    wanted: dict[int, Splits] = {
        base.seed: splits(*place, others)
        for base, span in zip(bases, spans, strict=True)
        if (place := window(span, scale)) is not None
    }
    recipes = {
        (seed, role, split): further(bases[seed], role, split, scale)
        for seed, mine in wanted.items()
        for role, some in mine.items()
        for split in some
    }
    trained = train_all(recipes.values(), scale)
    each = {key: accuracy(trained[r.name], r, scale).mean() for key, r in recipes.items()}
    found = Found(each, list(wanted))
    first, middle, last = np.stack([s.distance.reshape(3, -1).mean(axis=1) for s in spans]).T
    contests = {
        "the knee span, looped, beats one pass": (KNEES, ONE),
        "more than two passes of it beat two": (KNEES, FEW),
        "it beats the other spans of its width at equal cost": (KNEES, OTHERS),
        "it beats a wide span looped twice at equal cost": (KNEES, WIDE),
    }
    return Outcome(
        checks={
            "plain models have a span between two knees": {count: True, 0: False}.get(len(wanted)),
            "the first third of layers turns the state more than the middle": above(
                paired(first, middle)
            ),
            "the last third turns it more than the middle": above(paired(last, middle)),
            **{name: above(found.over(*two)) for name, two in contests.items() if wanted},
        },
        sanity={
            "spans that are compared go through equally many layers": all(
                len({s.layer_passes for role in (KNEES, OTHERS, WIDE) for s in mine[role]}) == 1
                for mine in wanted.values()
            )
        },
        tables=[_spans(bases, spans, learned), *([_accuracies(found, recipes)] if wanted else [])],
        pictures=[
            Picture(
                name="span",
                figure=loop_span(spans[0], name=bases[0].name),
                caption="Angular distance that each layer of the first seed's plain model adds.",
            ),
            *([_places(found)] if wanted else []),
        ],
        summary=_summary(found, learned),
        limits=(
            f"Models of {LAYERS} narrow layers, one task, {len(wanted)} seeds; the paper has 16 "
            "layers and language. Neither facts nor the exit router are tried.",
            "Task and sizes were chosen on plain models, for a task learned in part: arithmetic "
            "was hardly learned, and most models of 6 layers had no span. Shorter further training "
            "at the full rate left all splits alike and below the plain model; its steps and rate "
            "were then chosen on one pass alone.",
            f"Models without a span of at most {WIDEST} layers take no part in the comparisons. At "
            f"most {others} other spans of a width are trained. Steps are equal, not their cost.",
            "Without a token that starts the text, an element twice looks to the model like the "
            f"element once, so products of fewer than {FROM} elements are left out.",
            "The paper's text was not at hand: sensitivity 1, and that knee layers belong to "
            "encoder and decoder, is our reading. Thirds and spans of one width are ours too.",
        ),
    )


def _summary(found: Found, learned: np.ndarray) -> str:
    said = (
        f"The plain models are right on {share_interval(learned.mean(axis=1)):.2f} of products of "
        f"{FROM} and more elements (guessing: {GUESS:.2f}); {len(found.seeds)} of {len(learned)} "
        f"have a span of at most {WIDEST} layers between two knees."
    )
    if not found.seeds:
        return said
    gain, rest, wide = (found.over(KNEES, role) for role in (ONE, OTHERS, WIDE))
    word = {True: "better than", False: "worse than", None: "not to be told from"}
    return (
        f"{said} Further training with one pass takes them to "
        f"{share_interval(found.right(ONE)):.2f}. Looping the span changes that by {gain:+.3f}, "
        f"other spans of its width by {found.over(OTHERS, ONE):+.3f}. It is {word[above(rest)]} "
        f"these ({rest:+.3f}) and {word[above(wide)]} a wide span looped twice ({wide:+.3f})."
    )


def _places(found: Found) -> Picture:
    curves, ringed = {}, []
    for seed, base in zip(found.seeds, found.right(ONE), strict=True):
        mine = {key: right - base for key, right in found.each.items() if key[0] == seed}
        spans = sorted((k[2].start, gain) for k, gain in mine.items() if k[1] in (KNEES, OTHERS))
        curves[f"seed {seed}"] = tuple(zip(*spans, strict=True))
        ringed += [(k[2].start, gain) for k, gain in mine.items() if k[1] == KNEES]
    drawn = lines(
        curves,
        title="What looping a span brings, by its place",
        x="first looped layer",
        y="accuracy over one pass",
    )
    x, y = zip(*ringed, strict=True)
    ring = {"symbol": "circle-open", "size": 18, "color": "black", "line": {"width": 2}}
    drawn.add_scatter(x=x, y=y, mode="markers", marker=ring, name=KNEES)
    caption = (
        "Spans of one seed have one width and as many passes. Ringed: those between the knees. "
        "Intervals over seeds are in the table."
    )
    return Picture(name="places", figure=drawn, caption=caption)


def _spans(bases: Sequence[Recipe], spans: Sequence[LoopSpan], learned: np.ndarray) -> Table:
    rows = []
    for base, span, right in zip(bases, spans, learned, strict=True):
        by_length, distance = (" ".join(f"{v:.2f}" for v in vs) for vs in (right, span.distance))
        place = "none" if span.reason else f"layers {span.start} to {span.stop - 1}"
        rows.append([base.seed, by_length, distance, place])
    lengths, layers = f"accuracy at {FROM}, ... elements", "angular distance of layers 0, 1, ..."
    columns = ["seed", lengths, layers, "between the knees"]
    return Table(title="The plain models", columns=columns, rows=rows)


def _accuracies(found: Found, recipes: Mapping[Key, Recipe]) -> Table:
    rows = []
    for role in (ONE, FEW, KNEES, OTHERS, WIDE):
        mine = {key: recipe for key, recipe in recipes.items() if key[1] == role}
        looped = [" ".join(str(k[2]) for k in mine if k[0] == seed) for seed in found.seeds]
        cost = np.mean(
            [flops(r.model.to_dict(), 4).total(key[2].passes) for key, r in mine.items()]
        )
        over = None if role == ONE else found.over(role, ONE)
        right = share_interval(found.right(role))
        rows.append([role, "; ".join(looped), float(cost) / 1e6, right, over])
    columns = ["looped", "split; by seed", "Mflop of the 4th token", "accuracy", "over one pass"]
    return Table(title="Accuracy after the further training", columns=columns, rows=rows)


CLAIM = Claim(
    number=9,
    slug="what-to-loop",
    title="The span between the knees of the angular distance is the one to loop",
    paper="Koishekenov et al., Encode, Think, Decode, arXiv:2510.07358 (as summarised by others)",
    says=(
        "Knees of the angular distance that each layer adds, one from the front and one from the "
        "back, bound the layers to loop: 7-4*k-5 for OLMo-2-1B. Trained on with up to five passes, "
        "GSM8K rises from 44.05 to 56.56 (k=5) and facts hardly; 7-4*4-5 beats 2-12*2-2 and "
        "7-4*5-5 beats 0-16*2-0 at equal cost."
    ),
    does=(
        f"Plain models of {LAYERS} layers learn running products in the group S3. Knees are taken "
        "at the last token. Training goes on for equal steps with one pass, with the span between "
        "the knees looped, with other spans of its width and as many passes, and with a wide span "
        "looped twice; the last three send a token through equally many layers."
    ),
    run=run,
)

if __name__ == "__main__":
    CLAIM.main()
