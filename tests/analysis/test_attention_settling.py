"""Attention that settles: closed forms, the analysis, its figure and section."""

import numpy as np
import pytest

import looplens
from looplens import analysis, plots, reports
from looplens.errors import InputError
from looplens.testing import synthetic_run


def between(shares):
    """Maps that give this share to key 0 and the rest to key 1: (iteration, head 1, query, key)."""
    shares = np.asarray(shares, dtype=float)
    maps = np.stack([shares, 1 - shares], axis=-1)
    return np.repeat(maps[:, None, None, :], 3, axis=2)


def test_a_decay_settles_at_its_rate_when_it_is_closer_than_the_tolerance():
    t = np.arange(1, 41)
    found = analysis.attention_settling(between(0.5 + 0.4 * 0.7**t), tolerance=0.01)
    # 0.4 * 0.7^t < 0.01 from t = 11 on (0.0079); the mean of the last quarter is the limit.
    assert found.settling_iteration.tolist() == [11]
    assert found.rate[0] == pytest.approx(0.7, rel=1e-3)
    assert found.change.shape == (39, 1)
    assert found.distance_to_limit.shape == (40, 1)
    np.testing.assert_allclose(found.change[0], 0.4 * (0.7 - 0.49), rtol=1e-9)
    # Changes of iterations 2 to 40; the floor is the median of the last nine, iteration 36, and
    # three times it lies between the changes of iterations 33 and 32: 0.7^-3 = 2.9, 0.7^-4 = 4.2.
    assert found.signal_end.tolist() == [32]
    np.testing.assert_allclose(found.floor, found.change[36 - 2], rtol=1e-9)


def test_a_flipping_and_a_slowly_drifting_head_do_not_settle():
    t = np.arange(1, 41)
    flipping = analysis.attention_settling(between(0.5 + 0.2 * (-1.0) ** t))
    drifting = analysis.attention_settling(between(0.1 + 0.005 * t))
    assert np.isnan(flipping.settling_iteration).all()
    assert np.isnan(drifting.settling_iteration).all()
    assert drifting.change.max() < 0.01  # although every change is below the tolerance
    assert flipping.floor[0] == pytest.approx(0.4)


def test_still_attention_settles_at_once_and_unknown_attention_never():
    still = analysis.attention_settling(between(np.full(8, 0.3)))
    assert still.settling_iteration.tolist() == [1]
    assert still.floor.tolist() == [0]
    lost = analysis.attention_settling(between(np.full(8, np.nan)))
    for name in ("settling_iteration", "rate", "floor", "signal_end"):
        assert np.isnan(getattr(lost, name)).all(), name


def test_errors_say_what_is_wrong():
    with pytest.raises(InputError, match="at least two iterations; got 1"):
        analysis.attention_settling(between([0.5]))
    with pytest.raises(InputError, match="tolerance must be positive"):
        analysis.attention_settling(between([0.5, 0.5]), tolerance=0)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("attention") / "run"
    opened = looplens.open_run(synthetic_run(path, prompts=2, iterations=48))
    opened.analyze("attention_change", attention_tolerance=0.02)
    return opened


def test_the_heads_of_a_run_settle_at_the_rate_of_their_formula(run):
    found = analysis.get(run, "attention_change")
    assert found["settling_iteration"].dims == ("prompt", "restart", "layer", "head")
    assert found["distance_to_limit"].sizes["iteration"] == 47
    assert found["settling_iteration"].attrs["tolerance"] == 0.02
    np.testing.assert_allclose(found["rate"], 0.8, rtol=0.05)  # maps approach theirs by 0.8
    summary = analysis.summary(run)["attention_change"]
    assert summary["settled_share"] == 1
    assert summary["median_rate"] == pytest.approx(0.8, rel=0.03)
    with pytest.raises(InputError, match="a total variation between 0 and 1; got 2"):
        run.analyze("attention_change", attention_tolerance=2)


def test_the_figure_marks_when_each_head_settles_and_the_report_counts_them(run):
    figure = plots.attention_change(run, 1, restart=1)
    found = analysis.get(run, "attention_change")["settling_iteration"].isel(prompt=1, restart=1)
    marks = next(trace for trace in figure.data if trace.type == "scatter")
    assert list(marks.x) == found.values.ravel().tolist()
    assert "0.02" in marks.name
    section = reports.build(run).section("attention")
    facts = {fact.label: fact.value for fact in section.facts}
    assert facts["Heads that settle"].startswith("100")
