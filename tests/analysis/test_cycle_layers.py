"""Limits of the layers: invariances, norms, and the table of a report."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import looplens
from looplens import analysis, reports
from looplens.testing import synthetic_run


def settling(rng, layers=3, iterations=32, width=8):
    limits = rng.standard_normal((layers, 1, width))
    decay = 0.6 ** np.arange(1, iterations + 1)[:, None]
    return limits + decay * rng.standard_normal((layers, 1, width))


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.floats(1e-3, 1e3))
def test_everything_but_the_norm_is_free_of_scale_and_rotation(seed, scale):
    rng = np.random.default_rng(seed)
    states = settling(rng)
    turn = np.linalg.qr(rng.standard_normal((8, 8)))[0]
    one, other = analysis.cycle(states), analysis.cycle(scale * states @ turn)
    for name in ("distance", "movement", "degeneracy", "separation_ratio"):
        np.testing.assert_allclose(getattr(other, name), getattr(one, name), rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(other.limit_norm, scale * one.limit_norm, rtol=1e-6)


def test_norm_and_distance_give_the_cosines_between_limits():
    found = analysis.cycle(settling(np.random.default_rng(3)))
    np.testing.assert_allclose(found.limit_norm, np.linalg.norm(found.limits, axis=-1), rtol=1e-6)
    norm = found.limit_norm
    apart = found.distance * 0.5 * (norm[:, None] + norm)
    squares = norm[:, None] ** 2 + norm**2
    cosines = (squares - apart**2) / (2 * norm[:, None] * norm)
    assert cosines[0, 1:].min() == pytest.approx(float(found.degeneracy), abs=1e-6)


def test_limits_and_movement_are_those_of_the_last_quarter():
    states = np.random.default_rng(5).standard_normal((2, 3, 20, 8)) + 4.0
    found = analysis.cycle(states)
    tail = states[:, :, -5:]
    limit = tail.mean(2)
    away = np.sqrt(np.square(tail - limit[:, :, None]).sum(-1).mean(-1))
    np.testing.assert_allclose(found.limits, limit, rtol=1e-9)
    np.testing.assert_allclose(found.movement, away / np.linalg.norm(limit, axis=-1), rtol=1e-9)
    apart = found.distance.sum((1, 2)) / 6  # the diagonal is zero
    np.testing.assert_allclose(found.separation_ratio, apart / found.movement.mean(1), rtol=1e-9)


def test_a_rotation_of_the_layers_only_moves_their_numbers():
    states = settling(np.random.default_rng(4))
    one, other = analysis.cycle(states), analysis.cycle(np.roll(states, 1, axis=0))
    np.testing.assert_allclose(other.limit_norm, np.roll(one.limit_norm, 1))
    np.testing.assert_allclose(other.separation_ratio, one.separation_ratio)


def test_the_report_has_a_row_a_layer_and_the_share_of_cycles(tmp_path):
    run = looplens.open_run(synthetic_run(tmp_path / "run", prompts=1, n_layers=3, restarts=1))
    found = analysis.get(run, "cycle")
    assert found["limit_norm"].dims == ("restart", "token", "layer")
    states = run.site("resid_post").transpose("restart", "token", "layer", ...).values
    direct = analysis.cycle(states)
    for name in ("limit_norm", "distance", "movement", "separation_ratio", "degeneracy"):
        np.testing.assert_allclose(found[name], getattr(direct, name), rtol=1e-4, atol=1e-6)
    share = analysis.summary(run)["cycle"]["cyclic_share"]
    assert share == pytest.approx(float((found["separation_ratio"] > 3).mean()))
    section = reports.build(run).section("cycle")
    (table,) = section.tables
    assert [row[0] for row in table.rows] == ["0", "1", "2"]
    assert table.columns[1] == "fixed points"
    assert "%" in table.rows[0][1]
    assert section.facts[0].label == "Trajectories with a limit a layer"
