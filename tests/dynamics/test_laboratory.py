"""Experiments over a run: which tokens, storing, going on, joining; the parts are stand-ins."""

from __future__ import annotations

import dataclasses
import re
import shutil

import numpy as np
import pytest
import torch
import xarray as xr

import looplens as ll
from looplens import dynamics
from looplens.dynamics.laboratory import investigating, parts, working
from looplens.dynamics.laboratory.choosing import choose
from looplens.dynamics.laboratory.joining import join
from looplens.dynamics.laboratory.parts import Part
from looplens.errors import AnalysisError, InputError
from looplens.testing import synthetic_run

PROMPTS = ["3+4*2", "1+1", "2*5+6"]


@pytest.fixture(scope="module")
def model():
    return ll.load_model("affine-huginn-mini")


@pytest.fixture(scope="module")
def recorded_path(model, tmp_path_factory):
    out = tmp_path_factory.mktemp("lab") / "run"
    ll.record(model, PROMPTS, out=out, iterations=40, restarts=2, progress=False)
    return out


@pytest.fixture
def run(recorded_path, tmp_path):
    return ll.open_run(shutil.copytree(recorded_path, tmp_path / "run"))


class Toy:
    """A part that says what it was asked for, and may fail at a prompt."""

    def __init__(self, fail_at=None):
        self.asked, self.fail_at = [], fail_at

    def __call__(self, model, run, *, prompt, restart, tokens, progress, scale=1.0, dtype=None):
        self.asked.append((prompt, list(tokens)))
        if prompt == self.fail_at:
            raise AnalysisError(f"prompt {prompt} is too hard")
        numbers = np.array([run.token_range(prompt).start + token for token in tokens])
        progress(1, 2)
        width = prompt + 1  # the results of prompts have different sizes
        return xr.Dataset(
            {
                "value": ("token", scale * numbers),
                "points": (("token", "point"), np.full((len(tokens), width), 1.0)),
                "multiplier": (("token", "point"), np.full((len(tokens), width), 1j)),
                "cause": ("token", np.array(["own"] * len(tokens), object)),
            },
            coords={"token": numbers},
            attrs={"method": "toy", "prompt": prompt},
        )


@pytest.fixture
def toy(monkeypatch):
    found = Toy()
    monkeypatch.setattr(dynamics, "toy", found, raising=False)
    part = Part(name="toy", function="toy", question="what was asked for")
    monkeypatch.setitem(parts.PARTS, "toy", part)
    return found


def test_the_latest_token_goes_first_and_the_rest_by_prompt(model, run, toy):
    said, progress = [], []
    found = dynamics.investigate(
        model,
        run,
        ["toy"],
        tokens=[0, 2, 4, 6, 9],
        say=said.append,
        progress=lambda done, total: progress.append((done, total)),
    )
    assert toy.asked == [(0, [4]), (0, [0, 2]), (1, [1]), (2, [1])]
    assert progress == [(n, 5) for n in (0.5, 1, 2, 3, 3.5, 4, 4.5, 5)]
    assert said[0] == "5 of 13 tokens, by their numbers"
    assert "one token took" in said[1]
    stored = ll.open_run(run.path).analysis("dynamics/toy")
    assert stored["token"].values.tolist() == [0, 2, 4, 6, 9]
    assert stored["value"].values.tolist() == [0, 2, 4, 6, 9]
    assert stored["points"].shape == (5, 3)
    assert np.isnan(stored["points"].sel(token=0).values).tolist() == [False, True, True]
    assert stored["multiplier"].sel(token=9).values.tolist() == [1j] * 3
    assert set(stored["cause"].values) == {"own"}
    assert stored.attrs["method"] == "toy"
    assert stored.attrs["prompt"] == [0, 1, 2]
    xr.testing.assert_equal(found.results["toy"], stored)


def test_what_is_stored_is_not_done_again(model, run, toy):
    dynamics.investigate(model, run, "toy", tokens=[0, 1])
    toy.asked.clear()
    found = dynamics.investigate(model, run, "toy", tokens=[1, 2, 6])
    assert toy.asked == [(0, [2]), (1, [1])]
    assert found.done == {"toy": [2, 6]}
    assert found.results["toy"]["token"].values.tolist() == [0, 1, 2, 6]
    toy.asked.clear()
    dynamics.investigate(model, run, "toy", tokens=[1], again=True)
    assert toy.asked == [(0, [1])]


