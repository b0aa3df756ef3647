"""Paths through principal components, and steps: what is drawn, and what a browser needs."""

import numpy as np
import pytest
import xarray as xr

from looplens import analysis, plots
from looplens.errors import AnalysisError, InputError


def traces(figure, role):
    return [trace for trace in figure.data if (trace.meta or {}).get("role") == role]


def lines(figure):
    return [shape for shape in figure.layout.shapes if shape.name == plots.CURSOR]


class TestTrajectory:
    def test_coordinates_are_the_stored_projection(self, run):
        figure = plots.trajectory(run, [1, 3], restart=1)
        expected = analysis.get(run, "pca")["projection"].isel(restart=1)
        for trace in traces(figure, "trajectory"):
            own = expected.isel(token=trace.meta["token"]).values[:, :2]
            drawn = np.array([trace.x, trace.y]).T
            np.testing.assert_allclose(drawn, own, atol=1e-4 * np.abs(own).max())
            assert list(trace.customdata) == list(range(run.iterations + 1))

    def test_the_strip_below_is_what_the_plane_leaves_out(self, run):
        figure = plots.trajectory(run, [1, 4], components=(1, 0))
        found = analysis.projection(run, [1, 4], components=(1, 0))
        for token, strip in zip((1, 4), traces(figure, "off_plane"), strict=True):
            expected = found["off_plane"].sel(token=token, layer=-1).values
            np.testing.assert_allclose(strip.y, expected, atol=1e-9)
            assert strip.xaxis == "x2"
            (path,) = [t for t in traces(figure, "trajectory") if t.meta["token"] == token]
            assert "of the step" in path.text[1]

    def test_every_path_has_a_point_of_the_cursor_in_its_order(self, run):
        figure = plots.trajectory(run, [1, 3], layers=[None, 0], basis="prompt", iteration=5)
        paths = traces(figure, "trajectory")
        assert [(path.meta["token"], path.meta["layer"]) for path in paths] == [
            (token, layer) for token in (1, 3) for layer in (-1, 0)
        ]
        (cursor,) = traces(figure, "cursor")
        assert cursor.visible is True
        assert list(cursor.x) == [path.x[5] for path in paths]
        assert [line.x0 for line in lines(figure)] == [5]
        hidden = plots.trajectory(run, [1, 3])
        assert traces(hidden, "cursor")[0].visible is False
        assert not any(line.visible for line in lines(hidden))

    def test_tokens_and_layers_are_told_apart_without_colour(self, run):
        tokens = traces(plots.trajectory(run, [1, 2, 3, 4]), "trajectory")
        assert len({trace.marker.symbol for trace in tokens}) == 4
        both = traces(plots.trajectory(run, [1, 2], layers=[0, 1]), "trajectory")
        looks = {(trace.line.color, trace.marker.symbol) for trace in both}
        assert len(looks) == 4
        assert "layer 1" in both[1].name

    def test_a_browser_can_read_the_coordinates_without_decoding(self, run):
        plain = plots.trajectory(run, [1]).to_plotly_json()
        drawn = [t for t in plain["data"] if t["meta"]["role"] in ("trajectory", "cursor")]
        assert all(isinstance(trace["x"], list | tuple) for trace in drawn)

    def test_start_and_end_are_marked(self, run):
        figure = plots.trajectory(run, [2])
        (path,) = traces(figure, "trajectory")
        (start,), (end,) = traces(figure, "start"), traces(figure, "end")
        assert (start.x[0], end.x[0]) == (path.x[0], path.x[-1])
        assert end.name == f"last state (iteration {run.iterations})"

    def test_axes_tell_the_variance_explained(self, run):
        share = analysis.get(run, "pca")["explained_variance_ratio"].values
        figure = plots.trajectory(run, [1], components=(2, 0))
        assert f"{100 * share[2]:.1f}" in figure.layout.xaxis.title.text
        assert figure.layout.xaxis.title.text.startswith("PC 3")

    def test_a_layer_has_no_iteration_zero_and_beside_the_loop_state_a_gap_there(self, run):
        (path,) = traces(plots.trajectory(run, [1], layer=0), "trajectory")
        assert path.customdata[0] == 1
        _, beside = traces(plots.trajectory(run, [1], layers=[None, 0]), "trajectory")
        assert (beside.x[0], beside.customdata[0]) == (None, 0)

    def test_the_view_of_the_tail_begins_at_the_tail_and_says_when_it_is_rounding(self, run):
        figure = plots.trajectory(run, [4], basis="tail")
        (path,) = traces(figure, "trajectory")
        low, high = figure.layout.xaxis.range
        assert low < min(path.x[-16:]) < max(path.x[-16:]) < high
        assert "rounding" not in figure.layout.title.subtitle.text
        rests = plots.trajectory(run, [0], basis="tail")
        assert "which is rounding" in rests.layout.title.subtitle.text

    def test_three_dimensions_stand_on_the_same_strip(self, run):
        figure = plots.trajectory(run, [1, 2], dims=3, iteration=3)
        assert {trace.type for trace in figure.data} == {"scatter3d", "scatter"}
        assert {trace.type for trace in traces(figure, "off_plane")} == {"scatter"}
        assert figure.layout.scene.zaxis.title.text.startswith("PC 3")
        assert lines(figure)[0].xref == "x"

    def test_many_tokens_are_thinned_and_the_figure_says_so(self, run):
        figure = plots.trajectory(run, range(24), layers=[None, 0, 1])
        assert len(traces(figure, "trajectory")) == 24
        assert "8 of 24 tokens are drawn" in figure.layout.title.subtitle.text

    def test_webgl_only_for_many_points(self, run):
        assert {trace.type for trace in plots.trajectory(run, [1]).data} == {"scatter"}
        axes = ("layer", "token", "iteration")
        many = xr.Dataset(
            {
                "projection": ((*axes, "component"), np.zeros((1, 60, 100, 2))),
                "off_plane": (axes, np.zeros((1, 60, 100))),
                "step_off_plane": (axes, np.zeros((1, 60, 100))),
                "explained_variance_ratio": ("component", [0.5, 0.5]),
            },
            coords={"iteration": np.arange(100), "token": np.arange(60), "layer": [-1]},
        )
        figure = plots.trajectory_figure(many, labels=[str(token) for token in range(60)])
        assert {trace.type for trace in traces(figure, "trajectory")} == {"scattergl"}

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"tokens": []}, "tokens is empty"),
            ({"tokens": 24}, "token 24 is not in this run, which holds token 0 to 23"),
            ({"tokens": [1], "restart": 2}, "restart 2 is not in this run"),
            ({"tokens": [1], "layer": 2}, "layer 2 is not in this run"),
            ({"tokens": [1], "layer": 1, "layers": [0]}, "Name the states once: layer=1 or layers"),
            ({"tokens": [1], "layers": []}, "layers is empty"),
            ({"tokens": [1], "dims": 4}, "dims must be 2 or 3"),
            ({"tokens": [1], "basis": "tial"}, "basis must be one of .*Did you mean 'tail'"),
            ({"tokens": [1], "iteration": 65}, "iteration must be one of 0 to 64, got 65"),
            ({"tokens": [1], "components": (0, 99)}, "component 99 is not in this run"),
        ],
    )
    def test_what_does_not_exist_is_named(self, run, options, message):
        with pytest.raises(InputError, match=message):
            plots.trajectory(run, **options)


