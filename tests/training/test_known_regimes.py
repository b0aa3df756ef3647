"""Bundled models whose regimes are known: what looplens says of them is what they were made for."""

import numpy as np
import torch

import looplens
from looplens import analysis
from looplens.tasks import get_task, prompts_trained_on
from looplens.tasks.zoo import CLOCK
from looplens.training import evaluate


def trace_of(name, prompts, iterations, seed=5):
    """Run a bundled model on prompts of its task; also return their token ids."""
    drawn = prompts_trained_on(looplens.models.model_card(name), prompts, seed=seed)
    ids = torch.tensor([prompt.token_ids for prompt in drawn])
    return looplens.trace(looplens.load_model(name), ids, iterations)


def test_each_layer_of_the_two_layer_core_has_a_fixed_point_of_its_own():
    trace = trace_of("phop-cycle-mini", 4, 96, seed=11)
    states = np.stack([trace.trajectories(layer) for layer in range(2)], axis=-3)
    regimes = analysis.classify(states, surrogates=0)
    settled = regimes.regime == "fixed_point"
    assert settled[:3].all()
    # A rare natural one: few draws have it, and this seed was chosen because it does.
    assert set(regimes.regime[3][~settled[3]]) == {"orbit"}
    cycle = analysis.cycle(states)
    assert np.median(cycle.distance[..., 0, 1]) > 0.5  # relative to their norms
    assert cycle.degeneracy.max() < 0.95
    assert np.median(cycle.separation_ratio) > 1e5
    assert cycle.separation_ratio.min() > 3  # the orbit is smaller than the cycle over the layers


def test_clocks_turn_in_six_and_what_stands_still_is_at_most_driven_by_them():
    drawn = prompts_trained_on(looplens.models.model_card("zoo-mini"), 8, seed=5)
    ids = torch.tensor([prompt.token_ids for prompt in drawn])
    kind = np.array([prompt.token_metadata["difficulty"] for prompt in drawn])
    trace = looplens.trace(looplens.load_model("zoo-mini"), ids, 128)
    regimes = analysis.classify(trace.trajectories(0), surrogates=0)
    clocks = kind == CLOCK
    assert set(regimes.regime[clocks]) == {"orbit"}
    assert set(regimes.integer_period[clocks]) == {6.0}
    assert regimes.amplitude[clocks].min() > 0.5
    assert regimes.amplitude[~clocks].max() < 0.3
    assert set(regimes.regime[~clocks]) <= {"fixed_point", "orbit"}
    alone = ~clocks & ~np.maximum.accumulate(clocks, axis=1)  # no clock to the left: not driven
    assert set(regimes.regime[alone]) == {"fixed_point"}


def test_the_zoo_answers_right_at_every_number_of_iterations():
    task = get_task(looplens.models.model_card("zoo-mini")["task"])
    found = evaluate(
        looplens.load_model("zoo-mini"), task, np.random.default_rng(1), sequences=16, length=12,
        iterations=(1, 5, 12, 13, 40, 100),
    )  # fmt: skip
    assert min(found.accuracy) > 0.99


def test_without_injection_states_drift_on_at_a_constant_norm():
    trace = trace_of("phop-slider-mini", 12, 64)
    regimes = analysis.classify(trace.trajectories(), surrogates=0)
    sliders = regimes.regime == "slider"
    assert sliders.mean() > 0.15
    assert (regimes.kind[sliders] == "bounded").mean() > 0.9
    assert (regimes.regime == "orbit").mean() < 0.02
    assert np.median(regimes.straightness) > 0.8
    norms = trace.states[8:].norm(dim=-1)
    assert float(norms.max() / norms.min()) < 1.2
    step = (trace.states[1:] - trace.states[:-1]).norm(dim=-1) / trace.states[1:].norm(dim=-1)
    assert float(step[-1].median()) > 5e-4  # a thousand times what rounding leaves