def test_what_was_made_in_another_way_is_replaced_on_demand_only(model, run, toy):
    dynamics.investigate(model, run, "toy", tokens=[0, 1])
    toy.asked.clear()
    doubled = {"tokens": [6], "options": {"toy": {"scale": 2.0, "dtype": torch.float64}}}
    message = (
        "dynamics/toy of 2 tokens, made with scale by default, dtype by default; "
        "now it is scale=2.0, dtype='float64'"
    )
    with pytest.raises(InputError, match=re.escape(message)):
        dynamics.investigate(model, run, "toy", **doubled)
    with pytest.raises(InputError, match=r"made with restart=0; now it is restart=1.*--again"):
        dynamics.investigate(model, run, "toy", tokens=[6], restart=1)
    assert toy.asked == []
    said = []
    other = dynamics.investigate(model, run, "toy", **doubled, again=True, say=said.append)
    assert any("made with scale by default" in sentence for sentence in said)
    assert other.results["toy"]["value"].to_series().to_dict() == {6: 12.0}
    dynamics.investigate(model, run, "toy", **doubled | {"tokens": [6, 7]})
    assert run.analysis("dynamics/toy")["token"].values.tolist() == [6, 7]
    part = parts.PARTS["toy"]
    parts.PARTS["toy"] = dataclasses.replace(part, version=2)  # undone with the fixture
    dynamics.investigate(model, run, "toy", tokens=[0], say=said.append)
    assert "is of version 1 of the experiment, and is replaced" in said[-1]


def test_a_prompt_that_fails_leaves_the_others(model, run, toy):
    toy.fail_at = 1
    said = []
    found = dynamics.investigate(model, run, "toy", tokens=[0, 5, 6, 9], say=said.append)
    assert found.results["toy"]["token"].values.tolist() == [0, 9]
    assert found.failed == {"toy": "2 of 4 tokens have no result. prompt 1 is too hard"}
    assert said[-1] == "toy: 2 of 4 tokens have no result. prompt 1 is too hard"
    options = {"toy": {"scale": 3.0}}
    with pytest.raises(AnalysisError, match="prompt 1 is too hard"):
        dynamics.investigate(model, run, "toy", tokens=[5], options=options, again=True)
    assert run.analysis("dynamics/toy")["token"].values.tolist() == [0, 9]  # there is no better one


def test_an_interruption_loses_only_what_was_running(model, run, toy, monkeypatch):
    def interrupted(*args, prompt, **kwargs):
        if prompt == 2:
            raise KeyboardInterrupt
        return toy(*args, prompt=prompt, **kwargs)

    monkeypatch.setattr(dynamics, "toy", interrupted, raising=False)
    with pytest.raises(KeyboardInterrupt):
        dynamics.investigate(model, run, "toy", tokens="all")
    assert run.analysis("dynamics/toy")["token"].values.tolist() == list(range(8))
    monkeypatch.setattr(dynamics, "toy", toy)
    assert dynamics.investigate(model, run, "toy", tokens="all").done["toy"] == list(range(8, 13))


def test_a_kill_loses_what_was_not_written_yet(model, run, toy, monkeypatch):
    def stored():
        found = ll.open_run(run.path).analysis("dynamics/toy")
        return [] if found is None else found["token"].values.tolist()

    def seen(done, total):
        written.append(stored())

    written = []
    dynamics.investigate(model, run, "toy", tokens=[0, 6, 9], progress=seen)
    assert not any(written)  # it took no time, and is written at the end
    assert stored() == [0, 6, 9]
    monkeypatch.setattr(working, "_SECONDS", 0.0)
    monkeypatch.setattr(working, "_WRITES", 0)
    dynamics.investigate(model, run, "toy", tokens=[1, 7, 10], progress=seen)
    assert [len(tokens) for tokens in written[-2:]] == [5, 6]


def test_parts_go_on_together_and_share_a_prompt(model, run, toy, monkeypatch):
    monkeypatch.setattr(dynamics, "other", toy, raising=False)
    part = Part(name="other", function="other", question="the same")
    monkeypatch.setitem(parts.PARTS, "other", part)
    dynamics.investigate(model, run, ["other", "toy"], tokens=[4, 6, 9])
    assert toy.asked == [(0, [4])] * 2 + [(1, [1])] * 2 + [(2, [1])] * 2


def test_a_prompt_without_finite_states_is_left_out(model, run, toy, monkeypatch):
    def of(model, run, *, prompt, **kwargs):
        if prompt in broken:
            raise AnalysisError(f"prompt {prompt} is not finite")

    monkeypatch.setattr(investigating, "recorded", of)
    broken = {0}
    assert dynamics.investigate(model, run, "toy", tokens=[0, 6]).done == {"toy": [0, 6]}
    broken = {0, 1}
    with pytest.raises(AnalysisError, match="prompt 0 is not finite"):
        dynamics.investigate(model, run, "toy", tokens=[0, 6])


def test_costly_parts_take_a_few_of_every_regime(tmp_path):
    run = ll.open_run(synthetic_run(tmp_path / "run"))
    choice = choose(run, "all")
    assert len(choice.tokens) == run.n_tokens == 24
    kinds = dict(zip(choice.tokens, choice.regimes, strict=True))
    assert {kinds[token] for token in choice.few(4)} == set(kinds.values())
    assert choice.few(None) == list(range(24))
    assert choose(run, range(9)).few(4) == list(range(9))  # all of them were asked for