class TestSteps:
    def test_curves_floor_tolerance_and_settling_are_those_of_the_analyses(self, run):
        figure = plots.steps(run, [1, 3], restart=1, iteration=7)
        results = analysis.get(run, "convergence").isel(restart=1)
        step, *_ = traces(figure, "steps")
        expected = results["relative_step"].isel(token=1).values
        np.testing.assert_allclose(step.y, np.where(expected > 0, expected, np.nan))
        (settles,) = traces(figure, "settles")
        assert list(settles.x) == [float(results["settling_iteration"].isel(token=1))]
        (tolerance,) = traces(figure, "tolerance")
        assert tolerance.y[0] == results["settling_iteration"].attrs["tolerance"]
        floors = analysis.get(run, "classify")["floor"].isel(restart=1, token=[1, 3]).values
        assert [trace.y[0] for trace in traces(figure, "noise")] == floors[floors > 0].tolist()
        assert "1 of 2 settle" in figure.layout.title.subtitle.text
        assert [line.x0 for line in lines(figure)] == [7, 7]

    def test_a_layer_has_steps_and_no_limit(self, run):
        figure = plots.steps(run, 1, layer=0)
        assert figure.layout.title.text == "Step size"
        assert len(list(figure.select_yaxes())) == 1

    def test_one_that_never_settles_says_so(self, run):
        assert "never settles" in plots.steps(run, 3).layout.title.subtitle.text

    def test_many_tokens_are_thinned(self, run):
        text = plots.steps(run, range(24)).layout.title.subtitle.text
        assert "12 of 24 tokens are drawn" in text

    def test_a_layer_that_is_not_there_is_named(self, run):
        with pytest.raises(InputError, match="layer 5 is not in this run"):
            plots.steps(run, 1, layer=5)


def test_a_basis_that_cannot_be_fitted_says_what_to_do(tmp_path):
    from looplens.run import open_run
    from looplens.testing.runs import synthetic_run

    short = open_run(synthetic_run(tmp_path / "short", prompts=1, iterations=1, attention=False))
    with pytest.raises(AnalysisError, match="at least two finite states, and there are 1"):
        plots.trajectory(short, [0], basis="token")


def test_a_long_recurrence_plot_is_of_the_end_and_keeps_a_period_of_two(tmp_path, monkeypatch):
    from looplens.plots import _recurrence
    from looplens.run import open_run
    from looplens.testing.runs import synthetic_run

    monkeypatch.setattr(_recurrence, "_MOST", 16)
    run = open_run(synthetic_run(tmp_path / "long", prompts=1, restarts=1, attention=False))
    figure = plots.recurrence(run, 3, iteration=60)
    drawn = next(trace for trace in figure.data if trace.type == "heatmap")
    assert list(drawn.x) == list(range(49, 65))
    distance = np.asarray(drawn.customdata)
    assert distance[0, 1] > 100 * distance[0, 2]
    assert "the last 16 of 64 iterations are drawn" in figure.layout.title.subtitle.text
    assert [line.x0 for line in lines(figure)] == [60]
