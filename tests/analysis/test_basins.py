"""Basins and phases of restarts, on systems whose basins are known."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from restart_paths import CENTRE, PLANE, TIME, D, T, decays, of, orbit

from looplens.analysis import basins
from looplens.errors import InputError


def test_a_chain_of_restarts_is_not_decided():
    steps = 0.9e-3 * np.linalg.norm(CENTRE) * np.arange(3)[:, None, None, None] * PLANE[0]
    found = basins(steps + np.broadcast_to(CENTRE, (3, 1, T + 1, D)))
    assert found.count[0] == 2  # the first is apart from the last, and both touch the second
    assert found.undecided[0]


def test_basins_have_numbers_sizes_and_members():
    rng = np.random.default_rng(2)
    other = CENTRE + PLANE[0]
    starts = rng.normal(size=(5, D))
    states = decays(0.6, starts)
    states[[1, 3, 4]] = decays(0.6, starts[[1, 3, 4]], other)
    found = basins(states[:, None])
    assert found.basin[:, 0].tolist() == [1, 0, 1, 0, 0]
    assert (found.count[0], found.largest_share[0]) == (2, 0.6)
    norm = np.sqrt(0.6 * other @ other + 0.4 * CENTRE @ CENTRE)
    assert found.separation[0] == pytest.approx(1 / norm, rel=0.01)
    assert not found.undecided[0]
    together = basins(decays(0.6, starts)[:, None])
    assert together.count[0] == 1
    assert np.isnan(together.separation[0])


def test_an_orbit_is_one_basin_at_every_phase_and_the_phase_is_told():
    ahead = [0, 0.3, -2.2, 4.5]
    found = basins(of(*[orbit(a) for a in ahead]))
    assert found.count[0] == 1
    np.testing.assert_allclose(found.shift[:, 0], ahead, atol=0.05)
    wider = basins(of(orbit(0), orbit(1), orbit(0, radius=1.4), orbit(0, period=2)))
    assert wider.count[0] == 3
    assert wider.basin[:2, 0].tolist() == [0, 0]
    flips = (-1.0) ** TIME * PLANE[0]
    found = basins(of(CENTRE + flips, CENTRE - flips, CENTRE + 0.5 * flips))
    assert found.basin[:, 0].tolist() == [0, 0, 1]
    np.testing.assert_allclose(found.shift[:, 0], [0, 1, 0], atol=1e-6)


def test_what_moves_is_not_told_apart_and_what_comes_closer_is_not_decided():
    rng = np.random.default_rng(3)
    noise = 0.02 * rng.normal(size=(3, T + 1, D))
    assert basins((CENTRE + noise)[:, None]).count[0] == 1
    shifted = CENTRE + noise
    shifted[2] += 0.5 * PLANE[1]
    assert basins(shifted[:, None]).count[0] == 2
    slow = basins(decays(0.95, rng.normal(size=(2, D)))[:, None])
    assert slow.count[0] == 2
    assert slow.undecided[0]
    near = CENTRE + 0.01 * PLANE[0]
    starts = rng.normal(size=(1, D))
    apart = of(decays(0.5, starts)[0], decays(0.5, starts, near)[0])
    assert basins(apart).count[0] == 2
    assert not basins(apart).undecided[0]
    drift = basins(of(CENTRE + 0.05 * TIME * PLANE[0], CENTRE + 0.05 * TIME * PLANE[0] + 1e-6))
    assert drift.count[0] == 1
    assert np.isnan(drift.shift).all()  # it never comes back


def _logistic(start):
    values = [start]
    for _ in range(T):
        values.append(3.9 * values[-1] * (1 - values[-1]))
    return CENTRE + np.array(values)[:, None] * PLANE[0]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    "path",
    [
        lambda rng: decays(0.999, rng.normal(size=(1, D)))[0],
        lambda rng: CENTRE + (1 + TIME) ** -0.5 * rng.normal(size=D),
        lambda rng: orbit(rng.uniform(0, 40), period=40),
        lambda rng: orbit(rng.uniform(0, 200), period=200),
        lambda rng: CENTRE + 0.1 * TIME * PLANE[0] + 3 * rng.normal() * PLANE[0],
        lambda rng: CENTRE + 0.1 * np.cumsum(rng.normal(size=(T + 1, D)), axis=0),
        lambda rng: _logistic(rng.uniform(0.2, 0.8)),
    ],
    ids=["slow", "power", "orbit", "arc", "slider", "walk", "chaos"],
)
def test_one_basin_is_never_called_several(path, seed):
    rng = np.random.default_rng(seed)
    found = basins(of(*[path(rng) for _ in range(4)]))
    assert found.count[0] == 1 or found.undecided[0]


def test_chaos_that_is_sampled_too_little_is_not_decided():
    starts = np.random.default_rng(0).uniform(0.2, 0.8, size=(4, 50))
    paths = np.stack([np.stack([_logistic(start) for start in row]) for row in starts])
    found = basins(paths)
    assert ((found.count > 1) & ~found.undecided).mean() < 0.05


@settings(max_examples=12, deadline=None, derandomize=True)
@given(st.integers(0, 10**6), st.permutations(range(4)), st.floats(-8, 8))
def test_basins_do_not_depend_on_order_axes_or_units(seed, order, exponent):
    rng = np.random.default_rng(seed)
    states = of(orbit(0), orbit(2.5), *decays(0.6, rng.normal(size=(2, D))))
    turn = np.linalg.qr(rng.normal(size=(D, D)))[0]
    before = basins(states)
    after = basins((10.0**exponent * states @ turn)[list(order)])
    assert before.count[0] == after.count[0] == 2
    pairs = before.basin[:, 0][:, None] == before.basin[:, 0]
    again = after.basin[:, 0][:, None] == after.basin[:, 0]
    assert (pairs[np.ix_(order, order)] == again).all()
    for name in ("separation", "tolerance", "largest_share"):
        np.testing.assert_allclose(getattr(after, name), getattr(before, name), rtol=1e-6)


def test_basins_of_strange_input():
    states = np.random.default_rng(4).normal(size=(2, 3, T + 1, D))
    states[1, 1, 40] = np.inf
    found = basins(states)
    assert found.basin[:, 1].tolist() == [-1, -1]
    assert np.isnan(found.count[1])
    assert basins(np.zeros((2, T, D))).count == 1
    for scale in (1e300, 1e-300):
        assert basins(scale * decays(0.6, np.eye(2, D), 2 * np.eye(2, D)[1])).count == 1
        assert basins(scale * decays(1.0, np.eye(2, D))).count == 2
    assert basins(np.zeros((3, 0, T, D))).count.shape == (0,)
    with pytest.raises(InputError, match="at least two restarts and four iterations"):
        basins(states[:1])
    with pytest.raises(InputError, match="basin_tolerance must be positive"):
        basins(states, basin_tolerance=0)
