"""Exponents of maps whose exponents are known, how sure they are, and where a tail begins."""

import numpy as np
import pytest
import torch

from looplens.dynamics import lyapunov
from looplens.dynamics.exponents.averages import error_of_mean, kaplan_yorke, regime_of
from looplens.dynamics.exponents.benettin import along
from looplens.dynamics.exponents.windows import windows
from looplens.dynamics.maps.state_map import StateMap
from looplens.errors import AnalysisError, InputError

F64 = torch.float64


def many(function, starts):
    """A map of rows, with all starts at once."""
    return StateMap(function, starts.shape[1:], dtype=starts.dtype), starts


def test_a_linear_map_has_the_logarithms_of_its_moduli():
    turn = 0.9 * torch.tensor([[0.6, -0.8], [0.8, 0.6]], dtype=F64)
    matrix = torch.block_diag(turn, torch.tensor([[1.2, 5.0], [0.0, 0.3]], dtype=F64))
    mix = torch.randn(4, 4, dtype=F64, generator=torch.Generator().manual_seed(1))
    matrix = mix @ matrix @ mix.inverse()  # far from normal
    found = lyapunov(lambda s: matrix @ s, torch.zeros(4, dtype=F64), steps=600, k=4, discard=100)
    np.testing.assert_allclose(found.exponents, np.log([1.2, 0.9, 0.9, 0.3]), atol=2e-3)
    assert found.resolved.all()
    assert (found.errors < 5e-3).all()
    assert found.dimension == pytest.approx(2 + np.log(1.2 * 0.9) / -np.log(0.9), abs=0.05)


def henon_map(s):
    return torch.stack([1 - 1.4 * s[0] ** 2 + s[1], 0.3 * s[0]])


def test_henon_and_logistic_within_one_percent():
    draw = torch.rand(64, 2, dtype=F64, generator=torch.Generator().manual_seed(0))
    henon, starts = many(torch.vmap(henon_map), draw * 0.1)
    found = along(henon, starts, 400, 2, discard=50)
    first, second = found.exponents.mean(0)
    assert first == pytest.approx(0.41922, rel=0.01)  # Sprott, Chaos and Time-Series Analysis
    np.testing.assert_allclose(found.exponents.sum(1), np.log(0.3), atol=1e-9)  # |det J| = 0.3
    assert kaplan_yorke([first, second]) == pytest.approx(1.258, rel=0.01)

    one_start = lyapunov(henon_map, draw[0] * 0.1, steps=200, k=2, discard=50)
    assert one_start.dimension == pytest.approx(1.258, rel=0.05)
    logistic, starts = many(lambda x: 4 * x * (1 - x), 0.1 + 0.3 * draw[:, :1])
    found = along(logistic, starts, 400, 1, discard=20)
    assert found.exponents.mean() == pytest.approx(np.log(2), rel=0.01)
    # The errors of single rows are as large as the rows differ.
    spread = found.exponents[:, 0].std()
    assert 0.4 * spread < np.median(found.errors) < 2.5 * spread


def test_a_stable_orbit_has_negative_exponents_and_does_not_stand_still():
    r = 3.2
    start = torch.tensor([0.3], dtype=F64)
    found = lyapunov(lambda x: r * x * (1 - x), start, steps=200, discard=100)
    assert found.exponents[0] == pytest.approx(np.log(4 + 2 * r - r**2) / 2, rel=1e-6)


