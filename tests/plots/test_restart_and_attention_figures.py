"""Figures of restarts and attention draw the labelled numbers, and what a browser moves."""

import numpy as np
import pytest
import xarray as xr

from looplens import analysis, plots
from looplens.errors import AnalysisError, InputError
from looplens.plots._attention_heads import tiles


def heatmap(figure):
    return next(trace for trace in figure.data if trace.type == "heatmap")


def shapes(figure, name):
    return [shape for shape in figure.layout.shapes if shape.name == name]


def maps(length, heads=None):
    rng = np.random.default_rng(0)
    shape = (length, length) if heads is None else (heads, length, length)
    dims = ("query", "key") if heads is None else ("head", "query", "key")
    places = np.arange(length)
    return xr.DataArray(rng.random(shape), dims=dims, coords={"query": places, "key": places})


class TestRestarts:
    def test_the_bars_count_all_tokens_on_both_sides(self, run):
        figure = plots.path_independence(run)
        for axis in ("x", "x2"):
            bars = [trace for trace in figure.data if trace.xaxis == axis]
            assert sum(np.sum(trace.y) for trace in bars) == run.n_tokens
            assert len({trace.marker.pattern.shape for trace in bars}) == len(bars)

    def test_the_map_of_gaps_is_that_of_the_prompt(self, run):
        figure = plots.restart_gaps(run, 1, iteration=9, token=12)
        gap = analysis.get(run, "path_independence")["gap"].isel(token=run.token_range(1))
        np.testing.assert_allclose(heatmap(figure).customdata, gap.values, rtol=1e-6)
        (row,) = shapes(figure, "row")
        assert (row.y0, row.y1) == (12 - 8 - 0.5, 12 - 8 + 0.5)
        assert figure.layout.meta["first_token"] == 8
        assert [line.x0 for line in shapes(figure, plots.CURSOR)] == [9, 9]
        curve = next(trace for trace in figure.data if trace.name == "prompt")
        np.testing.assert_allclose(curve.y, np.maximum(np.median(gap.values, axis=0), min(curve.y)))

    def test_tokens_that_do_not_contract_are_counted(self, run):
        figure = plots.restart_gaps(run, 0)
        marks = next(trace for trace in figure.data if "contracts" in (trace.name or ""))
        # The one with two basins.
        assert "1 of 8 tokens do not contract" in figure.layout.title.subtitle.text
        assert 7 not in marks.y

    def test_agreement_starts_where_something_is_read_out(self, run):
        drawn = heatmap(plots.restart_agreement(run, 2))
        expected = analysis.get(run, "path_independence")["readout_agreement"]
        expected = expected.isel(token=run.token_range(2)).values[:, 1:]
        np.testing.assert_allclose(drawn.z, expected, rtol=1e-6)
        assert (drawn.zmin, drawn.zmax, drawn.x[0]) == (0, 1, 1)

    def test_a_token_of_another_prompt_has_no_row(self, run):
        with pytest.raises(InputError, match="one of the tokens 0 to 7 that are shown, got 8"):
            plots.restart_gaps(run, 0, token=8)

    def test_every_restart_has_its_cursor(self, run):
        figure = plots.restarts(run, 7, iteration=5)
        paths = [t for t in figure.data if (t.meta or {}).get("role") == "trajectory"]
        (cursor,) = [t for t in figure.data if (t.meta or {}).get("role") == plots.CURSOR]
        assert len(paths) == run.restarts
        assert list(cursor.x) == [path.x[5] for path in paths]
        assert [line.xref for line in shapes(figure, plots.CURSOR)] == ["x2"]

    def test_many_restarts_are_not_all_drawn(self, run):
        found = analysis.get(run, "pca")
        projection = found["projection"].isel(token=0)
        many = xr.concat([projection.isel(restart=0)] * 20, "restart")
        figure = plots.restarts_figure(
            many,
            found["explained_variance_ratio"],
            analysis.get(run, "path_independence").isel(token=0),
            seeds=list(range(20)),
            label="a",
        )
        assert len([t for t in figure.data if (t.meta or {}).get("role") == "trajectory"]) == 16

    def test_one_restart_says_what_to_record(self, lonely_run):
        for figure in (plots.restart_gaps, plots.restart_agreement):
            with pytest.raises(AnalysisError, match="restarts=2 or more"):
                figure(lonely_run, 0)


class TestAttention:
    def test_all_heads_lie_side_by_side_in_one_map(self, run):
        drawn = heatmap(plots.attention_heads(run, 1, 6, layer=1))
        maps = analysis.attention_maps(run, 1, 6, layer=1)["weight"].values
        places = tiles(*maps.shape[:2])
        for head, expected in enumerate(maps):
            row, column = places.corner(head)
            cells = (slice(row, row + places.cells), slice(column, column + places.cells))
            np.testing.assert_allclose(np.asarray(drawn.z)[cells], expected, rtol=1e-6)
            assert (np.asarray(drawn.customdata)[cells] == head).all()

    @pytest.mark.parametrize("heads", [1, 2, 3, 4, 7, 8, 12, 16, 40, 55])
    def test_heads_never_overlap(self, heads):
        places = tiles(heads, 30)
        covered = np.zeros((places.height, places.width), dtype=int)
        for head in range(heads):
            row, column = places.corner(head)
            covered[row : row + places.cells, column : column + places.cells] += 1
        assert covered.max() == 1
        assert covered.sum() == heads * 30**2
        assert places.columns >= places.rows

    def test_the_strongest_changes_carry_their_sign(self):
        difference = maps(4) * 0
        difference[2, 0], difference[3, 1], difference[1, 0] = 0.4, -0.3, 0.1
        figure = plots.attention_difference_figure(
            difference, iteration=3, other=1, labels=list("abcd")
        )
        drawn, signs = figure.data
        assert (drawn.zmin, drawn.zmax) == (-0.4, 0.4)
        assert list(zip(signs.x, signs.y, signs.text, strict=True)) == [(0, 2, "+"), (1, 3, "−")]
        still = plots.attention_difference_figure(
            maps(4) * 0, iteration=3, other=1, labels=list("abcd")
        )
        assert still.data[0].zmax == 1e-3
        assert not still.data[1].x

    def test_long_prompts_keep_their_positions_and_say_so(self, run):
        length = 90
        joined = maps(30)
        joined = joined.assign_coords(query=np.arange(0, 90, 3), key=np.arange(0, 90, 3))
        figure = plots.attention_figure(joined, labels=["word"] * length, title="t")
        assert list(figure.data[0].x[:2]) == [1.0, 4.0]
        assert list(figure.layout.xaxis.range) == [-0.5, length - 0.5]
        assert figure.data[0].text[0][0] == "word … word"

    def test_heads_settle_by_their_change_or_by_their_distance_to_the_limit(self, run):
        found = analysis.get(run, "attention_change").isel(prompt=1, restart=0)
        drawn = heatmap(plots.attention_change(run, 1, quantity="distance_to_limit"))
        expected = found["distance_to_limit"].transpose("layer", "head", "iteration").values
        np.testing.assert_allclose(drawn.customdata, expected.reshape(drawn.z.shape), rtol=1e-6)
        with pytest.raises(InputError, match=r"quantity must be one of .*Did you mean 'change'"):
            plots.attention_change(run, 1, quantity="changes")

    def test_the_row_of_the_token_is_framed(self, run):
        figure = plots.attention(run, 1, 5, token=10)
        (row,) = shapes(figure, "row")
        assert (row.y0, row.y1, row.visible) == (1.5, 2.5, True)
        assert shapes(plots.attention(run, 1, 5), "row")[0].visible is False
