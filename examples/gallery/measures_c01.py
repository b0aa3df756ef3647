"""What claim 1 trains and examines: its problems, held-out texts, accuracy and slopes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from looplens.gallery import Interval, Scale
from looplens.gallery import mean_interval as mean
from looplens.models import LoopedTransformer
from looplens.tasks import Batch, get_task
from looplens.training import Recipe, Stage, k_by_l


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """A task at one size: what is trained on it, for how long, and how it is examined."""

    name: str
    task: str
    curriculum: tuple[Stage, ...]
    steps: int
    depths: tuple[int, ...]  # effective depths; the last one is compared at length
    guess: float  # accuracy without the question
    examined: str = ""  # the task that draws held-out texts, where it is another one
    pairs: bool = False  # also loop two layers
    width: int = 48
    batch: int = 48
    learning_rate: float = 3e-3
    exact: bool = False  # whole answers count, not single tokens

    def recipe(self, k: int, loops: int, seed: int) -> Recipe:
        """Describe k layers run ``loops`` times; everything else is the same for all of them."""
        return k_by_l(
            self.task,
            k,
            loops,
            d_model=self.width,
            name=f"{self.name}-{k}x{loops}-{seed}",
            steps=self.steps,
            batch=self.batch,
            learning_rate=self.learning_rate,
            warmup=min(50, self.steps // 4),
            curriculum=self.curriculum,
            seed=seed,
        )

    def looped(self) -> list[tuple[int, int]]:
        """Return the (k, L) that are compared with k layers and with k * L layers."""
        depth = self.depths[-1]
        return [(1, depth), (2, depth // 2)] if self.pairs else [(1, depth)]

    def shapes(self) -> list[tuple[int, int]]:
        """Return the (k, L) that are trained: looped layers, and plain models."""
        single = [(1, depth) for depth in (1, *self.depths)]
        plain = [(depth, 1) for depth in (*self.depths, *(k for k, _ in self.looped()))]
        return list(dict.fromkeys([*single, *plain, *self.looped()]))


def stages(length: int, *tops: int, low: int = 1) -> tuple[Stage, ...]:
    """Let the hardest items come last: short stages, then 60 % of the steps on all of them."""
    first = 0.4 / max(len(tops) - 1, 1)
    shares = [first] * (len(tops) - 1) + [0.6]
    shares[-1] += 1.0 - sum(shares)
    return tuple(
        Stage(share=share, length=length, difficulty=(low, top))
        for share, top in zip(shares, tops, strict=True)
    )


def guess_of_hops(hops: int) -> float:
    """Return the best accuracy on p-hop from the last letter alone.

    Letters of a chain differ from their neighbours in it, otherwise all four are alike: the answer
    is the last letter again with probability s_p = (1 - s_(p-1)) / 3, s_0 = 1.
    """
    again = 1.0
    for _ in range(hops):
        again = (1 - again) / 3
    return max(again, (1 - again) / 3)


def commonest(task: str, length: int, difficulty: tuple[int, int]) -> float:
    """Return the share of the most frequent answer."""
    drawn = get_task(task).sample(
        np.random.default_rng(0), 2000, length=length, difficulty=difficulty
    )
    return float(np.unique(drawn.targets[drawn.targets >= 0], return_counts=True)[1].max()) / int(
        (drawn.targets >= 0).sum()
    )


def problems(scale: Scale) -> list[Problem]:
    """Return the tasks with the sizes of this scale; i-GSM learns too slowly for less than full."""
    tops = scale.pick(smoke=(1,), quick=(1, 2, 4), full=(1, 2, 4, 6))
    p_hop = Problem(
        name="p-hop",
        task="phop",
        examined="phop:last=true",
        curriculum=stages(scale.pick(smoke=16, quick=24, full=32), *tops),
        steps=scale.pick(smoke=220, quick=1000, full=2400),
        depths=scale.pick(smoke=(2,), quick=(1, 2, 4), full=(1, 2, 4, 6)),
        guess=float(np.mean([guess_of_hops(p) for p in range(1, tops[-1] + 1)])),
        pairs=scale.name != "smoke",
        width=scale.pick(smoke=32, quick=48, full=64),
        batch=32,
    )
    addition = Problem(
        name="addition",
        task="addition:digits=2",
        curriculum=stages(3, 2, 3, low=2),
        steps=scale.pick(smoke=3, quick=1300, full=6000),
        depths=scale.pick(smoke=(2,), quick=(4,), full=(4,)),
        guess=0.0075,  # the most frequent sum of three numbers below 100
        batch=64,
        learning_rate=4e-3,
        exact=True,
    )
    if scale.name != "full":
        return [p_hop, addition]
    i_gsm = Problem(
        name="i-GSM",
        task="igsm:questions=4",
        curriculum=stages(4, 1, 3),
        steps=2500,
        depths=(4,),
        guess=commonest("igsm:questions=4", 4, (1, 3)),
        batch=64,
    )
    return [p_hop, addition, i_gsm]


def operands(text: str) -> tuple[str, ...]:
    """Return the numbers of a sum, whatever their order."""
    return tuple(sorted(text.split("=")[0].split("+")))


def trained_on(recipe: Recipe) -> set[tuple[str, ...]]:
    """Return the sums that a training on addition drew."""
    task, found = get_task(recipe.task), set()
    for step in range(recipe.steps):
        found.update(operands(task.decode(row)) for row in recipe.training_batch(step).tokens)
    return found


def held_out(problem: Problem, seed: int, scale: Scale) -> Batch:
    """Draw texts for all shapes of one seed.

    Sums have the most numbers, and those that training drew are left out.
    """
    recipe = problem.recipe(1, 1, seed)
    task, last = get_task(problem.examined or problem.task), recipe.curriculum[-1]
    low, top = last.difficulty
    batch = task.sample(
        recipe.generator("held_out"),
        scale.pick(smoke=64, quick=1024, full=2048),
        length=last.length,
        difficulty=(top if problem.exact else low, top),
    )
    if not problem.exact:
        return batch
    known = trained_on(recipe)
    return task.label(
        batch.tokens[[operands(task.decode(row)) not in known for row in batch.tokens]]
    )


@torch.no_grad()
def score(model: LoopedTransformer, batch: Batch, loops: int, exact: bool) -> np.ndarray:
    """Return accuracy on all items and then on each difficulty, shape (1 + difficulty,)."""
    said = model(torch.from_numpy(batch.tokens), iterations=loops).argmax(dim=-1).numpy()
    asked = batch.targets >= 0
    right, level = said == batch.targets, batch.metadata["difficulty"]
    if exact:
        right, level = (right | ~asked).all(axis=1), np.nanmax(level, axis=1)
    else:
        right, level = right[asked], level[asked]
    return np.array([right.mean(), *(right[level == d].mean() for d in np.unique(level))])


def slope(depths: tuple[int, ...], accuracy: np.ndarray) -> np.ndarray:
    """Return alpha of accuracy = alpha log2(depth) + beta, one for each seed."""
    return np.polyfit(np.log2(depths), accuracy.T, 1)[0]


def gap_closed(one: np.ndarray, looped: np.ndarray, deep: np.ndarray) -> Interval | None:
    """Return %Gap by seed; none where depth gains less than 5 points for some seed."""
    gain = deep - one
    return mean((looped - one) / gain) if (gain > 0.05).all() else None
