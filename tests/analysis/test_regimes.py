import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from looplens.analysis import RegimeThresholds, classify
from looplens.errors import InputError
from looplens.testing import KINDS, make_system

pytestmark = pytest.mark.filterwarnings("error")
HELD_OUT = 770_000


def draws(kind, count=10, **options):
    return [make_system(kind, seed=HELD_OUT + draw, **options) for draw in range(count)]


def states_of(systems):
    return np.stack([system.states for system in systems])


@pytest.mark.parametrize("snr_db", [np.inf, 40, 20])
def test_known_regimes_are_told_apart_on_held_out_seeds(snr_db):
    systems = [s for kind in KINDS for s in draws(kind, iterations=64, snr_db=snr_db)]
    found = classify(states_of(systems))
    truth = np.array([system.truth for system in systems])
    known = truth != "unresolved"
    right = found.regime == truth
    assert right[known].mean() >= 0.98
    assert right[~known].mean() >= 0.85
    assert ((found.regime != "unresolved") & ~right).mean() < 0.01


@pytest.mark.parametrize("iterations", [32, 128])
def test_periods_of_orbits(iterations):
    systems = [
        system
        for kind in KINDS
        if kind.startswith("orbit")
        for system in draws(kind, count=8, iterations=iterations, snr_db=40)
    ]
    found = classify(states_of(systems))
    period = np.array([system.period for system in systems])
    orbit = found.regime == "orbit"
    assert orbit.mean() > 0.9
    ratio = found.period[orbit] / period[orbit]
    # In 16 states nine points of two turns can pass for nine of one.
    assert (np.abs(ratio - 1) > 0.03).mean() < 0.02
    np.testing.assert_allclose(ratio, np.round(ratio), rtol=0.03)
    assert np.isnan(found.period[~orbit]).all()


@pytest.mark.parametrize("period", [2, 6])
def test_period_of_a_cycle_of_codes_is_exact(period):
    codes = np.random.default_rng(1).normal(size=(period, 32)).astype(np.float32)
    found = classify(codes[np.arange(65) % period])
    assert found.regime == "orbit"
    assert found.period == period
    assert "periodic: period" in str(found.reason)


def test_exact_alternation_with_a_dying_transient_at_small_amplitude_is_annotated():
    rng = np.random.default_rng(2)
    rest, flip, start = rng.normal(size=(3, 64))
    t = np.arange(129)[:, None]
    states = rest + 0.05 * (-1.0) ** t * flip + 0.7**t * start
    found = classify(states.astype(np.float32))
    assert (found.regime, found.period) == ("orbit", 2)
    assert found.amplitude == pytest.approx(0.05, rel=0.2)
    assert "driven / small amplitude" in str(found.reason)


@pytest.mark.parametrize("kind", ["white_noise", "code_hops", "random_walk", "chaos_logistic"])
def test_motion_without_a_regime_never_becomes_a_fixed_point(kind):
    found = classify(states_of(draws(kind, count=30, iterations=64)))
    assert not (found.regime == "fixed_point").any()
    assert (found.regime == "unresolved").mean() >= 0.85


def test_a_constant_and_a_zero_trajectory_have_converged():
    states = np.stack([np.full((40, 8), 3.0), np.zeros((40, 8))])
    found = classify(states)
    assert found.regime.tolist() == ["fixed_point", "fixed_point"]
    assert found.amplitude.tolist() == [0.0, 0.0]
    assert str(found.reason[0]).startswith("converged")


def test_geometric_decay_that_is_not_over_is_a_fixed_point_with_its_rate():
    t = np.arange(65)[:, None]
    rest, start = np.random.default_rng(3).normal(size=(2, 16))
    found = classify(rest + 0.9**t * start)
    assert found.regime == "fixed_point"
    assert "each step is 0.9 of the one before" in str(found.reason)


