"""Conditions on a summary: what they accept, what fails, and what must never pass by accident."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from looplens.errors import InputError
from looplens.reports.conditions import check, parse_condition

SUMMARY = {
    "path_independence": {"aa_score": 0.9, "median_final_gap": math.nan, "share": 0.5},
    "classify": {"share": 0.25, "n_orbit": 3, "verdict": "settles", "complete": True},
    "readout": {"final_accuracy": None},
}


def test_true_conditions_are_the_failures_in_the_order_given():
    failures = check(
        [
            "classify.n_orbit >= 4",
            "path_independence.aa_score < 0.95",
            "classify.verdict != settles",
            "classify.verdict == 'settles'",
            "classify.complete == true",
        ],
        SUMMARY,
    )
    assert [str(failure) for failure in failures] == [
        "path_independence.aa_score < 0.95 (it is 0.9)",
        "classify.verdict == settles (it is settles)",
        "classify.complete == 1 (it is 1)",
    ]


def test_a_name_that_only_one_analysis_reports_may_stand_alone():
    assert check(["aa_score<0.95"], SUMMARY)[0].key == "path_independence.aa_score"
    with pytest.raises(InputError, match=r"several values: classify\.share, path_independence\.sh"):
        check(["share > 0"], SUMMARY)
    with_lab = SUMMARY | {"dynamics": {"causes": {"aa_score": 0.1, "own_share": 0.5}}}
    assert check(["aa_score<0.95"], with_lab)[0].key == "path_independence.aa_score"
    assert check(["own_share>0"], with_lab)[0].key == "dynamics.causes.own_share"


@pytest.mark.parametrize("key", ["path_independence.median_final_gap", "readout.final_accuracy"])
def test_a_missing_value_is_an_error_and_not_a_pass(key):
    with pytest.raises(InputError, match=r"has no value in this run.*not a pass"):
        check([f"{key} > 1"], SUMMARY)


def test_an_unknown_key_gets_near_matches_and_the_whole_list():
    with pytest.raises(InputError, match=r"Did you mean '.*aa_score'") as caught:
        check(["path_independence.aa_scor < 1"], SUMMARY)
    assert "classify.n_orbit" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("aa_score", "is not a condition"),
        ("aa_score < ", "is not a condition"),
        ("aa_score = 1", "is not a condition"),
        ("aa_score <> 1", "is not a condition"),
        ("aa_score < < 1", "is not a condition"),
        ("< 1", "is not a condition"),
        ("aa_score < nan", "compares with NaN"),
        ("classify.verdict < settles", "only be compared with == and !="),
        ("classify.verdict == 'settles", "quotes"),
    ],
)
def test_what_is_not_a_condition_says_so(text, message):
    with pytest.raises(InputError, match=message):
        parse_condition(text)


def test_text_and_numbers_do_not_compare():
    with pytest.raises(InputError, match="cannot be compared with"):
        check(["classify.verdict == 3"], SUMMARY)
    with pytest.raises(InputError, match="cannot be compared with"):
        check(["classify.n_orbit == three"], SUMMARY)


@given(st.floats(allow_nan=False), st.floats(allow_nan=False))
def test_exactly_one_of_less_equal_greater_fails(actual, bound):
    summary = {"a": {"b": actual}}
    true = [sign for sign in ("<", "==", ">") if check([f"a.b {sign} {bound!r}"], summary)]
    assert len(true) == 1
    assert bool(check([f"a.b >= {bound!r}"], summary)) is (true != ["<"])
