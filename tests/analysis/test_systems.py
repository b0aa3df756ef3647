import re
from pathlib import Path

import numpy as np
import pytest

from looplens.errors import InputError
from looplens.testing import KINDS, TRUTHS, kinds_of, make_system
from looplens.testing.systems.irregular import parting

PAGE = Path(__file__).parents[2] / "docs" / "analysis" / "systems.md"


def made(kind, seed, **options):
    return make_system(kind, seed=seed, **options)


def distances(states):
    return np.linalg.norm(states[:, None] - states[None], axis=-1)


def test_there_are_kinds_of_every_truth_and_the_page_names_all():
    assert len(KINDS) >= 20
    assert sorted(kind for truth in TRUTHS for kind in kinds_of(truth)) == sorted(KINDS)
    assert min(len(kinds_of(truth)) for truth in TRUTHS) >= 4
    named = set(re.findall(r"`(\w+)`", PAGE.read_text(encoding="utf-8")))
    assert set(KINDS) <= named


@pytest.mark.parametrize("kind", KINDS)
def test_a_system_is_its_seed(kind):
    first, again, other = (made(kind, seed, iterations=32) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first.states, again.states)
    assert not np.array_equal(first.states, other.states)
    assert first.states.shape == (33, 64)
    assert first.truth in TRUTHS
    assert np.isfinite(first.period) == (first.truth == "orbit")


@pytest.mark.parametrize("kind", KINDS)
def test_noise_has_the_asked_size_and_changes_no_other_draw(kind):
    clean, faint, loud = (made(kind, 1, snr_db=snr) for snr in (np.inf, 40, 20))
    spread = np.sqrt(((clean.states - clean.states.mean(0)) ** 2).sum(-1).mean())
    noise = np.sqrt(((loud.states - clean.states) ** 2).sum(-1).mean())
    assert noise / spread == pytest.approx(0.1, rel=0.1)
    expected = 10 * (faint.states - clean.states)
    np.testing.assert_allclose(loud.states - clean.states, expected, atol=1e-6 * spread)


@pytest.mark.parametrize("kind", kinds_of("fixed_point"))
@pytest.mark.parametrize("seed", range(5))
def test_fixed_points_are_approached(kind, seed):
    states = made(kind, seed, iterations=400).states
    to_end = np.linalg.norm(states - states[-1], axis=-1)
    assert to_end[200:].max() < 0.01 * to_end.max()
    assert to_end[300:].max() < max(to_end[100:200].max(), 1e-5 * np.linalg.norm(states[-1]))


@pytest.mark.parametrize("kind", kinds_of("orbit"))
@pytest.mark.parametrize("seed", range(5))
def test_orbits_return_after_a_multiple_of_their_period_and_do_not_stop(kind, seed):
    system = made(kind, seed, iterations=256)
    tail = system.states[128:]
    diameter = distances(tail).max()
    turns = np.arange(1, int(100 / system.period) + 1)
    lags = np.round(turns * system.period).astype(int)
    back = min(np.linalg.norm(tail[lag:] - tail[:-lag], axis=-1).max() for lag in lags)
    # A torus of two frequencies returns less well within so few turns.
    assert back < (0.5 if kind == "orbit_torus" else 0.3) * diameter
    assert distances(tail[-60:]).max() > 0.8 * diameter


@pytest.mark.parametrize("kind", kinds_of("slider"))
@pytest.mark.parametrize("seed", range(5))
def test_sliders_go_further_from_the_start_in_every_quarter_and_keep_stepping(kind, seed):
    states = made(kind, seed, iterations=128).states
    away = np.linalg.norm(states - states[0], axis=-1)[1:].reshape(4, 32).mean(1)
    steps = np.linalg.norm(np.diff(states, axis=0), axis=-1)
    assert (np.diff(away) > 0).all()
    assert steps[-8:].mean() > 0.25 * np.median(steps)


@pytest.mark.parametrize("kind", kinds_of("unresolved"))
def test_irregular_motion_is_spread_and_does_not_return(kind):
    states = made(kind, 2, iterations=128).states[64:]
    diameter = distances(states).max()
    back = [np.linalg.norm(states[k:] - states[:-k], axis=-1).max() for k in range(1, 33)]
    assert min(back) > 0.2 * diameter


def test_the_exponent_of_chaos_is_that_of_maps_where_it_is_known():
    start = np.array([0.3])
    assert parting(lambda x: 4 * x * (1 - x), start, 4000) == pytest.approx(np.log(2), abs=0.02)
    assert parting(lambda x: 0.5 * x, start + 1, 50) == pytest.approx(np.log(0.5), abs=1e-3)

    def henon(s):
        return np.array([1 - 1.4 * s[0] ** 2 + s[1], 0.3 * s[0]])

    assert parting(henon, np.array([0.1, 0.1]), 4000) == pytest.approx(0.419, abs=0.03)


@pytest.mark.parametrize("kind", ["slider_arc", "slider_manifold"])
def test_bounded_sliders_keep_their_norm(kind):
    norms = np.linalg.norm(made(kind, 2).states, axis=-1)[32:]
    np.testing.assert_allclose(norms, norms[-1], rtol=1e-6)


def test_driven_orbits_are_small_beside_the_norm():
    for seed in range(8):
        states = made("orbit_driven", seed).states
        spread = np.sqrt(states.var(0).sum())
        assert 0.008 < spread / np.linalg.norm(states.mean(0)) < 0.06


def test_unknown_kinds_truths_and_sizes_are_named():
    with pytest.raises(InputError, match=r"Unknown kind of system 'orbit_cycl'.*'orbit_cycle'"):
        make_system("orbit_cycl")
    with pytest.raises(InputError, match=r"at least 8 iterations and 24 dimensions.*d_model=8"):
        make_system("orbit_cycle", d_model=8)
    with pytest.raises(InputError, match=r"Unknown truth 'orbits'; expected one of fixed_point, "):
        kinds_of("orbits")