def test_a_contraction_that_is_far_from_over_or_does_not_last_is_unresolved():
    t = np.arange(65)[:, None]
    rest, fast, slow = np.random.default_rng(3).normal(size=(3, 16))
    moving = rest + 3 * 0.97**t * fast
    fading = rest + 0.85**t * fast + 0.02 * 0.98**t * slow
    found = classify(np.stack([moving, fading]))
    assert found.regime.tolist() == ["unresolved", "unresolved"]
    assert "still moving: steps shrink, but the end still spreads by" in str(found.reason[0])
    assert "a contraction without a steady rate" in str(found.reason[1])


def test_growing_norm_is_a_slider_whose_direction_settles():
    t = np.arange(129)[:, None]
    rest, drift = np.random.default_rng(4).normal(size=(2, 64))
    found = classify((rest + 0.3 * t * drift).astype(np.float32))
    assert found.regime == "slider"
    assert found.unit_regime == "fixed_point"
    assert "do not settle" in str(found.reason)


def test_a_cycle_on_top_of_a_drift_drifts_and_a_transient_on_top_of_a_cycle_cycles():
    t = np.arange(129)[:, None]
    turn = np.concatenate([np.cos(t), np.sin(t)], axis=1)
    helix = np.concatenate([turn, 0.1 * t], axis=1)
    ending = np.concatenate([turn, 5 * 0.9**t], axis=1)
    found = classify(np.stack([helix, ending]) + 3.0)
    assert found.regime.tolist() == ["slider", "orbit"]


def noise(rng, states, snr_db):
    size = np.sqrt(((states - states.mean(0)) ** 2).sum(1).mean()) * 10 ** (-snr_db / 20)
    return states + size * rng.normal(size=states.shape) / states.shape[1] ** 0.5


def test_chaos_in_bands_narrower_than_the_noise_is_no_orbit():
    rng = np.random.default_rng(10)
    found = []
    for _ in range(20):
        values = [rng.uniform(0.2, 0.8)]
        for _ in range(264):
            values.append(3.6 * values[-1] * (1 - values[-1]))
        states = 1 + np.array(values[-65:])[:, None] * np.eye(64)[0]
        found.append(classify(noise(rng, states, 10), unit=False, surrogates=0).regime)
    assert (np.array(found) == "orbit").mean() <= 0.15
    # The same bands without the chaos in them.
    bands = np.array([0.33, 0.79, 0.58, 0.88])[np.arange(65) % 4]
    states = 1 + bands[:, None] * np.eye(64)[0]
    assert classify(noise(rng, states, 10)).period in (2, 4)


@pytest.mark.parametrize("snr_db", [np.inf, 20])
def test_turns_too_few_for_the_second_half_are_counted_in_the_whole_record(snr_db):
    rng = np.random.default_rng(11)
    angle = 2 * np.pi * (np.arange(129)[:, None] / 36.5 - np.arange(8) / 8)
    turn = np.exp(6 * np.cos(angle) - 6)  # pulses, one after the other
    found = classify(noise(rng, turn @ rng.normal(size=(8, 48)), snr_db))
    assert found.regime == "orbit"
    assert found.period == pytest.approx(36.5, rel=0.03)
    once = turn.copy()
    once[:70] *= np.linspace(2, 1, 70)[:, None]  # not yet twice the same turn
    assert classify(noise(rng, once @ rng.normal(size=(8, 48)), snr_db)).regime == "unresolved"


def test_a_drift_with_a_turn_smaller_than_the_noise_is_a_slider():
    rng = np.random.default_rng(12)
    t = np.arange(129)[:, None]
    helix = np.concatenate([0.2 * t, np.cos(t), np.sin(t), np.zeros((129, 61))], axis=1)
    assert classify(noise(rng, helix, 10)).regime == "slider"


def test_rounding_of_the_source_dtype_is_no_motion():
    rng = np.random.default_rng(5)
    noisy = 1.0 + 2e-3 * rng.normal(size=(65, 64))
    assert classify(noisy, source_dtype="bfloat16").regime == "fixed_point"
    assert classify(noisy, source_dtype="float32").regime == "unresolved"
    assert classify(noisy, source_dtype="torch.bfloat16").regime == "fixed_point"


