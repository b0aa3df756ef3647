"""Labels, numbers and groups: what a reader sees must not mislead."""

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from looplens.analysis import grouping
from looplens.plots import REGIMES, _labels


@pytest.mark.parametrize(
    ("text", "label"),
    [
        (" the", "␣the"),
        ("\n\t", "⏎⇥"),
        ("", "∅"),
        ("<b>x</b>", "&lt;b&gt;x&lt;/b&gt;"),
        ("%{x}", "%\u200b{x}"),
        ("internationalisation", "interna…sation"),
    ],
)
def test_token_labels_show_whitespace_and_are_not_markup(text, label):
    assert _labels.escape(_labels.visible_text(text)) == label


@given(st.text(max_size=40))
def test_a_label_is_short_and_one_line(text):
    label = _labels.visible_text(text)
    assert 1 <= len(label) <= 14
    assert "\n" not in label


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0, "0"),
        (1, "100"),
        (0.5, "50"),
        (0.125, "12.5"),
        (0.9999, "99.99"),
        (0.0002, "0.02"),
        (0.0014, "0.14"),
        (1e-9, "< 0.001"),
        (1 - 1e-9, "> 99.999"),
    ],
)
def test_a_share_is_not_rounded_to_none_or_all(share, text):
    assert _labels.percent(share) == f"{text}\u202f%"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (12.0, "12"),
        (1234, "1234"),
        (769349.88, "769\u202f000"),
        (3e8, "3e8"),
        (0.123456, "0.123"),
        (2e-7, "2e−7"),
        (-1.5, "−1.5"),
        (np.nan, "–"),
    ],
)
def test_numbers(value, text):
    assert _labels.number(value) == text


def test_an_axis_has_ticks_however_little_its_curve_varies():
    constant, varied = np.array([3.0, 3.1, np.nan]), np.array([0.0, 1e-6, 1.0])
    assert _labels.log_axis(constant)["type"] == "linear"  # where a logarithm has no tick
    assert _labels.log_axis(constant, np.array([10.0]))["dtick"] == "D2"
    axis = _labels.log_axis(varied, constant)  # zero has no place on it
    assert axis["tickvals"][0] == 1e-6
    assert len(axis["tickvals"]) >= 3
    assert _labels.log_axis(np.array([np.nan, 0.0])) == {"type": "log"}


def test_a_cosine_close_to_one_is_not_called_one():
    assert _labels.cosine(1 - 3e-6) == "1 − 3e−6"
    assert _labels.cosine(0.98765) == "0.9877"
    assert _labels.cosine(1.0) == "1.0000"


def groups(number):
    number = np.asarray(number)
    count = number.max(initial=-1) + 1
    labels = tuple(str(group) for group in range(count))
    return grouping.Groups(
        by="x", number=number, values=number * 1.0, labels=labels, centres=np.arange(count)
    )


@given(st.lists(st.tuples(st.integers(-1, 3), st.sampled_from(REGIMES)), min_size=1, max_size=30))
def test_counts_of_groups_add_up_to_the_tokens_that_have_one(pairs):
    number, regime = zip(*pairs, strict=True)
    regime = xr.DataArray([list(regime)] * 2, dims=("restart", "token"))
    made = groups(number)
    assert int(grouping.count_regimes(regime).sum()) == 2 * len(pairs)
    assert int(grouping.count_regimes(regime, made).sum()) == 2 * int((made.number >= 0).sum())


def test_a_median_counts_never_as_the_latest():
    values = xr.DataArray([[2.0, 4.0, np.nan, np.nan, np.nan, 7.0]], dims=("restart", "token"))
    medians = grouping.median_by_group(values, groups([0, 0, 0, 1, 1, 1])).values
    assert medians[0] == 4
    assert np.isnan(medians[1])


def test_a_column_without_a_single_number_is_no_column():
    class Table:
        tokens = xr.Dataset(
            {"position": ("token", [0, 1]), "difficulty": ("token", [np.nan, np.nan])}
        )

    assert grouping.columns(Table()) == ["position"]
    assert grouping.group_tokens(Table()).labels == ("0", "1")


def test_medians_agree_with_the_summary_of_the_analysis(run):
    made = grouping.group_tokens(run, "difficulty")
    settling = run.results("convergence")["settling_iteration"]
    medians = dict(zip(made.labels, grouping.median_by_group(settling, made).values, strict=True))
    expected = run.summary()["convergence"]["settling_by_difficulty"]
    assert {key: None if np.isnan(m) else m for key, m in medians.items()} == expected


def test_many_values_become_ranges(run):
    class Table:
        tokens = xr.Dataset({"position": ("token", np.arange(100)), "text": ("token", ["a"] * 100)})

    made = grouping.group_tokens(Table())
    assert made.by == "position"
    assert len(made.labels) == 8
    assert np.bincount(made.number).sum() == 100
    assert (np.diff(made.number) >= 0).all()
    assert grouping.group_tokens(run).by == "difficulty"
