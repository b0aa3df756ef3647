"""Each figure draws what the analysis says, and says what is missing when it cannot."""

import inspect

import numpy as np
import pytest
import xarray as xr

from looplens import analysis, plots
from looplens.analysis import grouping
from looplens.errors import AnalysisError, InputError
from looplens.plots._heatmap import log_values

# What a figure is drawn of; of all others the first prompt and the fourth token.
ARGUMENTS = {
    "convergence_heatmap": {"prompt": 1},
    "trajectory": {"tokens": [1, 3, 4]},
    "steps": {"tokens": [1, 3]},
    "restarts": {"token": 7},
    "attention": {"prompt": 0, "iteration": 5},
    "attention_heads": {"prompt": 0, "iteration": 5},
    "attention_difference": {"prompt": 0, "iteration": 5},
    "grouped": {"by": "difficulty"},
}
# What only a model can tell is drawn where there is one.
OF_A_MODEL = {"lens", "lens_ranks", "attention_bound"} | {
    name for name, figure in plots.FIGURES.items() if "._dynamics." in figure.__module__
}


def arguments(name):
    required = [
        key
        for key, parameter in inspect.signature(plots.FIGURES[name]).parameters.items()
        if parameter.default is inspect.Parameter.empty
    ]
    return ARGUMENTS.get(name) or {
        key: value for key, value in {"prompt": 0, "token": 3}.items() if key in required
    }


def traces(figure, role):
    return [trace for trace in figure.data if (trace.meta or {}).get("role") == role]


def heatmap(figure):
    return next(trace for trace in figure.data if trace.type == "heatmap")


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("name", [name for name in plots.FIGURES if name not in OF_A_MODEL])
def test_every_figure_is_titled_named_and_themed(run, name, theme):
    figure = plots.FIGURES[name](run, **arguments(name), theme=theme)
    assert isinstance(figure, plots.Figure)
    assert figure.layout.title.text
    assert run.model_name in figure.layout.title.subtitle.text
    assert figure.layout.template.layout.paper_bgcolor == plots.palette(theme).paper
    assert 300 <= figure.layout.height <= 1200
    assert figure.to_json()
    labelled = [axis.title.text for axis in (*figure.select_xaxes(), *figure.select_yaxes())]
    assert any(labelled)


class TestConvergenceHeatmap:
    def test_rows_are_the_tokens_and_colours_the_logarithm_of_the_distance(self, run):
        drawn = heatmap(plots.convergence_heatmap(run, prompt=1, restart=1))
        expected = analysis.get(run, "convergence")["distance_to_limit"]
        expected = expected.isel(restart=1, token=run.token_range(1)).values
        positive = expected > 0
        np.testing.assert_allclose(drawn.z[positive], np.log10(expected[positive]), rtol=1e-6)
        np.testing.assert_allclose(drawn.customdata, expected)

    def test_settling_iterations_are_marked_and_the_others_counted(self, run):
        figure = plots.convergence_heatmap(run)
        settling = analysis.get(run, "convergence")["settling_iteration"]
        settling = settling.isel(restart=0, token=run.token_range(0)).values
        marks = next(trace for trace in figure.data if trace.type == "scatter")
        assert sorted(marks.x) == sorted(settling[np.isfinite(settling)])
        never = int(np.isnan(settling).sum())
        assert f"{never} of {settling.size} tokens never settle" in marks.name

    def test_a_layer_can_be_shown(self, run):
        step = heatmap(plots.convergence_heatmap(run, quantity="relative_step", layer=1))
        assert step.x[0] == 1
        with pytest.raises(InputError, match="exists for the loop state only"):
            plots.convergence_heatmap(run, layer=1)
        with pytest.raises(
            InputError, match=r"quantity must be one of .*Did you mean 'relative_step'"
        ):
            plots.convergence_heatmap(run, quantity="relativ_step")

    def test_an_exact_zero_is_the_best_value_and_not_a_missing_one(self):
        drawn = log_values(np.array([[1.0, 0.0, np.nan, 1e-3]]))
        np.testing.assert_allclose(drawn, [[0.0, -3.0, np.nan, -3.0]])
        assert log_values(np.zeros((1, 2))).tolist() == [[0.0, 0.0]]

    def test_labels_never_overlap(self):
        tokens = 400
        values = xr.DataArray(
            np.ones((tokens, 4)), dims=("token", "iteration"), coords={"iteration": np.arange(1, 5)}
        )
        figure = plots.convergence_heatmap_figure(
            values, None, labels=["word"] * tokens, title="t", value_title="v"
        )
        pixels = figure.layout.height - 170
        assert len(figure.layout.yaxis.tickvals) * 14 <= pixels


