"""Kinds, numbers and p-values of verdicts; power; the figure, the section, the summary."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import looplens
from looplens import analysis, plots
from looplens.analysis import KINDS_OF_REGIMES, classify, power_of
from looplens.analysis.regimes.surrogates import p_values, straightness
from looplens.analysis.regimes.tail import Tail
from looplens.errors import InputError
from looplens.reports._material import Material
from looplens.reports._sections import regimes as section
from looplens.testing import make_system, synthetic_run

T = np.arange(129)[:, None]
RNG = np.random.default_rng(0)
REST, ONE, TWO = RNG.normal(size=(3, 32))


def turn(period, phase=0.0):
    angle = 2 * np.pi * T / period + phase
    return np.cos(angle) * ONE + np.sin(angle) * TWO


def test_kinds_of_each_regime():
    across = ONE - (ONE @ REST) / (REST @ REST) * REST
    cases = {
        "converged": REST + 0.5**T * ONE,
        "contracting": REST + 0.92**T * ONE,
        "decelerating": REST + 0.3 * (1 + T) ** -1.2 * ONE,
        "spiral": REST + 0.3 * 0.93**T * turn(7.3),
        "noise_floor": REST + 3 * 0.5**T * ONE + 1e-3 * RNG.normal(size=(129, 32)),
        "own": REST + turn(7.3),
        "driven": 50 * REST + turn(7.3),
        "radial": (1 + 0.05 * T) * REST,
        "bounded": 9 * REST + 0.05 * T * across,
        "noise": REST + RNG.normal(size=(129, 32)),
        "random_walk": REST + RNG.normal(size=(129, 32)).cumsum(0),
        "still_moving": REST + 3 * 0.97**T * ONE,
    }
    found = classify(np.stack(list(cases.values())), surrogates=0)
    assert dict(zip(cases, found.kind.tolist(), strict=True)) == {name: name for name in cases}
    regime_of = {kind: regime for regime, kinds in KINDS_OF_REGIMES.items() for kind in kinds}
    assert [regime_of[kind] for kind in cases] == found.regime.tolist()
    assert np.isnan(found.p_value).all()


def test_numbers_of_closed_forms():
    decay = REST + 0.6**T * ONE
    found = classify(decay.astype(np.float32))
    assert (found.kind, found.floor_from) == ("converged", "dtype")
    assert found.rate == pytest.approx(0.6, rel=0.01)
    last = np.log(3 * found.floor * np.linalg.norm(REST) / np.linalg.norm(ONE) / 0.4) / np.log(0.6)
    assert found.signal_end == pytest.approx(last, abs=1.5)
    assert classify(REST + 0.3 * 0.93**T * turn(7.3)).rate == pytest.approx(0.93, abs=0.005)

    line = classify(9 * REST + 0.05 * T * ONE)
    norm = np.linalg.norm(9 * REST + 0.05 * 96 * ONE)
    assert line.straightness == pytest.approx(1)
    assert line.speed == pytest.approx(0.05 * np.linalg.norm(ONE) / norm, rel=0.02)
    end = 9 * REST + 0.05 * 128 * ONE
    cosine = end @ ONE / np.linalg.norm(end) / np.linalg.norm(ONE)
    assert line.radial_share == pytest.approx(cosine**2)
    assert classify((1 + 0.05 * T) * REST).radial_share == pytest.approx(1)

    codes = RNG.normal(size=(5, 32))
    five = classify(codes[T[:, 0] % 5])
    assert (five.integer_period, five.turns) == (5, 12.8)
    circle = classify(REST + turn(7.31))
    assert np.isnan(circle.integer_period)
    assert circle.turns == pytest.approx(64 / 7.31, rel=0.02)


def test_the_floor_of_the_record_is_the_median_step_of_its_last_quarter():
    noise = 1e-3 * RNG.normal(size=(129, 32))
    states = REST + 0.5**T * ONE + noise
    found = classify(states)
    steps = np.linalg.norm(np.diff(states, axis=0), axis=1) / np.linalg.norm(states[-1])
    assert found.floor_from == "record"
    assert found.floor == pytest.approx(np.median(steps[-32:]), rel=1e-3)
    assert found.signal_end == 1 + np.flatnonzero(steps > 3 * found.floor)[-1]
    # Without a step that stands out all of the record is signal.
    assert classify(REST + turn(7.3)).floor_from == "dtype"


@pytest.mark.parametrize("period", [4.6, 7.37, 10.3])
def test_a_relaxation_cycle_is_an_orbit_whatever_its_shape(period):
    phase = (T[:, 0] / period) % 1
    slow, fast = np.minimum(phase / 0.85, 1), np.clip((phase - 0.85) / 0.15, 0, 1)
    states = REST + 2 * (slow - fast)[:, None] * ONE + np.sin(2 * np.pi * phase)[:, None] ** 3 * TWO
    found = classify(states)
    assert found.regime == "orbit"
    assert found.period == pytest.approx(period, rel=0.02)


def test_several_rotations_are_one_orbit():
    three, four = RNG.normal(size=(2, 32))
    other = np.cos(2 * np.pi * T / 11.9) * three + np.sin(2 * np.pi * T / 11.9) * four
    found = classify(REST + turn(5.2) + 0.8 * other)
    assert found.regime == "orbit"
    assert found.kind == "own"


@settings(max_examples=15, deadline=None, derandomize=True)
@given(
    st.sampled_from(["orbit_rotation", "orbit_torus", "slider_arc", "fixed_slow", "chaos_ikeda"]),
    st.integers(0, 10_000),
    st.floats(-2, 2),
)
def test_rotation_translation_and_scale(kind, seed, exponent):
    states = make_system(kind, iterations=64, d_model=24, snr_db=30, seed=seed).states
    rng = np.random.default_rng(seed)
    rotation, _ = np.linalg.qr(rng.normal(size=(24, 24)))
    before = classify(states)
    turned = classify(10**exponent * states @ rotation)
    for name in ("regime", "kind", "p_value", "signal_end"):
        np.testing.assert_array_equal(getattr(turned, name), getattr(before, name))
    for name in ("rate", "turns", "speed", "straightness", "radial_share"):
        np.testing.assert_allclose(getattr(turned, name), getattr(before, name), rtol=1e-4)
    # Far from the origin amplitudes shrink, and with them what counts as small; motion stays.
    moved = classify(states + 3 * np.abs(states).max() * rng.normal(size=24), unit=False)
    assert (moved.regime == "unresolved") or (before.regime in (moved.regime, "unresolved"))
    np.testing.assert_allclose(moved.straightness, before.straightness, rtol=1e-6)
    single = classify(states.astype(np.float32))
    assert single.regime == before.regime
    np.testing.assert_allclose(single.straightness, before.straightness, rtol=1e-3)


def window_of(paths):
    """Return the products of paths (b, n, d) that `p_values` looks at."""
    nothing = np.zeros(len(paths))
    return Tail(
        gram=paths @ np.swapaxes(paths, 1, 2),
        square=(paths**2).sum(-1),
        step2=(np.diff(paths, axis=1) ** 2).sum(-1),
        start=0,
        before_square=nothing,
        before_dot=np.zeros(paths.shape[:2]),
        d_model=paths.shape[-1],
    )


def direction(rng, shape):
    steps = rng.normal(size=shape)
    return steps / np.linalg.norm(steps, axis=-1, keepdims=True)


def walks_in_random_directions(rng, count, n, dims):
    sizes = rng.uniform(0.5, 2, size=(count, n, 1))
    return (sizes * direction(rng, (count, n, dims))).cumsum(1)


def walks_by_random_azimuths(rng, count, n, dims):
    """About the origin, by steps of one angle."""
    point, path = direction(rng, (count, dims)), []
    for _ in range(n):
        path.append(point)
        side = rng.normal(size=(count, dims))
        side -= (side * point).sum(-1, keepdims=True) * point
        side /= np.linalg.norm(side, axis=-1, keepdims=True)
        point = np.cos(1.4) * point + np.sin(1.4) * side
    return np.stack(path, 1)


@pytest.mark.parametrize("dims", [1, 2, 3, 4, 32])
@pytest.mark.parametrize("n", [16, 48])
@pytest.mark.parametrize("drifting", [True, False], ids=["slider", "orbit"])
def test_p_values_are_valid_under_the_null_hypothesis(drifting, n, dims):
    rng, count = np.random.default_rng([n, dims]), 400
    if drifting:
        paths = walks_in_random_directions(rng, count, n, dims)
    elif dims == 1:  # on a line there is no azimuth: states in random order
        paths = rng.normal(size=(count, n, 1))
    else:
        paths = walks_by_random_azimuths(rng, count, n, dims)
    found = p_values(window_of(paths), np.full(count, drifting), seed=1)
    assert ((found > 0) & (found <= 1)).all()
    for level in (0.05, 0.25, 0.5, 0.75):
        share = (found <= level).mean()
        # Three standard errors of a share of 400, and of one that 99 surrogates set for all.
        error = 3 * np.sqrt(level * (1 - level) * (1 / count + 1 / 99))
        # In more dimensions than surrogates have, p-values keep to the middle; few states turn
        # about another centre than their mean.
        if dims <= 4 or level < 0.5:
            assert share < level + error
        if dims <= 4 and (drifting or n == 48):
            assert share > level - error


@pytest.mark.parametrize(
    "kind", ["orbit_rotation", "orbit_cycle", "orbit_period_two", "orbit_alternating"]
)
def test_p_values_of_orbits_are_small_and_do_not_depend_on_company(kind):
    states = np.stack(
        [make_system(kind, iterations=64, snr_db=30, seed=seed).states for seed in range(12)]
    )
    found = classify(states)
    orbit = found.regime == "orbit"
    assert np.median(found.p_value[orbit]) <= 0.02
    np.testing.assert_array_equal(classify(states[3]).p_value, found.p_value[3])
    with pytest.raises(InputError, match="surrogates"):
        classify(states, surrogates=-1)


def test_p_values_of_cycles_on_a_line_are_small():
    points = np.array([0.0, 1.0, 3.0])[T[:, 0] % 3, None]
    waves = np.cos(2 * np.pi * T / 7.3)
    for path in (points, waves):
        found = p_values(window_of((path * ONE)[None, :48]), np.array([False]))
        assert found == 0.01


@pytest.mark.parametrize(("snr_db", "most"), [(np.inf, 0.03), (20, 0.03), (10, 0.1)])
def test_p_values_of_drifts_are_small_also_under_noise(snr_db, most):
    for kind in ("slider_linear", "slider_arc", "slider_manifold"):
        states = np.stack(
            [
                make_system(kind, iterations=128, snr_db=snr_db, seed=seed).states
                for seed in range(8)
            ]
        )
        found = classify(states, unit=False)
        assert (found.regime == "slider").all()
        assert np.median(found.p_value) <= most


def test_straightness_of_states_and_of_means_over_blocks():
    path = RNG.normal(size=(3, 43, 5)).cumsum(1)
    found = straightness(path @ np.swapaxes(path, 1, 2))
    assert found.shape == (3, 4)  # blocks of 1, 2, 4, 8: of 16 there are only two
    for column, size in enumerate((1, 2, 4, 8)):
        blocks = 43 // size
        means = path[:, 43 - blocks * size :].reshape(3, blocks, size, 5).mean(2)
        length = np.linalg.norm(np.diff(means, axis=1), axis=-1).sum(1)
        way = np.linalg.norm(means[:, -1] - means[:, 0], axis=-1)
        np.testing.assert_allclose(found[:, column], way / length)


def test_power():
    found = power_of(200)
    assert found.needed == (14978, 2139)
    assert found.chance[0] == pytest.approx(1 - (1 - 2e-4) ** 200)
    assert found.largest_rate == pytest.approx(1 - 0.05 ** (1 / 200))
    assert np.isnan(power_of(200, seen=3).largest_rate)
    with pytest.raises(InputError, match="at least 1"):
        power_of(0)


def test_labelled_figure_and_section(tmp_path):
    run = looplens.open_run(synthetic_run(tmp_path / "run", iterations=64))
    found = analysis.get(run, "classify")
    assert found["regime"].values[0, 0] in KINDS_OF_REGIMES
    assert found["signal_end"].max() <= 64
    assert found["p_value"].attrs["surrogates"] == 99
    summary = analysis.summary(run)["classify"]
    assert sum(summary["kinds"].values()) == found["regime"].size
    assert summary["tokens_needed"] == {"0.0002": 14978, "0.0014": 2139}
    tested = np.isfinite(found["p_value"].values)
    assert summary["n_tested"] == tested.sum() == (found["regime"] != "fixed_point").sum()
    assert summary["n_significant"] == (found["p_value"].values <= 0.05).sum()
    assert summary["n_significant_by_chance"] == pytest.approx(0.05 * summary["n_tested"])
    without = analysis.ANALYZERS["classify"]
    none = without.compute(run, surrogates=0)
    assert none["p_value"].isnull().all()
    assert without.summary(none, run)["n_significant_by_chance"] == 0
    restart, token = np.argwhere(found["regime"].values == "orbit")[0]
    for theme in ("light", "dark"):
        figure = plots.verdict(run, int(token), int(restart), theme=theme)
        assert "orbit" in figure.layout.title.text
        assert "period 2" in figure.layout.title.subtitle.text
        # The names of the windows have room below the lowest line.
        assert figure.layout.yaxis.range[0] < np.log10(found["floor"].values[restart, token]) - 0.5
    made = section(Material(run))
    kinds = next(table for table in made.tables if table.caption.startswith("Kinds"))
    found = {name.replace("_", " ") for name, count in summary["kinds"].items() if count}
    assert {row[1] for row in kinds.rows} == found
    assert any("probability of 95 %" in text for text in made.text)
    tested, chance = summary["n_tested"], summary["n_significant_by_chance"]
    said = next(text for text in made.text if f"Of {tested} trajectories" in text)
    assert f"{summary['n_significant']} have a p-value of at most 0.05" in said
    assert f"about {chance:g} would" in said
