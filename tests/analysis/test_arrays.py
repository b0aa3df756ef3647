import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from looplens.analysis import (
    attention_change,
    classify,
    convergence,
    cycle,
    path_independence,
    pca,
    prediction_flips,
    prediction_settling,
)
from looplens.errors import InputError

pytestmark = pytest.mark.filterwarnings("error")


def decays(rates, iterations=60, d_model=12, floor=0.0, seed=0):
    rng = np.random.default_rng(seed)
    t = np.arange(iterations + 1)[:, None]
    limit, start = rng.normal(size=(2, d_model))
    states = np.stack([limit + rate**t * start for rate in rates])
    return states + floor * rng.normal(size=states.shape)


def test_convergence_recovers_the_rate_above_the_floor():
    found = convergence(decays([0.5, 0.8], floor=1e-7))
    np.testing.assert_allclose(found.rate, [0.5, 0.8], rtol=0.02)
    assert (found.floor < 1e-5).all()
    assert found.signal_end[0] < found.signal_end[1] < 60
    assert found.distance_to_limit[0, -1] < 1e-6


def test_settling_is_the_first_step_after_the_last_large_one():
    states = np.ones((10, 2))
    states[1] = 1.5  # steps 1 and 2 are large
    states[6:] = 2.0  # and step 6
    found = convergence(np.stack([states, np.ones((10, 2)), np.arange(20.0).reshape(10, 2)]))
    assert found.settling_iteration[:2].tolist() == [7, 1]
    assert np.isnan(found.settling_iteration[2])
    assert convergence(states, tolerance=1.0).settling_iteration == 1


def test_radial_share_tells_growth_from_turning():
    t = np.arange(9)[:, None]
    growth = (1 + t) * np.ones(3)
    circle = np.concatenate([np.cos(0.01 * t), np.sin(0.01 * t)], axis=1)
    np.testing.assert_allclose(convergence(growth).radial_share, 1)
    np.testing.assert_allclose(convergence(circle).radial_share, 0, atol=1e-3)


def test_convergence_of_bad_states_is_nan_and_silent():
    states = np.zeros((3, 6, 4))
    states[1, 2, 3] = np.nan
    states[2, 0, 0] = np.inf
    found = convergence(states)
    assert found.relative_step[0].tolist() == [0] * 5
    assert np.isnan(found.relative_step[1:]).all()
    assert np.isnan(found.settling_iteration[1:]).all()
    with pytest.raises(InputError, match="at least two states; got 1"):
        convergence(np.zeros((1, 4)))
    with pytest.raises(InputError, match="tolerance must be positive"):
        convergence(states, tolerance=0)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(st.integers(0, 1000), st.floats(-5, 5))
def test_convergence_does_not_see_rotations_and_scales(seed, exponent):
    states = decays([0.6, 0.9], floor=1e-4, seed=seed)
    rotation, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(12, 12)))
    before, after = convergence(states), convergence(10**exponent * states @ rotation)
    np.testing.assert_allclose(after.relative_step, before.relative_step, rtol=1e-7)
    np.testing.assert_allclose(after.rate, before.rate, rtol=1e-6)
    np.testing.assert_array_equal(after.settling_iteration, before.settling_iteration)
    np.testing.assert_allclose(after.state_norm, 10**exponent * before.state_norm, rtol=1e-7)


def test_pca_agrees_with_the_singular_value_decomposition():
    states = np.random.default_rng(1).normal(size=(5, 7, 9)) * np.arange(1, 10) + 100
    found = pca(states, n_components=3)
    flat = states.reshape(-1, 9)
    _, singular, rows = np.linalg.svd(flat - flat.mean(0), full_matrices=False)
    np.testing.assert_allclose(
        found.explained_variance_ratio, (singular**2 / (singular**2).sum())[:3], rtol=1e-10
    )
    np.testing.assert_allclose(np.abs(found.components @ rows[:3].T), np.eye(3), atol=1e-8)
    largest = np.abs(found.components).argmax(1)
    assert (found.components[np.arange(3), largest] > 0).all()
    np.testing.assert_allclose(found.projection, (states - found.mean) @ found.components.T)


def test_pca_leaves_out_what_is_not_finite_and_takes_constants():
    states = np.random.default_rng(2).normal(size=(20, 4))
    spoilt = np.concatenate([states, np.full((1, 4), np.nan)])
    np.testing.assert_allclose(pca(spoilt, 2).components, pca(states, 2).components)
    assert np.isnan(pca(spoilt, 2).projection[-1]).all()
    assert pca(np.ones((5, 3))).explained_variance_ratio.tolist() == [0, 0, 0]
    with pytest.raises(InputError, match="at least one finite state"):
        pca(np.full((2, 3), np.nan))


def test_restarts_that_meet_and_restarts_that_do_not():
    rng = np.random.default_rng(3)
    t = np.arange(61)[:, None]
    limit, other = np.eye(8)[:2]
    starts = rng.normal(size=(3, 8))
    meeting = np.stack([limit + 0.7**t * start for start in starts])
    parting = np.stack([limit + 0.7**t * starts[0], other + 0.7**t * starts[1], meeting[2]])
    found = path_independence(np.stack([meeting, parting], axis=1))
    assert found.token_aa[0] == pytest.approx(1)
    assert found.token_aa[1] == pytest.approx(1 / 3)  # one pair of three agrees
    assert found.aa_score == pytest.approx(found.token_aa.mean())
    assert found.gap_rate[0] == pytest.approx(0.7, rel=0.05)
    assert found.final_gap[0] < 1e-8
    assert found.final_gap[1] > 0.5
    assert (found.gap_max >= found.gap).all()


