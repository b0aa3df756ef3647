"""Restarts: rates from two orbits, basins, phases, input dependence, on systems in closed form."""

import json
from types import SimpleNamespace

import numpy as np
import plotly.graph_objects as go
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import looplens
from looplens import analysis, plots
from looplens.analysis import basins, input_dependence, path_independence
from looplens.analysis.analyzers._restart_agreement import restart_agreement
from looplens.analysis.analyzers.input_dependence import different_inputs
from looplens.errors import AnalysisError, InputError
from looplens.reports import _sections
from looplens.reports._material import Material
from looplens.testing import synthetic_run

T, D = 64, 24
TIME = np.arange(T + 1)[:, None]
PLANE = np.linalg.qr(np.random.default_rng(0).normal(size=(D, 2)))[0].T
CENTRE = np.full(D, 0.5)


def decays(rate, starts, limit=CENTRE):
    return np.stack([limit + rate**TIME * start for start in starts])


def orbit(ahead, period=9.7, radius=1.0):
    angle = 2 * np.pi * (TIME + ahead) / period
    return CENTRE + radius * (np.cos(angle) * PLANE[0] + np.sin(angle) * PLANE[1])


def of(*trajectories):
    """Restarts of one token, (restart, 1, iteration, d_model)."""
    return np.stack(trajectories)[:, None]


# ---------------------------------------------------------------------- rates from two orbits


def test_the_rate_is_that_of_the_map_down_to_the_floor():
    rng = np.random.default_rng(1)
    states = decays(0.8, rng.normal(size=(3, D)))
    exact = path_independence(states[:, None])
    assert exact.gap_rate[0] == pytest.approx(0.8, rel=1e-9)
    assert exact.gap_rate_error[0] < 1e-9
    noisy = states + 1e-3 * rng.normal(size=states.shape)
    found = path_independence(noisy[:, None])
    assert found.gap_rate[0] == pytest.approx(0.8, abs=3 * found.gap_rate_error[0])
    assert 0 < found.gap_rate_error[0] < 0.03
    # Two independent noises: sqrt(2 d) times one of them, over the norm.
    expected = 1e-3 * np.sqrt(2 * D) / np.linalg.norm(CENTRE)
    assert found.gap_floor[0] == pytest.approx(expected, rel=0.15)
    assert 20 < found.gap_fit_end[0] < 50


def test_a_common_drift_and_a_growing_norm_are_no_contraction():
    constant = [np.zeros(D), np.full(D, 0.1)]
    grows = np.stack([CENTRE * (1 + TIME) + start for start in constant])
    found = path_independence(grows[:, None])
    assert found.gap[0, -1] < 0.1 * found.gap[0, 0]  # over the norm, the gap shrinks
    assert found.gap_rate[0] == pytest.approx(1, abs=1e-9)


def test_gaps_that_open_have_a_rate_above_one():
    tiny = 1e-6 * 1.5**TIME
    away = np.minimum(tiny, 1.0)
    found = path_independence(of(CENTRE + away * PLANE[0], CENTRE - away * PLANE[0]))
    assert found.gap_rate[0] == pytest.approx(1.5, rel=0.01)
    same = np.broadcast_to(CENTRE, (2, 1, T + 1, D))
    assert np.isnan(path_independence(same).gap_rate[0])
    at_once = np.where(TIME == 0, 1.0, 1e-9 * (1 + TIME % 2))
    found = path_independence(of(CENTRE + at_once, CENTRE - at_once))
    assert np.isnan(found.gap_rate[0])  # over before it could be fitted


# ---------------------------------------------------------------------- basins


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


# ---------------------------------------------------------------------- input dependence


def test_variances_are_those_that_were_drawn():
    rng = np.random.default_rng(5)
    inputs = 2.0 * rng.normal(size=(400, D))
    limits = inputs + 0.5 * rng.normal(size=(6, 400, D))
    found = input_dependence(limits)
    assert found.score[0] == pytest.approx(16, rel=0.05)
    assert found.share[0] == pytest.approx(16 / 17, rel=0.01)
    assert found.run_share == pytest.approx(found.share[0])
    assert found.between[0] == pytest.approx(4 / 4.25, rel=0.05)
    nothing = input_dependence(rng.normal(size=(6, 400, D)))
    assert nothing.share[0] < 0.02
    # By chance some positions seem to depend on the input; all of them together do not.
    nothing = input_dependence(rng.normal(size=(3, 400, 4)), np.repeat(np.arange(100), 4))
    assert nothing.share.mean() > 0.04
    assert nothing.run_share < 0.03
    assert input_dependence(1e200 * limits).run_share == pytest.approx(found.run_share)


def test_positions_are_kept_apart():
    rng = np.random.default_rng(6)
    place = np.array([0, 1, 2] * 5)
    limits = np.broadcast_to(10.0 * place[:, None] + rng.normal(size=(15, D)), (2, 15, D)).copy()
    limits[:, place == 2] = rng.normal(size=(2, 5, D))
    limits[0, 0] = np.inf
    found = input_dependence(limits, place)
    assert found.inputs.tolist() == [4, 5, 5]
    assert np.isinf(found.score[0])
    assert found.share[0] == 1
    assert found.share[2] < 0.5
    assert np.isnan(input_dependence(limits[:, :1], place[:1]).share[0])
    with pytest.raises(InputError, match="at least two restarts"):
        input_dependence(limits[:1])
    with pytest.raises(InputError, match="position must be 15 whole numbers"):
        input_dependence(limits, place[:3])


