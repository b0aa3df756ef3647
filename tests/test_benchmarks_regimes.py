"""The rules, the truth on trained models and the page of the calibration; no timing, no goals."""

import json

import numpy as np
import pytest

from benchmarks import _calibration as calibration
from benchmarks._calibration_page import BEGIN, PAGE, RESULTS, page
from benchmarks._detectors import RULES, Previous, cosine_rule
from benchmarks._trained import has_repeated, truth_of
from benchmarks._unseen import KINDS as UNSEEN
from benchmarks._unseen import RECIPES, make_unseen
from benchmarks.bf16 import measured, settled
from looplens.testing import KINDS, TRUTHS

T = np.arange(129)[:, None]
RNG = np.random.default_rng(1)
AXES = np.linalg.qr(RNG.normal(size=(32, 4)))[0].T
DECAY = 3 + 0.8**T * AXES[:1]
TURN = np.cos(2 * np.pi * T / 7.3) * AXES[:1] + np.sin(2 * np.pi * T / 7.3) * AXES[1:2]
DRIFT = np.cos(T / 80) * AXES[:1] + np.sin(T / 80) * AXES[1:2] + 0.5**T * AXES[2:3]
NOISE = RNG.normal(size=(129, 32))


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_knows_the_plain_shapes(rule):
    found = RULES[rule](np.stack([DECAY, TURN, DRIFT])).tolist()
    assert found == ["fixed_point", "orbit", "slider"]


@pytest.mark.parametrize("rule", ["tail, recurrence", "prototype"])
def test_rules_that_can_abstain_do_so_on_noise(rule):
    assert RULES[rule](NOISE[None]).tolist() == ["unresolved"]


def test_the_cosine_rule_takes_anything_far_from_the_origin_for_a_fixed_point():
    assert cosine_rule(np.stack([TURN + 10 * AXES[2:3]])).tolist() == ["fixed_point"]


def test_a_revision_that_is_not_there_is_said_to_be_missing():
    with Previous("0" * 40) as previous:
        assert "is not in the history of this copy" in previous.missing
        with pytest.raises(RuntimeError, match="does not run"):
            previous(NOISE[None])


def test_a_machine_without_git_has_no_previous_detector(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with Previous() as previous:
        assert previous.missing == "there is no git here to take it from"


def test_goals_on_trained_models_are_named_by_length():
    def row(model, length, table):
        return {"model": model, "T": length, "table": table, "not repeated": EARLY}

    right, half = [[8, 0, 0, 0], [0, 2, 0, 0]], [[8, 0, 0, 0], [0, 1, 0, 1]]
    rest = [[0] * 4] * 2
    EARLY = [[0] * 4, [0, 0, 0, 1], *rest]
    document = {"rows": [], "cost": {}, "trained": [
        row("a", 128, half + rest), row("a x 3", 128, half + rest), row("a", 256, right + rest)
    ]}  # fmt: skip
    found = {goal.name: goal.value for goal in calibration.goals(document)}
    assert found["bundled models, T = 128: right"] == 90
    assert found["bundled models and gains, T = 128: right"] == 90
    assert found["bundled models, T = 256: right"] == 100
    name = "bundled models and gains, T = 128, without orbits that have not repeated a turn: right"
    assert found[name] == 100


def test_an_orbit_is_asked_for_once_a_turn_repeats():
    t = np.arange(61.0)[:, None]
    turning = np.concatenate([np.cos(2 * np.pi * t / 20), np.sin(2 * np.pi * t / 20)], axis=1)
    late = np.where(t < 30, 3.0, 0.0) + turning  # it joins its orbit at 30
    periods = np.array([20.0, 20.0, np.nan])
    states = np.stack([turning, late, late])
    assert has_repeated(states, periods).tolist() == [True, False, True]
    assert has_repeated(states[:, :39], periods).tolist() == [False, False, True]


def test_unseen_systems_are_others_and_have_their_truth():
    assert len(UNSEEN) >= 12
    assert not set(UNSEEN) & set(KINDS)
    assert {truth for truth, _ in RECIPES.values()} == set(TRUTHS)
    for kind in UNSEEN:
        system = make_unseen(kind, iterations=32, snr_db=20, seed=5)
        assert np.isfinite(system.states).all(), kind
        assert np.isfinite(system.period) == (system.truth == "orbit")
        again = make_unseen(kind, iterations=32, snr_db=20, seed=5)
        np.testing.assert_array_equal(system.states, again.states)


def test_the_truth_of_late_states_is_what_they_do():
    t = np.arange(400)[:, None]
    still = 3 + 1e-7 * RNG.normal(size=(400, 32))
    flip = np.where(t % 2, 1.0, -1.0) * AXES[:1] + 3
    turn = np.cos(0.77 * t) * AXES[:1] + np.sin(0.77 * t) * AXES[1:2]
    slow = np.cos(t / 20) * AXES[:1] + np.sin(t / 20) * AXES[1:2]
    x = [0.3]
    for _ in range(399):
        x.append(3.99 * x[-1] * (1 - x[-1]))
    chaos = np.array(x)[:, None] * AXES[:1] + 1
    truth, period = truth_of(np.stack([still, flip, turn, slow, 0.01 * t * AXES[:1], chaos]))
    assert truth.tolist() == ["fixed_point", "orbit", "orbit", "orbit", "slider", "unresolved"]
    assert period[1] == 2
    assert period[3] == pytest.approx(40 * np.pi, abs=4)
    assert np.isnan(period[[0, 4, 5]]).all()


def test_shares_of_a_confusion_matrix():
    table = [[8, 0, 0, 2], [0, 9, 1, 0], [0, 0, 10, 0], [0, 1, 0, 9]]
    assert calibration.right(table) == pytest.approx(90)
    assert calibration.wrong(table) == pytest.approx(5)
    assert calibration.rejected(table) == pytest.approx(90)
    goal = calibration.Goal("share", 90.0, 95, True)
    assert not goal.met
    assert goal.cells() == ("share", "90.00 %", "≥ 95 %", "**missed**")


def test_the_page_is_made_from_the_results():
    document, text = json.loads(RESULTS.read_text()), PAGE.read_text()
    assert BEGIN in text
    assert page(text, document) == text
    assert page("before\n" + BEGIN, document).startswith("before\n" + BEGIN)


def test_steps_of_white_noise_turn_back_with_a_cosine_of_minus_a_half():
    states = 5 + 1e-3 * RNG.normal(size=(20, 200, 64))
    reading = measured(states.astype(np.float32))
    assert reading.late == pytest.approx(-0.5, abs=0.02)
    assert settled(reading.step, 1e-9) == "none; 100 %"
    falling = 0.5 ** np.arange(20.0)[None].repeat(3, 0)
    assert settled(falling, 1e-3) == "11; 0 %"
