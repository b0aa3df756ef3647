"""What claim 11 trains and measures: answers by loops, by written steps, and their operations."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from looplens.analysis import flops
from looplens.gallery import Scale
from looplens.models import LoopedTransformer
from looplens.tasks import get_task
from looplens.training import Recipe, Stage, evaluate, k_by_l

SILENT, WRITTEN = "group", "group:chain=true"
LAYERS = 2
NEAR = 0.02  # on the draw that chooses: accuracy this close to the best counts as reached


def length(scale: Scale) -> int:
    """Return the number of elements to multiply."""
    return scale.pick(smoke=3, quick=8, full=12)


def depths(scale: Scale) -> tuple[int, ...]:
    """Return the numbers of loops; a model is trained for each, and read after just as many."""
    return scale.pick(smoke=(1, 2), quick=(1, 2, 3, 4), full=(1, 2, 3, 4, 6))


def recipes(seed: int, scale: Scale) -> dict[int | str, Recipe]:
    """Describe models of the same layers: one for each number of loops, one with written steps."""
    most = length(scale)

    def described(task: str, loops: int, name: str, curriculum: tuple[Stage, ...]) -> Recipe:
        return k_by_l(
            task,
            LAYERS,
            loops,
            d_model=scale.pick(smoke=16, quick=48, full=64),
            n_ctx=64,
            name=f"{name}-{seed}",
            steps=scale.pick(smoke=60, quick=2000, full=6000),
            batch=scale.pick(smoke=16, quick=64, full=64),
            learning_rate=2e-3,
            curriculum=curriculum,
            model={"d_vocab": len(get_task(task).vocabulary)},
            seed=seed,
        )

    growing = tuple(
        Stage(share=share, length=size, difficulty=(1, size))
        for share, size in ((0.1, 2), (0.15, 3), (0.25, max(3, most // 2)), (0.5, most))
    )
    # The positions of written steps depend on the length, so there is no curriculum of lengths.
    whole = (Stage(share=1.0, length=most, difficulty=(1, most)),)
    silent = {n: described(SILENT, n, f"{n} loops", growing) for n in depths(scale)}
    return {**silent, "written": described(WRITTEN, 1, "written", whole)}


def answers(
    model: LoopedTransformer, wanted: Recipe, scale: Scale, stream: str = "held_out"
) -> NDArray[np.float64]:
    """Return the accuracy of the product of the first 1, 2, ... elements, at the trained depth."""
    most = length(scale)
    found = evaluate(
        model,
        get_task(SILENT),
        wanted.generator(stream),
        iterations=[model.cfg.default_iterations],
        sequences=scale.pick(smoke=64, quick=1024, full=2048),
        length=most,
        difficulty=(1, most),
    )
    return np.array(found.accuracy_by_difficulty[0])


def chosen(loops: tuple[int, ...], accuracy: NDArray[np.float64]) -> list[int]:
    """Return by seed the fewest loops that come near the best; accuracy is (loops, seed)."""
    near = accuracy >= accuracy.max(axis=0) - NEAR
    return [loops[place] for place in near.argmax(axis=0)]


@torch.no_grad()
def written_answers(model: LoopedTransformer, wanted: Recipe, scale: Scale) -> float:
    """Let the model write its steps, each read again, and return the accuracy of the last one."""
    most = length(scale)
    drawn = get_task(WRITTEN).sample(
        wanted.generator("held_out"),
        scale.pick(smoke=64, quick=1024, full=2048),
        length=most,
        difficulty=(1, most),
    )
    text = torch.from_numpy(drawn.tokens[:, : most + 1])  # the elements and "="
    for _ in range(most):
        said = model(text, iterations=1)[:, -1].argmax(dim=-1, keepdim=True)
        text = torch.cat([text, said], dim=1)
    return float((text[:, -1].numpy() == drawn.targets[:, -1]).mean())


def operations(model: LoopedTransformer, tokens: int, iterations: int, readouts: int) -> float:
    """Return the operations of a whole text, in millions; the last tokens are read out."""
    places = np.arange(1, tokens + 1)
    counted = flops(model.cfg.to_dict(), keys=places)
    return float(counted.total(iterations, readouts=places > tokens - readouts).sum()) / 1e6