def test_lost_directions_and_rounding_are_told_apart():
    lost = lyapunov(lambda s: s * torch.tensor([0.5, 0.0]), torch.ones(2), steps=20, k=2, discard=2)
    assert lost.exponents[0] == pytest.approx(np.log(0.5), rel=1e-5)
    assert lost.resolved.tolist() == [True, False]
    thin = torch.tensor([[1.0, 1.0], [1.0, 1.0 + 1e-9]], dtype=F64)
    in_single = lyapunov(lambda s: thin.float() @ s, torch.ones(2), steps=5, k=2)
    assert in_single.resolved.tolist() == [True, False]
    in_double = lyapunov(lambda s: thin @ s, torch.ones(2, dtype=F64), steps=5, k=2)
    assert in_double.resolved.all()
    assert in_double.exponents.sum() == pytest.approx(np.log(1e-9), rel=1e-4)
    nothing = lyapunov(torch.zeros_like, torch.ones(2), steps=3, k=2)
    assert np.isneginf(nothing.exponents).all()
    assert nothing.resolved.all()  # no product, no rounding


@pytest.mark.parametrize(("second", "resolved"), [(1e-5, True), (1e-9, False)])
def test_what_rounding_leaves_of_a_direction_is_no_exponent(second, resolved):
    turn = torch.linalg.qr(torch.randn(24, 24, generator=torch.Generator().manual_seed(0)))[0]
    scale = torch.full((24,), second)
    scale[0] = 1.0
    found = lyapunov(lambda s: turn @ (scale * (turn.mT @ s)), torch.ones(24), steps=20, k=2)
    # Of 1e-9, single precision leaves noise in 23 dimensions, a hundred times too long.
    assert found.resolved.tolist() == [True, resolved]
    if resolved:
        np.testing.assert_allclose(found.exponents[1], np.log(second), rtol=1e-2)


def test_defective_repeated_and_neutral_maps():
    block = torch.tensor([[0.9, 1.0, 0.0], [0.0, 0.9, 1.0], [0.0, 0.0, 0.9]], dtype=F64)
    start = torch.zeros(3, dtype=F64)
    found = lyapunov(lambda s: block @ s, start, steps=1200, k=3, discard=400)
    np.testing.assert_allclose(found.exponents, np.log(0.9), atol=4e-3)  # powers of t fade slowly
    np.testing.assert_allclose(found.exponents.sum(), 3 * np.log(0.9), atol=1e-9)
    # A drift neither parts nor meets, however far from 0 it has come; nor does a closed curve.
    drift = lyapunov(lambda s: s + 0.1, torch.full((2, 2), 1e6), steps=20, k=2)
    np.testing.assert_allclose(drift.exponents, 0, atol=1e-6)
    assert np.isnan(drift.dimension)  # 2 of 4 exponents do not tell
    curve = lyapunov(
        lambda s: torch.stack([2.1 * s[0] * (1 - s[1]), s[0]]),  # the delayed logistic map
        torch.full((2,), 0.5, dtype=F64),
        steps=900,
        k=2,
        discard=300,
    )
    assert abs(curve.exponents[0]) < 2 * curve.errors[0] < 0.02
    assert curve.dimension == 1


def test_states_of_any_shape_and_dtype():
    number = lyapunov(lambda x: 0.5 * x, torch.tensor(1.0), steps=8)
    np.testing.assert_allclose(number.exponents, [np.log(0.5)], rtol=1e-6)
    half = lyapunov(lambda x: 0.5 * x, torch.ones(2, 3, dtype=torch.bfloat16), steps=8, k=6)
    np.testing.assert_allclose(half.exponents, np.log(0.5), rtol=1e-6)
    assert half.notes == ("the start of torch.bfloat16 was taken in torch.float32",)
    tiny = lyapunov(lambda x: 0.5 * x, torch.full((3,), 1e-20), steps=8, k=3)
    np.testing.assert_allclose(tiny.exponents, np.log(0.5), rtol=1e-6)


def test_kaplan_yorke_dimension():
    assert kaplan_yorke([0.9, 0.0, -14.57]) == pytest.approx(2 + 0.9 / 14.57)
    rows = [[-0.1, -0.2], [0.0, -1.0], [0.5, 0.2], [np.nan, -1.0], [0.5, np.nan], [0.5, -np.inf]]
    np.testing.assert_allclose(kaplan_yorke(rows), [0, 1, np.nan, np.nan, np.nan, 1])
    assert kaplan_yorke([0.5, -0.2], size=2) == 2  # there is no third one
    assert kaplan_yorke([-0.01, -0.5], [0.02, 0.01]) == 1
    assert kaplan_yorke([-0.01, -0.5], [0.002, 0.01]) == 0