# ---------------------------------------------------------------------- over a run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("restarts") / "run"
    return looplens.open_run(synthetic_run(path, prompts=3, restarts=4))


def test_a_run_gets_basins_rates_and_shares_by_token_prompt_and_position(run):
    found = run.analyze(["path_independence", "basins", "input_dependence"])
    two = np.arange(run.n_tokens) % 8 == 7
    count = found["basins"]["basin_count"].values
    assert (count[two] == 2).all()
    assert (count[~two] == 1).all()
    assert found["basins"]["basin"].values[7].tolist() == [0, 1, 0, 1]
    assert found["basins"]["prompt_basin_count"].values.tolist() == [2, 2, 2]
    rates = found["path_independence"]["gap_rate"].values[:3]
    np.testing.assert_allclose(rates, [0.5, 0.65, 0.75], rtol=0.02)
    assert found["path_independence"]["prompt_token_aa"].sizes == {"prompt": 3}
    assert found["path_independence"]["prompt_readout_agreement"].sizes == {"prompt": 3}
    share = found["input_dependence"]["dependence_share"].values
    assert (share[:6] > 0.9999).all()
    assert share[7] < 0.95
    summary = analysis.summary(run)
    assert summary["basins"]["several_basins_share"] == pytest.approx(1 / 8)
    assert summary["basins"]["out_of_phase_share"] == 0
    assert summary["path_independence"]["period_agreement"] == 1
    assert summary["input_dependence"]["min_share_position"] == 7
    json.dumps(summary)


def test_verdicts_of_restarts_are_compared_by_token_and_prompt():
    run = SimpleNamespace(
        restarts=3, n_prompts=2, token_range=lambda prompt: slice(2 * prompt, 2 * prompt + 2)
    )
    regime = np.array([["orbit"] * 4, ["orbit"] * 4, ["orbit", "slider", "orbit", "unresolved"]])
    reason = np.full((3, 4), "", dtype=object)
    reason[1:, 3] = "non-finite states"
    period = np.array([[8.0, 8, 8, 8], [8.1, 8, 9, 8], [8, np.nan, 8, np.nan]])
    found = restart_agreement(run, regime, reason, period)
    np.testing.assert_allclose(found["regime_agreement"].values, [1, 1 / 3, 1, np.nan])
    np.testing.assert_allclose(found["period_agreement"].values, [1, 1, 1 / 3, 1])
    np.testing.assert_allclose(found["prompt_regime_agreement"].values, [2 / 3, 1])
    assert restart_agreement(SimpleNamespace(restarts=1), regime, reason, period) == {}


def test_equal_prefixes_are_one_input():
    columns = {"token_id": [1, 2, 3, 1, 2, 4], "position": [0, 1, 2, 0, 1, 2]}
    rows = SimpleNamespace(
        n_tokens=6,
        n_prompts=2,
        tokens={name: SimpleNamespace(values=np.array(row)) for name, row in columns.items()},
        prompts={"text": SimpleNamespace(values=np.array(["abc", "abd"], dtype=object))},
        token_range=lambda prompt: slice(3 * prompt, 3 * prompt + 3),
    )
    assert different_inputs(rows).tolist() == [True, True, True, False, False, True]
    rows.tokens["position"].values[:] = [1, 2, 3, 1, 2, 3]  # of prefixes that were not kept
    assert different_inputs(rows).all()
    rows.prompts["text"].values[:] = "abc"
    assert different_inputs(rows).tolist() == [True] * 3 + [False] * 3
    rows.prompts["text"].values[:] = ""
    assert different_inputs(rows).all()


def test_runs_that_are_small_or_not_complete(part_run_path, selected_run_path, tmp_path):
    part = looplens.open_run(part_run_path)
    found = part.analyze(["basins", "input_dependence"])
    known = part.committed_tokens
    assert not known.all()
    assert (np.isfinite(found["basins"]["basin_count"].values) == known).all()
    assert np.isnan(found["basins"]["prompt_basin_count"].values[1])
    assert (found["input_dependence"]["inputs"].values == 2).all()
    with pytest.raises(AnalysisError, match="keep_iterations='all'"):
        analysis.get(looplens.open_run(selected_run_path), "basins")
    one = looplens.open_run(synthetic_run(tmp_path / "one", prompts=1, iterations=16))
    with pytest.raises(AnalysisError, match=r"1 prompt\(s\) and 2 restart\(s\)"):
        analysis.get(one, "input_dependence")


def test_figures_and_sections_show_what_was_found(run):
    for theme in ("light", "dark"):
        figure = plots.basins(run, 0, theme=theme)
        assert isinstance(figure, go.Figure)
        names = [trace.name for trace in figure.data]
        assert names == ["basin 0", "basin 1", "counts as apart from here", "nearest two basins"]
        assert len(figure.data[1].x) == 2
        curves = plots.input_dependence(run, theme=theme).data
        assert [trace.name for trace in curves] == [
            "between inputs",
            "between restarts of an input",
        ]
    material = Material(run)
    section = _sections.basins(material)
    assert [picture.name for picture in section.pictures] == ["basins"]
    assert section.facts[0].value == "12.5\u202f%"
    assert "98" in _sections.input_dependence(material).facts[0].value
    tables = _sections.path_independence(material).tables
    assert len(tables[1].rows) == 3
    assert "±" in tables[0].rows[0][4]
