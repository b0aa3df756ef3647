"""Step geometry and token collapse on systems in closed form, and all of it on a run."""

import numpy as np
import pytest
from closed_form_paths import ALL, PERIOD, T, circle, embedded
from hypothesis import given, settings
from hypothesis import strategies as st

from looplens import analysis, plots
from looplens.errors import AnalysisError, InputError
from looplens.reports._material import Material
from looplens.reports._sections import geometry as section
from looplens.run import open_run
from looplens.testing import synthetic_run

pytestmark = pytest.mark.filterwarnings("error")

NAMES = ["geometry", "recurrence", "change_points", "dmd", "token_collapse"]


class TestSteps:
    def test_turning_of_known_paths(self):
        found = analysis.geometry(ALL[:4])
        turn = 2 * np.pi / PERIOD
        expected = [np.cos(turn), 1, -1, 1]
        np.testing.assert_allclose(found.mean_step_cosine, expected, atol=1e-6)
        np.testing.assert_allclose(found.turning_angle, [turn, 0, np.pi, 0], atol=1e-3)
        assert np.isnan(found.step_cosine[:, 0]).all()
        np.testing.assert_allclose(found.straightness[[1, 3]], 1, rtol=1e-9)
        assert (found.straightness[[0, 2]] < 0.06).all()

    def test_every_curve_is_its_definition(self):
        states = ALL[4]
        found = analysis.geometry(states)
        step = np.diff(states, axis=0)
        size, norm = np.linalg.norm(step, axis=1), np.linalg.norm(states[1:], axis=1)
        unit = states[:-1] / np.linalg.norm(states[:-1], axis=1)[:, None]
        along = (step * unit).sum(1)
        across = np.linalg.norm(step - along[:, None] * unit, axis=1)
        cosine = (step[1:] * step[:-1]).sum(1) / (size[1:] * size[:-1])
        bend = np.linalg.norm(np.diff(step, axis=0), axis=1)
        np.testing.assert_allclose(found.step_norm, size, rtol=1e-12)
        np.testing.assert_allclose(found.step_cosine[1:], cosine, atol=1e-12)
        np.testing.assert_allclose(found.acceleration[1:], bend / norm[1:], rtol=1e-12)
        np.testing.assert_allclose(found.radial_step, along / norm, atol=1e-12)
        np.testing.assert_allclose(found.tangential_step, across / norm, rtol=1e-9)
        chord = np.linalg.norm(states[-1] - states[1])
        np.testing.assert_allclose(found.straightness, chord / size[1:].sum(), rtol=1e-12)
        np.testing.assert_allclose(found.path_length, size[1:].sum() / norm[-1], rtol=1e-12)
        # The first step, from the random start, is in none of the numbers.
        np.testing.assert_allclose(found.mean_step_cosine, cosine[1:].mean(), atol=1e-12)
        np.testing.assert_allclose(found.turning_angle, np.arccos(cosine[1:]).mean(), atol=1e-12)
        bend = np.arccos(cosine[1:]) / (0.5 * (size[2:] + size[1:-1])) * norm[2:]
        np.testing.assert_allclose(found.curvature, np.median(bend), rtol=1e-9)

    def test_the_curvature_of_a_circle_about_the_origin_is_one(self):
        found = analysis.geometry(embedded(circle(period=60.0, radius=4.0), offset=0.0))
        np.testing.assert_allclose(found.curvature, 1, rtol=1e-3)

    def test_rounding_is_no_signal(self):
        rng = np.random.default_rng(0)
        states = embedded(0.5**T) + 1e-8 * rng.normal(size=(65, 16))
        whole = analysis.geometry(states)
        assert whole.signal_end == 64  # float64 does not round like that
        assert whole.mean_step_cosine < 0.1  # two thirds of it are noise, of cosine -1/2
        signal = analysis.geometry(states, rounding=1e-8)
        assert 20 <= signal.signal_end <= 30
        assert signal.mean_step_cosine > 0.8
        still = analysis.geometry(np.ones((9, 4)))
        assert still.signal_end == 0
        assert np.isnan(still.mean_step_cosine)

    def test_precision_does_not_matter(self):
        states = embedded(1.0 + 1e-3 * circle(), offset=5.0)
        double, single = analysis.geometry(states), analysis.geometry(states.astype(np.float32))
        np.testing.assert_allclose(single.mean_step_cosine, double.mean_step_cosine, atol=1e-3)
        np.testing.assert_allclose(single.straightness, double.straightness, atol=1e-3)

    @settings(max_examples=10, deadline=None, derandomize=True)
    @given(st.integers(0, 1000), st.floats(-30, 30))
    def test_nothing_sees_rotations_and_scales(self, seed, exponent):
        rotation = np.linalg.qr(np.random.default_rng(seed).normal(size=(16, 16)))[0]
        turned = 10**exponent * ALL @ rotation
        before, after = analysis.geometry(ALL), analysis.geometry(turned)
        for name in ("mean_step_cosine", "curvature", "straightness", "path_length"):
            np.testing.assert_allclose(getattr(after, name), getattr(before, name), atol=1e-5)
        before, after = analysis.recurrence(ALL[:, 1:]), analysis.recurrence(turned[:, 1:])
        for name in ("recurrence_rate", "closest_return", "frequency", "extent"):
            np.testing.assert_allclose(getattr(after, name), getattr(before, name), atol=1e-5)
        before, after = analysis.token_collapse(ALL), analysis.token_collapse(turned)
        np.testing.assert_allclose(after.cosine, before.cosine, atol=1e-9)
        np.testing.assert_allclose(after.spread, before.spread, atol=1e-7)

    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    def test_a_state_of_zero_has_no_norm_to_divide_by(self, dtype):
        states = np.random.default_rng(0).normal(size=(3, 40, 8)).astype(dtype)
        whole = analysis.geometry(states)
        states[0, 20], states[1, -1] = 0, 0
        found = analysis.geometry(states)
        for name in ("acceleration", "radial_step", "tangential_step"):
            values = getattr(found, name)
            assert np.isnan(values[0, 19]), name
            assert np.isfinite(values[0, 20:]).all(), name
            np.testing.assert_array_equal(values[2], getattr(whole, name)[2])
        assert np.isnan(found.path_length).tolist() == [False, True, False]
        assert np.isfinite(found.mean_step_cosine).all()
        assert np.isnan(analysis.recurrence(states).extent).tolist() == [False, True, False]

    def test_the_two_scale_ratio_of_known_layers(self):
        layer = embedded(0.5 * T)  # steps of 0.5
        other = layer + 3.0 * np.eye(16)[3]
        np.testing.assert_allclose(analysis.two_scale_ratio(np.stack([layer, other])), [6.0])
        decay = embedded(0.5 ** np.arange(1.0, 41)[:, None])  # about a point of norm 3
        both = np.stack([decay, 2 * decay - decay[-1] + 3.0 * np.eye(16)[3]])
        steps = 0.5 ** np.arange(2.0, 7)  # all of the signal, to the last above 3 * 1e-3 * 3
        ratio = analysis.two_scale_ratio(both, rounding=1e-3)
        np.testing.assert_allclose(ratio, [3.0 / steps.mean()], rtol=1e-6)
        with pytest.raises(InputError, match="at least two layers and three iterations; got 1 and"):
            analysis.two_scale_ratio(layer[None])
        for measure in (analysis.two_scale_ratio, analysis.recurrence, analysis.dmd):
            with pytest.raises(InputError, match="rounding must not be negative"):
                measure(np.stack([layer, other]), rounding=-1)

    def test_bad_input_is_named(self):
        with pytest.raises(InputError, match="at least three states; got 2"):
            analysis.geometry(np.ones((2, 4)))
        with pytest.raises(InputError, match="rounding must not be negative"):
            analysis.geometry(np.ones((4, 4)), rounding=-1)
        spoilt = ALL.copy()
        spoilt[0, 3, 2] = np.nan
        assert np.isnan(analysis.geometry(spoilt).signal_end[0])