def test_errors_and_regimes():
    noise = np.random.default_rng(0).normal(size=(400, 64, 1))
    errors = error_of_mean(noise)[:, 0]
    assert np.median(errors) == pytest.approx(1 / 8, rel=0.1)
    assert np.isnan(error_of_mean(noise[:, :7])).all()
    exponent = np.array([-0.2, -0.06, 0.0, 0.2, 0.2, np.nan, -np.inf])
    error = np.array([0.01, 0.01, 0.01, 0.01, np.nan, 0.01, np.nan])
    regime, margin, clear = regime_of(exponent, error)
    assert regime.tolist() == [
        *("settle", "settle", "marginal", "drift", "drift", "unknown", "settle")
    ]
    assert clear.tolist() == [True, False, True, True, False, False, True]
    np.testing.assert_allclose(margin[:4], [0.15, 0.01, 0.05, 0.15])


def settling(rate, steps=64):
    decay = np.array([rate**t for t in range(steps + 1)])[:, None]
    return np.concatenate([1 + decay, np.ones((steps + 1, 1))], axis=1)


def test_tails_begin_when_all_that_is_read_has_settled():
    turning = np.stack([np.cos(np.arange(65)), np.sin(np.arange(65))], axis=1)
    states = np.stack([settling(0.2), settling(0.5), settling(0.1), turning], axis=1)
    found = windows(states, first=0, causal=True, rounding=3.5e-16)
    early, late, after, never = found.transient_end
    # A step t is rate^(t - 1) (1 - rate) / 2^(1/2): below 1e-3 from step 5 on, and from step 10.
    assert [early, late, after, never] == [4, 9, 9, 32]
    assert abs(found.rest_from[1] - 50) <= 2  # 0.5^t is a few roundings of 1
    assert found.rule == ["settled"] * 3 + ["last half"]
    assert (found.tail_start - found.transient_end - 1 <= 16).all()
    assert found.tail.sum(1).tolist() == (64 + 1 - found.tail_start).tolist()
    assert found.rest_share[3] == 0
    assert 0 < found.rest_share[1] < 1  # 0.5^t is above the rounding of float64 until t = 50
    assert set(windows(states, first=0, causal=False, rounding=1e-7).rule) == {"last half"}
    given = windows(states, first=0, causal=True, rounding=1e-7, tail=40)
    assert given.transient_end.tolist() == [39] * 4
    with pytest.raises(InputError, match="tail=70, but the last iteration is 64"):
        windows(states, first=0, causal=True, rounding=1e-7, tail=70)
    with pytest.raises(InputError, match="at least 4 steps, and there are 3"):
        windows(states[:4], first=0, causal=True, rounding=1e-7)


def test_bad_input():
    with pytest.raises(InputError, match="k=3, but a state has 2 dimensions"):
        lyapunov(lambda s: s, torch.zeros(2), k=3)
    with pytest.raises(InputError, match="discard=8 leaves none of 8 steps"):
        lyapunov(lambda s: s, torch.zeros(2), steps=8, discard=8)
    with pytest.raises(InputError, match="not finite"):
        lyapunov(lambda s: s, torch.tensor([1.0, float("nan")]))
    with pytest.raises(InputError, match="seed must be an integer"):
        lyapunov(lambda s: s, torch.zeros(2), seed="a")
    with pytest.raises(AnalysisError, match="the derivative is not finite at step 1"):
        lyapunov(torch.sqrt, torch.zeros(2))
    with pytest.raises(AnalysisError, match="leaves the finite numbers at step"):
        lyapunov(lambda s: s * s, torch.tensor([10.0]), steps=20)
