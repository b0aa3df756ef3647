"""What is known of single tokens: the list, values of a few and of all, filters."""

import numpy as np
import pytest

from looplens import analysis
from looplens.analysis.per_token.matching import conditions
from looplens.analysis.per_token.values import column
from looplens.errors import InputError
from looplens.run import open_run
from looplens.testing import synthetic_run
from looplens.testing.runs import REGIMES, TOKEN_KINDS

TRUE = [REGIMES[kind] for kind, _, _ in TOKEN_KINDS] * 3


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Three prompts of eight tokens with known regimes, with an exit gate."""
    opened = open_run(synthetic_run(tmp_path_factory.mktemp("tokens") / "run", exit_gate=True))
    opened.analyze()
    return opened


def test_the_list_says_what_there_is_and_where_it_comes_from(run):
    found = analysis.token_statistics(run)
    assert next(iter(found)) == "regime"
    assert {"settling_iteration", "restart_gap", "entropy", "target_rank", "flips"} <= set(found)
    assert {"exit_gate", "exit_kl", "difficulty", "task", "classify.p_value"} <= set(found)
    assert all(statistic.name == name for name, statistic in found.items())
    assert found["regime"].words == analysis.REGIMES
    assert found["exit_gate"].policy == ("gate", 0.5)
    assert found["restart_gap"].by_restart is False
    assert {found[name].source for name in ("entropy", "difficulty", "task")} == {
        "recording",
        "tokens",
        "prompts",
    }
    assert found is analysis.token_statistics(run)  # listed once while nothing changes


@pytest.mark.parametrize("restart", [0, 1])
def test_values_are_those_of_the_analyses_and_of_the_last_readout(run, restart):
    names = ["regime", "settling_iteration", "restart_gap", "entropy", "target_rank", "exit_kl"]
    tokens = run.token_range(1)
    found = analysis.token_values(run, [*names, "difficulty", "task"], tokens, restart=restart)
    place = {"restart": restart, "token": tokens}
    settling = run.results("convergence")["settling_iteration"].isel(place)
    np.testing.assert_array_equal(found["settling_iteration"], settling)
    assert list(found["regime"].values) == TRUE[8:16]
    gap = run.results("path_independence")["final_gap"].isel(token=tokens)
    np.testing.assert_array_equal(found["restart_gap"], gap)
    last = run.readout.isel(place).isel(iteration=-1)
    np.testing.assert_array_equal(found["entropy"], last["entropy"])
    rank = last["target_rank"].values
    np.testing.assert_array_equal(found["target_rank"], np.where(rank < 0, np.nan, rank))
    exits = run.results("exits")
    policy = np.flatnonzero((exits["rule"] == "kl") & exits["is_default"])[0]
    np.testing.assert_array_equal(
        found["exit_kl"], exits["exit_iteration"].isel(place).isel(policy=policy)
    )
    np.testing.assert_array_equal(found["difficulty"], run.tokens["difficulty"][tokens])
    assert set(found["task"].values) == {"synthetic"}
    np.testing.assert_array_equal(found["token"], np.arange(8, 16))
    assert found["entropy"].attrs["units"] == "nat"


def test_all_tokens_at_once_are_the_same_as_some_of_them(run):
    known = analysis.token_statistics(run)
    some = analysis.token_values(run, known, [3, 17, 4], restart=1)
    for name, statistic in known.items():
        whole = column(run, statistic, restart=1)
        assert column(run, statistic, restart=1) is whole  # remembered
        picked = whole.values[[3, 17, 4]]
        if whole.words is None:
            np.testing.assert_allclose(picked, some[name].values.astype(float), rtol=1e-6)
        else:
            words = [whole.words[code] if code >= 0 else "" for code in picked]
            assert words == list(some[name].values)


def test_a_layer_has_values_of_its_own(run):
    found = analysis.token_values(run, ["settling_iteration", "entropy"], [2, 5], layer=0)
    of_layer = run.results("convergence")["layer_settling_iteration"].sel(layer=0)
    np.testing.assert_array_equal(
        found["settling_iteration"], of_layer.isel(restart=0, token=[2, 5])
    )
    readout = run.readout["entropy"].isel(restart=0, token=[2, 5], iteration=-1)
    np.testing.assert_array_equal(found["entropy"], readout)


def test_ranges(run):
    assert analysis.value_range(run, "settling_iteration") == (1, 64)
    low, high = analysis.value_range(run, "entropy")
    entropy = run.readout["entropy"].isel(restart=0, iteration=-1).values
    assert (low, high) == (entropy.min(), entropy.max())
    with pytest.raises(InputError, match="'regime' is a word and has no range"):
        analysis.value_range(run, "regime")


def test_a_new_result_replaces_the_one_that_is_remembered(tmp_path):
    run = open_run(synthetic_run(tmp_path / "run", prompts=1))
    run.analyze("convergence")
    loose = analysis.value_range(run, "rate"), len(analysis.matches(run, "settling_iteration=none"))
    run.analyze("convergence", tolerance=1e-12)
    assert len(analysis.matches(run, "settling_iteration=none")) > loose[1]


def test_names_that_are_taken_are_told_apart(tmp_path):
    run = open_run(synthetic_run(tmp_path / "run", prompts=1))
    tokens = run.tokens.assign(regime=("token", np.arange(run.n_tokens, dtype=float)))
    run.__dict__["tokens"] = tokens  # a column that the user called like an analysis' variable
    found = analysis.token_statistics(run)
    assert found["tokens.regime"].source == "tokens"
    assert found["regime"].source == "classify"
    np.testing.assert_array_equal(analysis.matches(run, "tokens.regime>=6"), [6, 7])


@pytest.mark.parametrize("query", ["regime=orbit", "orbit", " regime = ORBIT ", 'regime="orbit"'])
def test_show_me_the_orbits(run, query):
    np.testing.assert_array_equal(
        analysis.matches(run, query), [n for n, true in enumerate(TRUE) if true == "orbit"]
    )


def test_conditions_are_joined_and_compare_as_numpy_does(run):
    settling = run.results("convergence")["settling_iteration"].values[1]
    entropy = run.readout["entropy"].isel(restart=1, iteration=-1).values
    wanted = (settling > 8) & (entropy <= 1.0)
    found = analysis.matches(run, "settling_iteration>8 and entropy<=1.0", restart=1)
    np.testing.assert_array_equal(found, np.flatnonzero(wanted))
    # What is not known of a token is neither more, nor less, nor different.
    for sign in ("<", "<=", ">", ">=", "!=", "="):
        some = analysis.matches(run, f"settling_iteration{sign}9", restart=1)
        assert np.isfinite(settling[some]).all()
    never = analysis.matches(run, "settling_iteration=none", restart=1)
    np.testing.assert_array_equal(never, np.flatnonzero(np.isnan(settling)))
    both = np.union1d(never, analysis.matches(run, "settling_iteration!=none", restart=1))
    np.testing.assert_array_equal(both, np.arange(run.n_tokens))


def test_words_are_found_whole_and_in_part(run):
    texts = run.tokens["text"].values
    np.testing.assert_array_equal(
        analysis.matches(run, f"text={texts[3]}"), np.flatnonzero(texts == texts[3])
    )
    reasons = run.results("classify")["reason"].values[0]
    holds = [n for n, reason in enumerate(reasons) if "periodic" in reason]
    np.testing.assert_array_equal(analysis.matches(run, 'reason~"Periodic"'), holds)
    right = analysis.matches(run, "correct=right")
    wrong = analysis.matches(run, "correct!=right")
    targets = np.flatnonzero(run.tokens["target"].values >= 0)
    np.testing.assert_array_equal(np.union1d(right, wrong), targets)


def test_a_value_in_quotes_may_hold_anything():
    found = conditions('text="salt and pepper" and regime=orbit AND reason~x')
    assert [(each.name, each.sign, each.value) for each in found] == [
        ("text", "=", "salt and pepper"),
        ("regime", "=", "orbit"),
        ("reason", "~", "x"),
    ]


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("", "The filter is empty"),
        ("regime", "expected a name, a sign"),
        ("orbits", r"Did you mean 'orbit'\?"),
        ("regme=orbit", r"knows no 'regme' of its tokens.*Did you mean 'regime'\?"),
        ("regime=orbits", r"No token can have regime 'orbits'; there are: fixed_point"),
        ("regime>orbit", "is a word, which is not more or less"),
        ("entropy~1", "is a number, which contains nothing"),
        ("entropy>much", "got 'much' to compare with"),
        ("entropy=", "expected a name, a sign"),
        ("x" * 501, "The filter has 501 characters; at most 500"),
    ],
)
def test_what_cannot_be_read_is_said(run, query, message):
    with pytest.raises(InputError, match=message):
        analysis.matches(run, query)


def test_the_next_and_the_previous_match_go_around():
    found = np.array([3, 4, 11])
    assert [analysis.next_match(found, token) for token in (0, 3, 4, 11, 20)] == [3, 4, 11, 3, 3]
    back = [analysis.next_match(found, token, back=True) for token in (0, 3, 4, 11, 20)]
    assert back == [11, 11, 3, 4, 11]
    assert analysis.next_match(np.array([], dtype=int), 5) is None


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"restart": 2}, "There is no restart 2"),
        ({"layer": 9}, "There is no layer 9"),
        ({"tokens": [24]}, "tokens must lie between 0 and 23"),
    ],
)
def test_what_is_not_in_the_run(run, wrong, message):
    with pytest.raises(InputError, match=message):
        analysis.token_values(run, "regime", **wrong)


def test_a_run_without_readouts_or_analyses_knows_its_columns(selected_run_path):
    found = analysis.token_statistics(open_run(selected_run_path))
    assert "difficulty" in found
    assert "regime" not in found  # not every iteration was kept


def test_tokens_that_are_not_recorded_yet_are_not_known(part_run_path):
    run = open_run(part_run_path)
    assert not run.complete
    values = analysis.token_values(run, ["entropy", "prediction", "regime", "difficulty"])
    missing = ~run.committed_tokens
    assert 0 < missing.sum() < run.n_tokens
    np.testing.assert_array_equal(np.isnan(values["entropy"]), missing)
    np.testing.assert_array_equal(values["prediction"] == "", missing)
    assert set(values["regime"].values[missing]) == {"unresolved"}
    assert not set(analysis.matches(run, "entropy>0")) & set(np.flatnonzero(missing))
    assert analysis.value_range(run, "entropy")[1] > 0