def test_token_collapse_is_the_mean_over_pairs():
    states = np.random.default_rng(0).normal(size=(2, 5, 3, 8)) + 1.0
    found = analysis.token_collapse(states)
    unit = states / np.linalg.norm(states, axis=-1, keepdims=True)
    pairs = [(unit[:, i] * unit[:, j]).sum(-1) for i in range(5) for j in range(i)]
    np.testing.assert_allclose(found.cosine, np.mean(pairs, axis=0), rtol=1e-12)
    apart = np.square(states - states.mean(1, keepdims=True)).sum(-1).mean(1)
    np.testing.assert_allclose(found.spread, np.sqrt(apart / np.square(states).sum(-1).mean(1)))
    same = analysis.token_collapse(np.ones((4, 2, 3)))
    assert same.cosine.tolist() == [1, 1]
    np.testing.assert_allclose(same.spread, 0, atol=1e-7)
    many = np.random.default_rng(0).normal(size=(300, 33, 16))  # summed in parts
    unit = many / np.linalg.norm(many, axis=-1, keepdims=True)
    pairs = np.einsum("sti,uti->t", unit, unit) - 300
    np.testing.assert_allclose(
        analysis.token_collapse(many).cosine, pairs / (300 * 299), atol=1e-12
    )
    states[0, 1, 1], states[1, 2, 0] = 0, np.inf
    unknown = np.isnan(analysis.token_collapse(states).cosine)
    np.testing.assert_array_equal(unknown, [[False, True, False], [True, False, False]])
    with pytest.raises(InputError, match="at least two tokens; got 1"):
        analysis.token_collapse(states[:, :1])


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    opened = open_run(synthetic_run(tmp_path_factory.mktemp("geometry") / "run"))
    opened.analyze(NAMES)
    return opened