def test_windows_that_disagree_abstain_and_say_so():
    rng = np.random.default_rng(6)
    states = rng.normal(size=(97, 32))
    states[70:] = states[70]
    states[:70] *= 3
    states[70:] += 1e-3 * np.cumsum(rng.normal(size=(27, 32)), axis=0)
    found = classify(states)
    assert found.regime == "unresolved"
    stopped_late = np.concatenate([np.arange(48.0), np.full(17, 48.0)])[:, None] * np.ones(24)
    found = classify(stopped_late + np.random.default_rng(7).normal(size=(65, 24)))
    assert found.regime == "unresolved"
    assert "windows disagree: last 50%" in str(found.reason)


def test_short_records_and_bad_states_are_unresolved_without_a_warning():
    rng = np.random.default_rng(8)
    assert str(classify(rng.normal(size=(15, 4))).reason) == "too short: 15 states, 16 are needed"
    states = rng.normal(size=(2, 3, 40, 4))
    states[0, 1, 7, 2] = np.nan
    states[1, 2, 0, 0] = -np.inf
    found = classify(states)
    assert found.regime.shape == (2, 3)
    assert found.reason[0, 1] == found.reason[1, 2] == "non-finite states"
    assert np.isnan(found.amplitude[0, 1])
    assert found.scores["linear_share"].shape == (2, 3)
    assert np.isfinite(found.scores["linear_share"][0, 0])
    assert classify(np.zeros((0, 40, 4))).regime.shape == (0,)


@pytest.mark.parametrize("size", [1e-300, 1e-20, 1e20, 1e300])
def test_size_of_the_states_does_not_matter(size):
    systems = [draws(kind, count=1)[0] for kind in KINDS]
    states = states_of(systems)
    np.testing.assert_array_equal(classify(states * size).regime, classify(states).regime)


@settings(max_examples=12, deadline=None, derandomize=True)
@given(st.sampled_from(KINDS), st.integers(0, 10_000), st.floats(-3, 3))
def test_rotation_and_scaling_of_the_space_change_nothing(kind, seed, exponent):
    states = make_system(kind, iterations=48, d_model=24, snr_db=30, seed=seed).states
    rotation, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(24, 24)))
    before, after = classify(states), classify(10**exponent * states @ rotation)
    assert before.regime == after.regime
    assert before.unit_regime == after.unit_regime
    np.testing.assert_allclose(after.amplitude, before.amplitude, rtol=1e-8)
    np.testing.assert_allclose(after.period, before.period, rtol=1e-6)


def test_each_trajectory_is_judged_alone(monkeypatch):
    systems = [system for kind in KINDS for system in draws(kind, count=2, snr_db=40)]
    states = states_of(systems)
    whole = classify(states)
    monkeypatch.setattr("looplens.analysis.algebra.moments._BYTES_PER_GROUP", 1)
    alone = classify(states[::-1])
    np.testing.assert_array_equal(whole.regime, alone.regime[::-1])
    np.testing.assert_array_equal(whole.reason, alone.reason[::-1])
    np.testing.assert_allclose(whole.period, alone.period[::-1])


def test_thresholds_travel_with_the_result_and_bad_ones_are_named():
    found = classify(np.zeros((20, 2)), tail=0.6, turns=3.0)
    assert found.thresholds == RegimeThresholds(tail=0.6, turns=3.0)
    with pytest.raises(InputError, match=r"Unknown threshold 'tale' of classify.*'tail'"):
        classify(np.zeros((20, 2)), tale=0.6)
    with pytest.raises(InputError, match=r"0 < confirm_tail <= tail <= 1; got tail=0\.2"):
        classify(np.zeros((20, 2)), tail=0.2)
    with pytest.raises(InputError, match="Unknown source dtype 'float8'; expected one of float64"):
        classify(np.zeros((20, 2)), source_dtype="float8")
    with pytest.raises(InputError, match=r"axes \(..., iteration, d_model\).*shape \(20,\)"):
        classify(np.zeros(20))


def test_one_dimension_and_every_short_length_work():
    rng = np.random.default_rng(9)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for length in (16, 17, 23, 31, 40):
            for d_model in (1, 2, 5):
                assert classify(rng.normal(size=(2, length, d_model))).regime.shape == (2,)