@settings(max_examples=10, deadline=None, derandomize=True)
@given(st.permutations(range(4)))
def test_the_order_of_restarts_does_not_matter(order):
    states = np.random.default_rng(4).normal(size=(4, 3, 20, 6))
    before, after = path_independence(states), path_independence(states[list(order)])
    for name in ("gap", "gap_max", "gap_rate", "token_aa", "aa_score"):
        np.testing.assert_allclose(getattr(after, name), getattr(before, name), rtol=1e-9)


def test_path_independence_of_bad_and_zero_states():
    states = np.zeros((2, 3, 10, 4))
    states[0, 1, 2, 3] = np.nan
    found = path_independence(states)
    assert np.isnan(found.gap[1]).all()
    assert found.gap[0].tolist() == [0] * 10
    assert np.isnan(found.token_aa).all()  # zero has no direction
    assert np.isnan(found.aa_score)
    assert np.isnan(cycle(states).degeneracy).all()
    with pytest.raises(InputError, match="at least two restarts"):
        path_independence(states[:1])
    assert path_independence(np.zeros((2, 0, 10, 4))).token_aa.shape == (0,)


def test_layers_with_limits_of_their_own_and_layers_that_share_one():
    t = np.arange(41)[:, None]
    limits = np.eye(3)
    apart = np.stack([limit + 0.5**t for limit in limits])
    shared = np.stack([limits[0] + 0.5**t] * 3)
    found = cycle(np.stack([apart, shared]))
    assert found.distance.shape == (2, 3, 3)
    np.testing.assert_allclose(found.distance[0], np.sqrt(2) * (1 - np.eye(3)), rtol=1e-6)
    assert found.degeneracy == pytest.approx([0, 1], abs=1e-6)
    assert found.separation_ratio[0] > 1e5
    assert found.separation_ratio[1] == 0
    assert np.isnan(cycle(apart[:1]).separation_ratio)


def test_cycle_of_bad_states_is_nan():
    states = np.ones((2, 2, 8, 3))
    states[1, 0, -1, 0] = np.inf
    found = cycle(states)
    assert np.isnan(found.distance[1]).all()
    assert found.movement[0].tolist() == [0, 0]


def test_attention_change_is_total_variation():
    patterns = np.zeros((3, 1, 2, 2))  # iteration head query key
    patterns[..., 0] = 1
    patterns[1, 0, 1] = [0, 1]  # one of two queries moves all of its weight
    patterns[2] = 0.5
    np.testing.assert_allclose(attention_change(patterns)[:, 0], [0.5, 0.5])
    assert attention_change(patterns[:1]).shape == (0, 1)
    with pytest.raises(InputError, match="patterns"):
        attention_change(np.zeros((2, 2, 2)))


def test_predictions_flip_and_settle():
    predicted = np.array([[1, 2, 2, 3, 3], [4, 4, 4, 4, 4], [1, 1, 1, 1, 2]])
    assert prediction_flips(predicted).tolist() == [2, 0, 1]
    assert prediction_settling(predicted).tolist() == [4, 1, 5]


TAKERS = [
    (classify, 2, "(..., iteration, d_model)"),
    (convergence, 2, "(..., iteration, d_model)"),
    (pca, 1, "(..., d_model)"),
    (path_independence, 3, "(restart, ..., iteration, d_model)"),
    (cycle, 3, "(..., layer, iteration, d_model)"),
    (attention_change, 4, "(..., iteration, head, query, key)"),
]


@pytest.mark.parametrize(
    ("function", "axes", "expected"), TAKERS, ids=lambda part: getattr(part, "__name__", str(part))
)
def test_every_function_says_what_it_takes(function, axes, expected):
    good = np.random.default_rng(5).normal(size=(20,) * axes)
    for bad in (good[0] if axes > 1 else np.float64(1), good[..., :0]):
        with pytest.raises(InputError) as caught:
            function(bad)
        assert expected in str(caught.value)
        assert str(np.shape(bad)) in str(caught.value)
    for wrong in (good + 1j, good.astype(str), np.full(good.shape, None)):
        with pytest.raises(InputError, match="must hold real numbers; got dtype"):
            function(wrong)
    with pytest.raises(InputError, match="must be an array of real numbers"):
        function([[1.0, 2.0], [3.0]])
    function((100 * good).astype(np.int16))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_tensors_are_taken_as_they_are(dtype):
    torch = pytest.importorskip("torch")
    states = torch.randn(3, 20, 4, generator=torch.Generator().manual_seed(0))
    states = states.to(getattr(torch, dtype)).requires_grad_()
    np.testing.assert_allclose(
        convergence(states).state_norm,
        convergence(states.detach().double().numpy()).state_norm,
        rtol=1e-6,
    )
    with pytest.raises(InputError, match="must hold real numbers"):
        convergence(states.detach().to(torch.complex64))