class TestRun:
    def test_the_run_says_what_the_array_functions_say(self, run):
        states = run.state().values
        whole = analysis.geometry(states, rounding=1.9e-7)
        stored = run.results("geometry")
        for name in ("signal_end", "mean_step_cosine", "straightness"):
            np.testing.assert_allclose(stored[name].values, getattr(whole, name), rtol=1e-6)
        returns = analysis.recurrence(states[:, :, 1:], rounding=1.9e-7)
        np.testing.assert_allclose(
            run.results("recurrence")["closest_return"], returns.closest_return, atol=1e-6
        )
        layers = run.site("resid_post").transpose("restart", "token", "layer", ...).values
        ratio = analysis.two_scale_ratio(layers, rounding=1.9e-7)
        np.testing.assert_allclose(stored["two_scale_ratio"].values[..., :1], ratio, rtol=1e-6)
        cosine = analysis.token_collapse(states[:, run.token_range(1)]).cosine
        np.testing.assert_allclose(run.results("token_collapse")["token_cosine"][1], cosine)

    def test_known_regimes(self, run):
        period_two, rotation, slider = 3, 4, 5
        modes = run.results("dmd").isel(restart=0, mode=0)
        np.testing.assert_allclose(modes["modulus"][[0, 1, 2]], [0.5, 0.65, 0.75], atol=0.01)
        np.testing.assert_allclose(
            modes["frequency"][[period_two, rotation]], [0.5, 1 / 9.7], atol=1e-3
        )
        closest = run.results("recurrence")["closest_return"].values[0]
        assert (closest[[period_two, rotation]] < 0.01).all()
        assert closest[slider] > 0.99
        assert run.results("change_points")["n_changes"].values[0, 0] == 0

    def test_summary_is_of_finite_numbers(self, run):
        summary = run.summary()
        for name in NAMES:
            assert all(np.isfinite(value) for value in summary[name].values()), name
        assert summary["recurrence"]["closed_share"] == 0.25

    def test_only_dmd_is_left_out_by_default(self, tmp_path):
        fresh = open_run(synthetic_run(tmp_path / "run", prompts=1, iterations=20))
        assert set(fresh.analyze()) & set(NAMES) == set(NAMES) - {"dmd"}
        short = open_run(synthetic_run(tmp_path / "short", prompts=1, iterations=5))
        for name, least in (("recurrence", 16), ("change_points", 11), ("dmd", 7)):
            with pytest.raises(AnalysisError, match=f"needs? at least {least}"):
                short.analyze(name)
        assert np.isfinite(short.analyze("geometry")["geometry"]["mean_step_cosine"]).any()

    def test_parts_of_a_run(self, part_run_path):
        part = open_run(part_run_path)
        collapse = part.results("token_collapse")["token_cosine"].values
        assert np.isfinite(collapse[[0, 2]]).all()
        assert np.isnan(collapse[1]).all()
        assert np.isnan(part.results("geometry")["step_cosine"].values[:, 8:16]).all()

    def test_a_prompt_may_lie_in_several_blocks(self, tmp_path, run):
        from selecting_runs import select_run

        cut = open_run(select_run(run.path, tmp_path / "cut", block_tokens=3))
        np.testing.assert_allclose(
            cut.results("token_collapse")["token_cosine"],
            run.results("token_collapse")["token_cosine"],
            rtol=1e-9,
        )

    @pytest.mark.parametrize("theme", ["light", "dark"])
    def test_figures(self, run, theme):
        for name, options in (
            ("geometry", {"token": 0}),
            ("step_cosines", {"prompt": 1}),
            ("recurrence", {"token": 4, "layer": 0}),
            ("recurrence", {"token": 4}),
            ("dmd", {"prompt": 1, "restart": 1}),
            ("token_collapse", {}),
        ):
            assert plots.FIGURES[name](run, theme=theme, **options).data
        figure = plots.geometry(run, 0)
        np.testing.assert_allclose(
            figure.data[1].y, run.results("geometry")["step_cosine"].values[0, 0]
        )
        (shaded,) = figure.layout.shapes[:1]
        assert shaded.x0 == run.results("geometry")["signal_end"].values[0, 0] + 0.5
        assert "dominant period 9.68" in plots.recurrence(run, 4).layout.title.subtitle.text

    def test_states_that_end_at_zero_or_are_not_finite_are_drawn_or_refused(self, run, monkeypatch):
        modes = run.results("dmd").isel(restart=0, token=slice(0, 3)).copy(deep=True)
        modes["amplitude"][0] = np.nan  # no norm to divide by
        assert len(plots.dmd_figure(modes, labels=list("abc")).data[1].marker.size) == 3

        site = type(run).site
        monkeypatch.setattr(type(run), "site", lambda *run, **place: np.nan * site(*run, **place))
        with pytest.raises(AnalysisError, match="token 3 are not finite: no layer has a limit"):
            plots.cycle(run, 3)

    def test_the_section_of_the_report(self, run):
        found = section(Material(run))
        labels = [fact.label for fact in found.facts]
        assert "Two-scale ratio, median" in labels
        assert "Modulus of the largest mode, median" in labels
        assert [picture.name for picture in found.pictures] == ["step-cosines", "dmd"]
        assert all(fact.value != "–" for fact in found.facts)
