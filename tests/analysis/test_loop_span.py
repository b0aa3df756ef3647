"""Knees of curves whose knee is known, and the span between two of them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from looplens.analysis import angular_distance, choose_loop_span, kneedle
from looplens.errors import AnalysisError, InputError


def states_with(distances, prompts=3, d_model=8, seed=0):
    """Streams whose successive angles are the given shares of a half turn, each prompt its own."""
    rng = np.random.default_rng(seed)
    angle = np.pi * np.concatenate(([0.0], np.cumsum(distances)))
    made = []
    for _ in range(prompts):
        plane = np.linalg.qr(rng.normal(size=(d_model, 2)))[0]
        scale = rng.uniform(1, 50, size=(len(angle), 1))  # lengths do not matter
        made.append(scale * np.stack((np.cos(angle), np.sin(angle)), -1) @ plane.T)
    return np.array(made)


def two_knees(layers, encoder_end, decoder_start, floor=0.02):
    """Fall to the floor at one layer, rise from another on."""
    layer = np.arange(layers)
    down = np.clip(1 - layer / encoder_end, 0, None)
    up = np.clip((layer - decoder_start) / (layers - 1 - decoder_start), 0, None)
    return floor + 0.4 * down + 0.4 * up


def test_the_example_of_the_paper():
    """Figure 2 of Satopaa et al.: y = -1/x + 5 on ten points has its knee at x = 0.22."""
    curve = -1 / (np.linspace(0, 1, 10) + 0.1) + 5
    found = kneedle(curve, bend="rising")
    assert found.index == 2
    assert found.detected == (2,)
    assert found.difference.argmax() == 2
    assert kneedle(-curve).index == 2


@given(st.integers(6, 40), st.data())
def test_a_broken_line_has_its_knee_at_the_break(n, data):
    knee = data.draw(st.integers(1, n - 4))
    slope = data.draw(st.floats(0, 0.2))
    i = np.arange(n)
    curve = np.where(i <= knee, knee - i, -slope * (i - knee))
    assert kneedle(curve, sensitivity=0.5).index == knee
    scaled = kneedle(5.0 - 3 * curve, sensitivity=0.5, bend="rising")
    assert scaled.index == knee


def test_a_line_a_constant_and_the_other_bend_have_no_knee():
    assert kneedle(np.arange(9.0)[::-1]).index is None
    assert kneedle(np.ones(9)).index is None
    bulge = 1 - np.linspace(0, 1, 12) ** 3
    assert kneedle(bulge).index is None


def test_sensitivity_asks_for_flat_curve_after_the_knee():
    curve = np.array([1, 0.5, 0.1, 0.09, 0.08, 0.07])
    assert kneedle(curve, sensitivity=1).index == 2
    assert kneedle(curve, sensitivity=2).index == 2
    assert kneedle(curve, sensitivity=3).index is None


def test_the_highest_of_several_knees_is_chosen():
    curve = np.array([1, 0.7, 0.7, 0.7, 0.1, 0.08, 0.08, 0.08, 0.08])
    found = kneedle(curve)
    assert found.detected == (1, 4)
    assert found.index == 4


@pytest.mark.parametrize(
    ("curve", "options", "message"),
    [
        ([1, 2], {}, r"at least 3 points, got an array of shape \(2,\)"),
        ([1, np.nan, 2], {}, "finite values"),
        ([3, 2, 1], {"sensitivity": -1}, "sensitivity must not be negative, got -1"),
        ([3, 2, 1], {"bend": "up"}, "'falling' or 'rising', got 'up'"),
    ],
)
def test_bad_curves_are_refused(curve, options, message):
    with pytest.raises(InputError, match=message):
        kneedle(curve, **options)


def test_angles_are_shares_of_a_half_turn_and_keep_their_digits():
    wanted = np.array([0.5, 1e-9, 0.25, 0.999])
    seen = angular_distance(states_with(wanted))
    np.testing.assert_allclose(seen, np.tile(wanted, (3, 1)), rtol=1e-6)
    assert angular_distance([[1.0, 0], [-2.0, 0]]).tolist() == [1.0]
    assert np.isnan(angular_distance([[0.0, 0], [1.0, 0]])).all()
    with pytest.raises(InputError, match="at least two of them"):
        angular_distance(np.ones((1, 4)))


@pytest.mark.parametrize(
    ("layers", "encoder_end", "decoder_start"), [(16, 6, 11), (24, 3, 20), (32, 10, 25)]
)
def test_the_span_lies_between_the_knees(layers, encoder_end, decoder_start):
    wanted = two_knees(layers, encoder_end, decoder_start)
    span = choose_loop_span(states_with(wanted))
    np.testing.assert_allclose(span.distance, wanted, rtol=1e-6)
    assert (span.encoder_end, span.decoder_start) == (encoder_end, decoder_start)
    assert (span.start, span.stop) == (encoder_end + 1, decoder_start)
    assert span.n_layers == layers
    assert span.reason == ""
    assert f"loop {decoder_start - encoder_end - 1}" in str(span)


def test_the_split_of_olmo_2_1b_is_counted_as_published():
    span = choose_loop_span(states_with(two_knees(16, 6, 11)))
    assert str(span) == "encoder 7, loop 4 (layers 7 to 10), decoder 5"


def test_noise_over_prompts_averages_out():
    rng = np.random.default_rng(3)
    wanted = two_knees(20, 5, 14)
    noisy = wanted * rng.uniform(0.9, 1.1, size=(400, 20))
    span = choose_loop_span(np.concatenate([states_with(row, prompts=1) for row in noisy]))
    assert abs(span.encoder_end - 5) <= 1
    assert abs(span.decoder_start - 14) <= 1
    assert span.prompts == 400
    assert span.standard_error == pytest.approx(noisy.std(0, ddof=1) / 20)


def test_without_a_span_it_says_why():
    straight = choose_loop_span(states_with(np.linspace(0.4, 0.02, 12)))
    with pytest.raises(AnalysisError, match=r"no knee at the encoder .* by hand"):
        _ = straight.start
    assert str(straight).startswith("no span to loop: the angular distance has no knee")
    valley = choose_loop_span(states_with(two_knees(12, 5, 6)))
    with pytest.raises(AnalysisError, match="leaves no layer between them"):
        _ = valley.stop


def test_bad_states_are_refused():
    with pytest.raises(InputError, match="at least 3 layers; got an array of shape"):
        choose_loop_span(np.ones((2, 3, 4)))
    dead = states_with(two_knees(16, 6, 11))
    dead[1, 4] = 0
    with pytest.raises(InputError, match="layer 3 of prompt 1 is zero or not finite"):
        choose_loop_span(dead)
