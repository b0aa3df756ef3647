"""Bundled models whose regimes are known: what looplens says of them is what they were made for."""

import numpy as np
import torch

import looplens
from looplens import analysis
from looplens.tasks import prompts_trained_on


def trace_of(name, prompts, iterations):
    """Run a bundled model on prompts of its task; also return their token ids."""
    drawn = prompts_trained_on(looplens.models.model_card(name), prompts, seed=5)
    ids = torch.tensor([prompt.token_ids for prompt in drawn])
    return looplens.trace(looplens.load_model(name), ids, iterations)


def test_each_layer_of_the_two_layer_core_has_a_fixed_point_of_its_own():
    trace = trace_of("phop-cycle-mini", 4, 96)
    states = np.stack([trace.trajectories(layer) for layer in range(2)], axis=-3)
    assert (analysis.classify(states, surrogates=0).regime == "fixed_point").mean() > 0.98
    cycle = analysis.cycle(states)
    assert np.median(cycle.distance[..., 0, 1]) > 0.5  # relative to their norms
    assert cycle.degeneracy.max() < 0.95
    assert cycle.separation_ratio.min() > 1e4
