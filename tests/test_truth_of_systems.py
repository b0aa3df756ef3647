"""The truth about every system, known and unseen, by what long records of its clean motion do.

The tests look at the motion itself, far beyond the records that verdicts are given on, and share
nothing with the detector.
"""

import numpy as np
import pytest

from benchmarks._unseen import RECIPES as UNSEEN
from looplens.testing import KINDS, kinds_of
from looplens.testing.systems.fixed import RECIPES as FIXED
from looplens.testing.systems.irregular import RECIPES as IRREGULAR
from looplens.testing.systems.making import TRUTHS
from looplens.testing.systems.orbits import RECIPES as ORBITS
from looplens.testing.systems.sliders import RECIPES as SLIDERS

SEEDS = range(4)
ALL = {
    truth: recipes | {kind: recipe for kind, (own, recipe) in UNSEEN.items() if own == truth}
    for truth, recipes in zip(TRUTHS, (FIXED, ORBITS, SLIDERS, IRREGULAR), strict=True)
}
# Their period is not that of every state: phases diffuse, or a second frequency has its own.
NOT_PERIODIC = {"orbit_torus", "doughnut", "noisy_cycle"}


def motion(truth, kind, seed, iterations):
    return ALL[truth][kind](np.random.default_rng([seed, len(kind)]), iterations)


def apart(path, lag):
    return np.linalg.norm(path[lag:] - path[:-lag], axis=-1)


def of(truth):
    return pytest.mark.parametrize("kind", ALL[truth])


def test_all_systems_are_here():
    assert {kind for kinds in ALL.values() for kind in kinds} == {*KINDS, *UNSEEN}
    for truth, recipes in zip(TRUTHS, (FIXED, ORBITS, SLIDERS, IRREGULAR), strict=True):
        assert tuple(recipes) == kinds_of(truth)


@of("fixed_point")
def test_the_distance_to_the_end_falls_by_any_factor(kind):
    for seed in SEEDS:
        path = motion("fixed_point", kind, seed, 4000).path
        away = np.linalg.norm(path - path[-1], axis=-1)
        # The slowest falls like t^-1.2, by a factor of 2.3 while t doubles.
        for t in (250, 500, 1000):
            assert away[2 * t : 3 * t].max() <= max(0.6 * away[t : 2 * t].max(), 1e-12 * away[0])
        assert away[1000:].max() < 1e-3 * away.max()


@of("orbit")
def test_states_return_at_some_lag_for_as_long_as_one_looks(kind):
    for seed in SEEDS:
        path = motion("orbit", kind, seed, 1200).path[600:]
        diameter = np.linalg.norm(path[:, None] - path[None, ::7], axis=-1).max()
        back = min(apart(path, lag).max() for lag in range(1, 450))
        # Relaxation of van der Pol's kind passes its corners within a fraction of an iteration.
        assert back < 0.12 * diameter
        assert np.linalg.norm(path - path.mean(0), axis=-1)[-300:].max() > 0.4 * diameter


@pytest.mark.parametrize("kind", [kind for kind in ALL["orbit"] if kind not in NOT_PERIODIC])
def test_the_stated_period_is_that_of_the_motion_and_the_shortest(kind):
    for seed in SEEDS:
        made = motion("orbit", kind, seed, 1200)
        path = made.path[600:]
        turns = np.arange(1, int(400 / made.period) + 1)
        miss = np.abs(turns * made.period - np.round(turns * made.period))
        whole = int(np.round(turns[miss.argmin()] * made.period))
        diameter = np.linalg.norm(path - path.mean(0), axis=-1).max() * 2
        # A state that is `miss` of an iteration late is away by that much of a step, which a corner
        # makes several times as long as the mean over an iteration.
        assert apart(path, whole).max() < (4 * miss.min() * apart(path, 1).max() + 0.02 * diameter)
        for lag in range(max(1, int(made.period / 4)), int(made.period * 3 / 4) + 1):
            assert apart(path, lag).max() > 0.15 * diameter


@of("slider")
def test_sliders_keep_their_speed_and_go_the_same_way(kind):
    for seed in SEEDS:
        path = motion("slider", kind, seed, 1200).path[1:]
        way = np.diff(path.reshape(4, 300, -1).mean(1), axis=0)
        speed = np.linalg.norm(way, axis=-1)
        # Under t^-1, whose sum is finite or on the border, the last quarter covers less than 0.71
        # of what the one before does.
        assert speed[2] > 0.74 * speed[1]
        assert way[1] @ way[2] > 0.85 * speed[1] * speed[2]


@pytest.mark.parametrize(("kind", "lowest", "highest"), [("slider_decelerating", 0.1, 0.7)])
def test_steps_of_a_slowing_slider_have_no_finite_sum(kind, lowest, highest):
    for seed in SEEDS:
        step = apart(motion("slider", kind, seed, 8000).path, 1)
        exponent = -np.log(step[7999] / step[3999]) / np.log(2)
        assert lowest - 0.01 < exponent < highest + 0.01


@of("unresolved")
def test_irregular_motion_never_comes_back_as_a_whole_and_never_rests(kind):
    for seed in SEEDS:
        path = motion("unresolved", kind, seed, 1200).path[600:]
        diameter = np.linalg.norm(path[:, None] - path[None, ::7], axis=-1).max()
        # A walk is near where it was a moment ago, and the fewer moments the nearer.
        lags = range(25 if "walk" in kind else 1, 300)
        assert min(apart(path, lag).max() for lag in lags) > 0.06 * diameter
        assert apart(path, 1)[-100:].mean() > 0.01 * diameter


CHAOS = [kind for kind in ALL["unresolved"] if kind.startswith("chaos_")]


@pytest.mark.parametrize("kind", [*CHAOS, "lorenz", "roessler", "standard_map"])
def test_neighbours_on_a_chaotic_attractor_part(kind):
    """By the growth of the distance of nearest neighbours, as in Rosenstein's method."""
    for seed in SEEDS[:2]:
        path = motion("unresolved", kind, seed, 1500).path[300:]
        squares = (path**2).sum(1)
        far = squares[:-4, None] + squares[None, :-4] - 2 * path[:-4] @ path[:-4].T
        times = np.arange(len(far))
        far[np.abs(times[:, None] - times) < 12] = np.inf
        nearest = far.argmin(1)
        start, end = (np.linalg.norm(path[times + k] - path[nearest + k], axis=-1) for k in (0, 4))
        known = start > 1e-9
        assert known.mean() > 0.9
        assert np.log(np.maximum(end, 1e-12) / start, where=known, out=0 * end)[known].mean() > 0.2


def test_noise_and_walks_have_the_memory_that_they_say():
    def memory(path):
        path = path - path.mean(0)
        return (path[1:] * path[:-1]).sum() / (path**2).sum()

    for seed in SEEDS:
        made = {kind: motion("unresolved", kind, seed, 4000).path for kind in IRREGULAR}
        assert abs(memory(made["white_noise"])) < 0.06
        assert abs(memory(np.diff(made["random_walk"], axis=0))) < 0.06
        coloured = made["coloured_noise"]
        assert 0.25 < memory(coloured) < 0.95
        assert memory(coloured[::2]) == pytest.approx(memory(coloured) ** 2, abs=0.06)
        hops = np.unique(made["code_hops"].round(9), axis=0, return_inverse=True)[1].ravel()
        rounds = hops[:3984].reshape(-1, 24)
        np.testing.assert_array_equal(np.sort(rounds, axis=1), np.arange(24) + 0 * rounds)
        assert len(np.unique(rounds, axis=0)) == len(rounds)  # each in an order of its own
