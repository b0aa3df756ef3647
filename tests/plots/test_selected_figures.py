"""Figures of runs that keep only a part: everything goes by number, or says why it cannot."""

import re

import numpy as np
import pytest

from looplens import plots
from looplens.analysis import ANALYZERS
from looplens.errors import AnalysisError, InputError, LoopLensError
from looplens.run import open_run

# Options of each figure, and the analyses that it draws.
FIGURES = {
    "convergence_heatmap": ({}, ["convergence"]),
    "trajectory": ({"tokens": [4], "layer": 3}, ["pca"]),
    "steps": ({"tokens": [4]}, ["convergence"]),
    "geometry": ({"token": 4}, ["geometry"]),
    "step_cosines": ({}, ["geometry"]),
    "recurrence": ({"token": 4, "layer": 3}, []),
    "dmd": ({}, ["dmd"]),
    "token_collapse": ({}, ["token_collapse"]),
    "restarts": ({"token": 4, "layer": 3}, ["pca", "path_independence"]),
    "path_independence": ({}, ["path_independence"]),
    "restart_gaps": ({"prompt": 1}, ["path_independence"]),
    "restart_agreement": ({"prompt": 1}, ["path_independence"]),
    "basins": ({"prompt": 1}, ["basins"]),
    "input_dependence": ({}, ["input_dependence"]),
    "cycle": ({"token": 4}, []),
    "attention": ({"prompt": 1, "iteration": 8}, []),
    "attention_heads": ({"prompt": 1, "iteration": 8}, []),
    "attention_difference": ({"prompt": 1, "iteration": 8, "other": 4}, []),
    "attention_change": ({}, ["attention_change"]),
    "regimes": ({}, ["classify"]),
    "verdict": ({"token": 4}, ["classify"]),
    "readout": ({}, ["readout"]),
    "settling": ({"layer": 3}, ["convergence"]),
    "stages": ({}, []),
    "similarity": ({}, ["similarity"]),
    "exits": ({}, ["exits"]),
    "exit_bench": ({}, ["exits"]),
    "tokens": ({"prompt": 1, "colour": "difficulty"}, []),
    "predictions": ({"token": 4}, []),
    "rank_trajectories": ({"token": 4}, []),
    "flips": ({"prompt": 1}, []),
    "prediction_agreement": ({}, ["readout"]),
    "target_ranks": ({"prompt": 1}, []),
    "grouped": ({"by": "difficulty"}, ["classify"]),
}
# What only a model can tell is drawn where there is one.
OF_A_MODEL = {"lens", "lens_ranks", "attention_bound"} | {
    name for name, figure in plots.FIGURES.items() if "._dynamics." in figure.__module__
}


@pytest.fixture(scope="module")
def selected(selected_run_path):
    return open_run(selected_run_path)


@pytest.fixture(scope="module")
def few_layers(few_layers_path):
    return open_run(few_layers_path)


@pytest.mark.parametrize("name", [name for name in plots.FIGURES if name not in OF_A_MODEL])
def test_every_figure_is_drawn_or_says_what_is_missing(selected, few_layers, name):
    options, analyses = FIGURES[name]
    assert plots.FIGURES[name](few_layers, **options).data
    if any(ANALYZERS[analysis].needs(selected) for analysis in analyses):
        with pytest.raises(AnalysisError, match="keep_iterations"):
            plots.FIGURES[name](selected, **options)
    else:
        assert plots.FIGURES[name](selected, **options).data


def test_attention_goes_by_number_and_labels_tokens_that_were_not_kept(selected):
    figure = plots.attention(selected, 1, 8)
    assert "layer 1" in figure.layout.title.subtitle.text
    kept = selected.token_range(1)
    texts = dict(enumerate(figure.data[0].text[row][0] for row in range(8)))
    assert [texts[row] for row in (0, 1, 2)] == ["[0]", "[1]", "[2]"]
    assert texts[3] == selected.tokens["text"].values[kept][0]
    pattern = selected.attention(1, restart=0, layer=1).sel(iteration=8).mean("head").values
    visible = np.tril(np.ones((8, 8), dtype=bool))
    np.testing.assert_allclose(np.asarray(figure.data[0].z)[visible], pattern[visible], rtol=1e-5)


def test_the_cycle_joins_the_layers_that_were_kept(selected):
    figure = plots.cycle(selected, 4)
    names = " ".join(trace.name or "" for trace in figure.data)
    assert "layer 1" in names
    assert "layer 3" in names
    assert "layer 0" not in names
    assert list(figure.data[0].customdata) == list(range(4, 65, 4))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda run: plots.attention(run, 0, 8, layer=0), "layer 0 was not kept in this run"),
        (lambda run: plots.attention(run, 0, 7), "iteration 7 was not kept in this run, which hol"),
        (lambda run: plots.settling(run, layer=2), "holds 1, 3 of 4 layers"),
        (lambda run: plots.attention(run, 0, 8, layer=4), "layer 4 is not in this run"),
    ],
)
def test_what_was_not_kept_is_said(selected, call, message):
    with pytest.raises(InputError, match=re.escape(message)):
        call(selected)


def test_a_layer_that_was_kept_is_found_by_its_number(few_layers):
    settling = few_layers.results("convergence")["layer_settling_iteration"]
    np.testing.assert_array_equal(settling["layer"].values, [1, 3])
    heatmap = plots.convergence_heatmap(few_layers, 1, quantity="relative_step", layer=3)
    expected = few_layers.results("convergence")["layer_relative_step"].sel(layer=3)
    drawn = np.asarray(heatmap.data[0].customdata)
    chosen = expected.isel(restart=0, token=few_layers.token_range(1)).values
    np.testing.assert_allclose(drawn, chosen, rtol=1e-5)


def test_an_incomplete_run_shows_what_it_has(part_run_path):
    run = open_run(part_run_path)
    assert plots.regimes(run).data
    assert np.isfinite(np.asarray(plots.convergence_heatmap(run, 0).data[0].z, dtype=float)).any()
    missing = np.asarray(plots.convergence_heatmap(run, 1).data[0].z, dtype=float)
    assert np.isnan(missing).all()
    with pytest.raises(LoopLensError, match="not recorded yet"):
        plots.attention(run, 1, 8)
