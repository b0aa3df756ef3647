"""What claims 3 and 4 measure themselves, against values by hand."""

import importlib
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import xarray as xr

from looplens.gallery import Scale
from looplens.gallery.scripts import folder

INF, NAN = np.inf, np.nan


@pytest.fixture
def regimes(monkeypatch):
    monkeypatch.syspath_prepend(str(folder()))
    return importlib.import_module("c03_regimes")


@pytest.fixture
def paths(monkeypatch):
    monkeypatch.syspath_prepend(str(folder()))
    return importlib.import_module("c04_path_independence")


@pytest.mark.parametrize(
    ("told", "seen", "reach", "word"),
    [
        (2.0, 2.5, 4.0, "hit"),
        (2.0, 3.0, 4.0, "elsewhere"),
        (3.0, 2.0, 4.0, "elsewhere"),
        (INF, 2.0, 4.0, "missed"),
        (INF, 2.0, 1.6, "missed"),  # followed to one step below the motion
        (INF, 3.0, 2.0, "not followed"),
        (INF, INF, 2.0, "not followed"),
        (INF, INF, 4.0, "quiet"),
        (2.0, INF, 4.0, "false alarm"),
        (3.8, INF, 4.0, "not followed"),  # the runs end too soon to tell
    ],
)
def test_verdict_on_what_was_foretold(regimes, told, seen, reach, word):
    assert regimes.verdict(told, seen, reach, 4.0, 0.5) == word


def test_tokens_and_prompt_are_held_against_their_runs(regimes):
    gains = np.arange(0, 5) / 2  # 0 .. 2 in steps of 0.5
    rest, orbit = "fixed_point", "orbit"
    found = xr.Dataset(
        {
            "run_gain": (("token", "run"), np.tile(gains, (4, 1))),
            "run_regime": (
                ("token", "run"),
                np.array(
                    [
                        [rest, rest, rest, rest, rest],
                        [orbit, rest, rest, orbit, rest],  # what is below 1 does not count
                        [rest, rest, rest, rest, orbit],
                        [rest, rest, rest, rest, rest],
                    ],
                    dtype=object,
                ),
            ),
            "first_above": ("token", [NAN, 1.2, 1.2, 1.2]),
            "gain": (("token", "point"), [[0, 2.0], [0, 2.0], [0, 2.0], [0, NAN]]),
        }
    )
    tokens, prompt = regimes.foretold(found)
    assert [word for _, _, word in tokens] == ["quiet", "hit", "elsewhere", "false alarm"]
    assert [seen for _, seen, _ in tokens] == [INF, 1.5, 2.0, INF]
    assert prompt == "hit"


def test_shares_are_over_the_models_that_have_any(regimes):
    counts = {"a": Counter(hit=3, missed=1), "b": Counter(hit=1, quiet=9), "c": Counter(quiet=2)}
    found = regimes.share(counts, "hit", ("hit", "elsewhere", "missed"))
    assert (found.mean, found.n) == (0.875, 2)
    assert regimes.share({"b": counts["b"]}, "hit", ("hit", "missed")) is None


def test_main_effects_and_interaction(paths):
    cells = zip(paths.CELLS, ([4.0, 5], [3.0, 4], [1.0, 2], [2.0, 3]), strict=True)
    found = paths.effects({name: np.array(values) for name, values in cells})
    assert {name: one.mean for name, one in found.items()} == {
        "injection": 2.0,  # (4 + 3 - 1 - 2) / 2
        "random depth": 0.0,  # (4 - 3 + 1 - 2) / 2
        "interaction": 2.0,  # (4 - 3) - (1 - 2)
    }


class Leaky:
    """A loop that keeps a share of its state and takes the rest from the input."""

    def __init__(self, keeps: float):
        self.keeps = keeps

    def token_embedding(self, tokens):
        return torch.nn.functional.one_hot(tokens, 12).float()

    def run_prelude(self, embedding):
        return embedding

    def initial_state(self, injected, start, *, embedding):
        return embedding if start is None else start

    def iterate(self, state, injected, count):
        for _ in range(count):
            state = self.keeps * state + (1 - self.keeps) * injected
            yield state

    def readout(self, state):
        return state


def test_a_loop_that_forgets_and_one_that_remembers(paths, monkeypatch):
    nothing = SimpleNamespace(accuracy=(1.0,) * len(paths.READ))
    monkeypatch.setattr(paths, "evaluate", lambda *given, **named: nothing)
    wanted = SimpleNamespace(generator=lambda stream: np.random.default_rng(0))

    def measure(keeps):
        return paths.measure(Leaky(keeps), wanted, Scale(name="smoke", quiet=True))

    forgets, remembers = measure(0.5), measure(1.0)
    assert forgets["aa"] == pytest.approx(1)
    assert forgets["kick"] < 1e-6
    assert forgets["left"][1] / forgets["left"][0] == pytest.approx(0.5)
    assert remembers["aa"] == pytest.approx(remembers["between"])
    assert remembers["aa"] < 0.5
    # Letters are one-hot: two different ones are sqrt(2) apart, and a kick of 0.1 stays.
    assert remembers["apart"] == pytest.approx(np.sqrt(2) * (1 - remembers["between"]), rel=0.1)
    assert remembers["kick"] == pytest.approx(paths.KICK / remembers["apart"], rel=1e-4)