class TestRestarts:
    def test_both_restarts_and_the_distance_between_them_are_drawn(self, run):
        figure = plots.restarts(run, 7)
        names = [trace.name for trace in figure.data]
        assert names[:2] == ["restart 0 (seed 0)", "restart 1 (seed 1)"]
        gap = analysis.get(run, "path_independence")["gap"].isel(token=7).values
        curve = next(trace for trace in figure.data if trace.yaxis == "y2")
        np.testing.assert_allclose(curve.y[gap > 0], gap[gap > 0])
        assert figure.layout.yaxis2.type == "log"

    def test_identical_restarts_do_not_break_the_logarithmic_axis(self, run):
        projection = xr.DataArray(
            np.zeros((2, 5, 2)),
            dims=("restart", "iteration", "component"),
            coords={"iteration": np.arange(5)},
        )
        same = xr.Dataset({"gap": ("iteration", np.zeros(5))}, coords={"iteration": np.arange(5)})
        share = xr.DataArray([0.9, 0.1], dims="component")
        figure = plots.restarts_figure(projection, share, same, seeds=[1, 2], label="x")
        assert figure.layout.yaxis2.type != "log"
        assert [note.text for note in figure.layout.annotations] == ["exactly 0 at every iteration"]

    def test_one_restart_is_not_enough(self, lonely_run):
        with pytest.raises(AnalysisError, match="at least 2 of them, and this run holds 1"):
            plots.restarts(lonely_run, 0)


class TestCycle:
    def test_arrows_go_round_and_distances_are_those_of_the_analysis(self, run):
        figure = plots.cycle(run, 2)
        arrows = [note for note in figure.layout.annotations if note.showarrow]
        assert len(arrows) == run.n_layers
        ends = [((note.ax, note.ay), (note.x, note.y)) for note in arrows]
        assert [head for _, head in ends] == [tail for tail, _ in ends[1:] + ends[:1]]
        expected = analysis.get(run, "cycle")["distance"].isel(restart=0, token=2).values
        np.testing.assert_allclose(heatmap(figure).z, expected, rtol=1e-4, atol=1e-6)

    def test_one_layer_has_no_cycle(self, lonely_run):
        with pytest.raises(AnalysisError, match="at least two core layers"):
            plots.cycle(lonely_run, 0)


