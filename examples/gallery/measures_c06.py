"""What claim 6 measures: stages of inference by loop and layer, and how alike profiles are."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

import looplens
from looplens import analysis
from looplens.analysis.measures.stages import (
    STAGES,
    attention_stages,
    matrix_entropy,
    profile_correlation,
    sink_rate,
)
from looplens.gallery import Scale
from looplens.models import LoopedTransformer
from looplens.plots import Figure, compare_stages
from looplens.recording import Intervention, applied
from looplens.tasks import Task, get_task

ASKED = "phop:last=true"
LAYERS = 4
Profiles = NDArray[np.float64]  # (stage, loop, layer)


def profiles(
    model: LoopedTransformer, tokens: NDArray[np.int64], loops: int, without: str = ""
) -> Profiles:
    """Return the four stages, means over heads and texts; a feed-forward model is cut in loops.

    Parameters
    ----------
    without : str
        A site of the core, such as ``core.1.hook_mlp_out``, that gives zeros in every loop.
    """
    with applied(model, [Intervention.ablate(without)] if without else []):
        trace = looplens.trace(model, torch.from_numpy(tokens), loops, attention=True)
    found = attention_stages(trace.attention.numpy())  # (loop, layer, text, head)
    values = {
        "concentration": found.concentration.mean((-2, -1)),
        "sink_rate": sink_rate(found.sink_score, found.sink_baseline).mean(-1),
        "mixing": found.mixing.mean((-2, -1)),
        "matrix_entropy": matrix_entropy(trace.layer_states.numpy()).mean(-1),
    }
    return np.stack([values[name] for name in STAGES]).reshape(len(STAGES), -1, LAYERS)


def following(found: Profiles) -> NDArray[np.float64]:
    """Correlate over the layers each loop with the one after it, (stage, loop)."""
    return profile_correlation(found[:, 1:], found[:, :-1])


def mirrored(found: Profiles, deep: Profiles) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Correlate loops from the second on with a feed-forward model, means over loops, (stage,).

    First with the whole of it, its layers averaged in as many groups as a loop has layers, then
    with the layers at the same depth.
    """
    groups = deep.reshape(len(deep), LAYERS, -1).mean(-1)
    whole = profile_correlation(found[:, 1:], groups[:, None])
    return whole.mean(1), profile_correlation(found[:, 1:], deep[:, 1:]).mean(1)


def kept(found: Profiles, intact: Profiles) -> NDArray[np.float64]:
    """Correlate loops from the second on with those of the intact model; a flat profile has 0."""
    return np.nan_to_num(profile_correlation(found[:, 1:], intact[:, 1:])).mean(1)


def settled(model: LoopedTransformer, tokens: NDArray[np.int64], loops: int) -> float:
    """Share of trajectories, of all tokens and layers, that end in a fixed point."""
    trace = looplens.trace(model, torch.from_numpy(tokens), loops)
    states = np.stack([trace.trajectories(layer) for layer in range(LAYERS)])
    return float((analysis.classify(states, surrogates=0).regime == "fixed_point").mean())


def side_by_side(
    looped: LoopedTransformer, deep: LoopedTransformer, hardest: dict[str, int], scale: Scale
) -> Figure:
    """Draw the stages of a looped model beside those of a feed-forward model."""
    prompts = get_task(ASKED).prompts(scale.pick(smoke=4, quick=24, full=48), seed=100, **hardest)
    runs = [
        looplens.record(
            model,
            prompts,
            out=scale.run_folder(f"stages-{name}"),
            attention=True,
            progress=False,
            overwrite=True,
        )
        for name, model in (("looped", looped), ("feed-forward", deep))
    ]
    return compare_stages(*runs, loops=looped.cfg.default_iterations)


def guessing(task: Task, hardest: dict[str, int]) -> float:
    """How often the best rule that looks at one place alone, counted from the end, is right."""
    drawn = task.sample(np.random.default_rng(1), 4000, **hardest)
    return float((drawn.tokens[:, 1:] == drawn.targets[:, -1:]).mean(0).max())