def test_what_moves_is_chosen_before_what_settles(tmp_path):
    run = ll.open_run(synthetic_run(tmp_path / "run"))
    regime = run.results("classify")["regime"][0].values
    moving = np.flatnonzero(regime != "fixed_point").tolist()
    choice = choose(run, max_tokens=20)
    assert set(moving) < set(choice.tokens)
    assert len(choice.tokens) == 20
    assert f"{20 - len(moving)} of {(regime == 'fixed_point').sum()} settled" in choice.sentence
    few = choose(run, max_tokens=8)
    assert len(few.tokens) == 8
    assert few.regimes.count("fixed_point") == 2
    prompt = run.tokens["prompt"].values
    first = {
        token for token in moving if token - 1 not in moving or prompt[token - 1] != prompt[token]
    }
    assert choice.first <= first
    assert len(choice.first) == 3
    assert choice.first <= set(few.tokens)
    assert choose(run, "moving").tokens == tuple(moving)
    assert set(choose(run, "orbit", prompts=[1]).tokens) <= set(range(8, 16))
    assert choose(run, [5, 3, 5]).tokens == (3, 5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tokens": "moveing"}, "Did you mean 'moving'"),
        ({"tokens": [99]}, "99 is not in this run, which holds 0 to 23"),
        ({"tokens": 1.5}, "expected numbers of tokens"),
        ({"tokens": [0], "prompts": [1]}, "tokens 0 are not of the chosen prompts"),
        ({"restart": 5}, "restarts 0 to 1"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"prompts": [7]}, "prompt"),
        ({"prompts": []}, "prompts is empty"),
    ],
)
def test_choices_that_cannot_be_made(synthetic_run_path, arguments, message):
    with pytest.raises(InputError, match=message):
        choose(ll.open_run(synthetic_run_path), **arguments)


def test_no_token_of_that_kind(synthetic_run_path):
    run = ll.open_run(synthetic_run_path)
    settled = choose(run, "settled").tokens
    prompt = int(run.tokens["prompt"][settled[0]])
    with pytest.raises(AnalysisError, match="no tokens to choose 'unresolved' from"):
        choose(run, "unresolved", prompts=[prompt], restart=0)


def test_another_model_or_part_is_refused(model, run, toy):
    with pytest.raises(InputError, match=r"Unknown part 'spectre'.*Did you mean 'spectra'"):
        dynamics.investigate(model, run, "spectre")
    with pytest.raises(InputError, match="parts is empty"):
        dynamics.investigate(model, run, [])
    with pytest.raises(InputError, match="options of spectra, but the parts are toy"):
        dynamics.investigate(model, run, "toy", options={"spectra": {"k": 2}})
    with pytest.raises(InputError, match="options of toy cannot hold 'restart'"):
        dynamics.investigate(model, run, "toy", options={"toy": {"restart": 1}})
    with pytest.raises(InputError, match=r"toy takes no argument 'scal'. Did you mean 'scale'"):
        dynamics.investigate(model, run, "toy", options={"toy": {"scal": 2.0}})
    other = ll.load_model("affine-huginn-mini")
    other.embed.weight.data *= 1.001
    with pytest.raises(InputError, match="The weights of affine-huginn-mini"):
        dynamics.investigate(other, run, "toy")
    with pytest.raises(InputError, match="must be a recorded run"):
        dynamics.investigate(model, "3+4", "toy")
    assert toy.asked == []


def test_joining_fills_up_what_other_results_do_not_have():
    def part(token, values, labels, name):
        return xr.Dataset(
            {
                "x": (("token", "iteration"), [values]),
                "n": (("token", "rank"), [list(range(len(values)))]),
                "fixed": ((), 1.5),
            },
            coords={"token": [token], "iteration": labels},
            attrs={"name": name, "same": [1]},
        )

    found = join([part(5, [1.0, 2.0], [0, 1], "a"), part(2, [3.0, 4.0, 5.0], [1, 2, 3], "b")])
    assert found["token"].values.tolist() == [2, 5]
    assert found["iteration"].values.tolist() == [0, 1, 2, 3]
    np.testing.assert_array_equal(found["x"].sel(token=5), [1.0, 2.0, np.nan, np.nan])
    assert found["n"].sel(token=5).values.tolist() == [0, 1, -1]
    assert found.attrs == {"name": ["a", "b"], "same": [1]}
    assert found["fixed"].dims == ()
    later = join([found, part(5, [9.0, 9.0], [0, 1], "b")])
    assert later["x"].sel(token=5, iteration=0) == 9.0
    assert later["token"].values.tolist() == [2, 5]
    other = part(7, [1.0], [0], "c").assign(fixed=((), 2.5))
    with pytest.raises(AnalysisError, match="'fixed' has no token axis and differs"):
        join([found, other])


def test_durations_read_like_durations():
    shown = [investigating._duration(seconds) for seconds in (0.24, 61, 600, 7200)]
    assert shown == ["0.2 s", "61 s", "10 min", "2.0 h"]