class TestAttention:
    def test_keys_after_the_query_are_blank_and_the_rest_is_what_was_recorded(self, run):
        drawn = heatmap(plots.attention(run, 0, 5, layer=1, head=1, restart=1)).z
        stored = run.attention(0).isel(restart=1, layer=1, iteration=4, head=1).values
        above = np.triu(np.ones_like(stored, dtype=bool), k=1)
        assert np.isnan(drawn[above]).all()
        np.testing.assert_allclose(drawn[~above], stored[~above])

    def test_without_a_head_the_mean_is_shown(self, run):
        drawn = heatmap(plots.attention(run, 0, 5)).z
        stored = run.attention(0).isel(restart=0, layer=0, iteration=4).mean("head").values
        np.testing.assert_allclose(np.nan_to_num(drawn), stored, rtol=1e-5)

    def test_attention_that_is_not_causal_is_shown_whole(self):
        pattern = xr.DataArray(np.full((3, 3), 1 / 3), dims=("query", "key"))
        figure = plots.attention_figure(pattern, labels=["a", "b", "c"], title="t")
        assert np.isfinite(heatmap(figure).z).all()

    def test_the_colour_scale_is_shared_by_all_iterations(self, run):
        ends = {heatmap(plots.attention(run, 0, iteration)).zmax for iteration in (1, 5, 64)}
        assert len(ends) == 1

    def test_what_was_not_recorded_is_named(self, run, lonely_run):
        with pytest.raises(InputError, match="iteration must lie between 1 and 64, got 0"):
            plots.attention(run, 0, 0)
        with pytest.raises(AnalysisError, match="This run holds no attention"):
            plots.attention(lonely_run, 0, 1)
        with pytest.raises(AnalysisError, match=r"not recorded \(recorded: none\)"):
            plots.attention_change(lonely_run)


class TestRegimes:
    def test_bars_count_the_verdicts(self, run):
        figure = plots.regimes(run)
        verdicts = analysis.get(run, "classify")["regime"].values
        bars = [trace for trace in figure.data if trace.orientation == "h"]
        for name, bar in zip(plots.REGIMES, bars, strict=True):
            assert bar.x[0] == (verdicts == name).sum()
        assert len({bar.marker.pattern.shape for bar in bars}) == len(plots.REGIMES)

    def test_shares_of_each_group_add_up(self, run):
        columns = [
            trace.y for trace in plots.regimes(run, "position").data if not trace.orientation
        ]
        np.testing.assert_allclose(np.sum(columns, axis=0), 1)

    def test_hover_names_examples_with_their_period(self, run):
        figure = plots.regimes(run)
        orbit = next(t for t in figure.data if t.orientation == "h" and t.y[0] == "orbit")
        assert "period 2" in orbit.hovertemplate

    def test_an_unknown_column_is_named(self, run):
        with pytest.raises(InputError, match=r"by must be one of 'difficulty'.*'position'"):
            plots.regimes(run, "diffculty")


class TestSettling:
    def test_every_trajectory_with_a_group_is_drawn_once(self, run):
        figure = plots.settling(run)
        drawn = sum(len(trace.x) for trace in figure.data if trace.mode == "markers")
        grouped = int(np.isfinite(run.tokens["difficulty"].values).sum())
        assert drawn == grouped * run.restarts

    def test_never_settling_has_a_band_above_the_last_iteration(self, run):
        never = next(t for t in plots.settling(run).data if t.name.startswith("never"))
        assert min(never.y) > run.iterations
        assert "never" in plots.settling(run).layout.yaxis.ticktext

    def test_a_very_large_run_is_thinned_and_says_so(self):
        class Table:
            tokens = xr.Dataset({"position": ("token", np.arange(30_000) % 4)})

        values = xr.DataArray(np.full((2, 30_000), 3.0), dims=("restart", "token"))
        figure = plots.settling_figure(
            values,
            grouping.group_tokens(Table()),
            iterations=8,
            labels=lambda tokens: [f"token {number}" for number in tokens],
        )
        assert len(figure.data[0].x) == len(figure.data[0].text) == 2_000
        assert "one trajectory in 30 is drawn" in figure.layout.title.subtitle.text

    def test_the_picture_is_the_same_every_time(self, run):
        assert plots.settling(run) == plots.settling(run)


class TestReadout:
    def test_curves_are_those_of_the_analysis(self, run):
        figure = plots.readout(run)
        results = analysis.get(run, "readout")
        np.testing.assert_allclose(figure.data[0].y, results["accuracy"].values)

    def test_accuracy_splits_by_difficulty(self, run):
        names = [trace.name for trace in plots.readout(run, "difficulty").data]
        assert names[0] == "difficulty 1"
        with pytest.raises(InputError, match=r"known by: .*difficulty"):
            plots.readout(run, "dificulty")
