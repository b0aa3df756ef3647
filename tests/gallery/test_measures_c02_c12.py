"""What claims 2 and 12 measure themselves, against values by hand."""

import importlib
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from looplens.gallery import Scale
from looplens.gallery.intervals import Interval
from looplens.gallery.scripts import folder

SMOKE = Scale(name="smoke", quiet=True)


@pytest.fixture
def script(monkeypatch):
    """Import a script of the gallery by its name."""
    monkeypatch.syspath_prepend(str(folder()))
    return importlib.import_module


def test_saturation_lies_between_the_iterations_that_are_read_out(script):
    claim = script("c02_iterations")
    assert claim.depths(SMOKE) == (1, 2, 4, 8)
    # Gains of 0.8 (0.04 may be lacking), 0.1 (0.02 may) and 0.01 (saturated at once).
    curves = np.array([[0.1, 0.80, 0.90], [0.1, 0.86, 0.91], [0.9, 0.90, 0.90], [0.88, 0.88, 0.9]])
    found = claim.saturation(curves, SMOKE)
    np.testing.assert_allclose(found, [2 + 2 * 0.76 / 0.8, 2 + 2 * 0.02 / 0.04, 1])


def test_iterations_per_hop(script):
    claim = script("c02_iterations")
    found = claim.per_hop(np.array([[1.0, 3, 5], [2, 2, 2], [4.5, 4.5, 4.5]]))
    assert found.tolist() == [2, 0, 0]


def test_fewer_hops_do_not_answer_an_item(script):
    claim = script("c02_iterations")
    guesses = claim.fewer_hops(claim.recipe(0, SMOKE), Scale(name="quick", quiet=True))
    assert guesses[0] == 0  # one hop never leads to the letter that it starts from
    assert guesses[1] == pytest.approx(claim.GUESS, abs=0.08)


def reading(regimes, amplitude=(0.0, 0.0, 0.0, 0.0)):
    regimes, amplitude = np.array([regimes]), np.array([amplitude])
    return SimpleNamespace(known=regimes, taken=regimes, amplitude=amplitude)


def test_hidden_and_faked_are_counted_apart(script, monkeypatch):
    rounded = script("measures_c12")
    monkeypatch.setattr(rounded, "ENOUGH", 1)
    exact = reading(["orbit", "orbit", "fixed_point", "fixed_point"], (0.001, 0.1, 0, 0))
    told = rounded.tell(exact, reading(["unresolved", "orbit", "slider", "fixed_point"]), "taken")
    assert told == {
        "rest, not seen": 0.5,
        "small orbit, not seen": 1.0,
        "larger orbit, not seen": 0.0,
        "rest, shown as motion": 0.5,
        "motion shown, in truth rest": 0.5,
    }
    still = reading(["fixed_point"] * 4)
    assert rounded.tell(still, still, "known")["motion shown, in truth rest"] is None


def test_cosines_of_steps_by_iteration(script):
    rounded = script("measures_c12")
    # To and fro, then at a right angle, then no step at all.
    path = np.array([[0.0, 0], [1, 0], [0, 0], [0, 1], [0, 1]])
    found = rounded.cosines(np.stack([path, 3 * path])[None])
    np.testing.assert_allclose(found, [np.nan, -1, 0, np.nan], atol=1e-12)


def test_near_noise_is_held_against_or_open(script):
    claim = script("c12_bf16")

    def told(low, high):
        return claim.near_noise(Interval(mean=(low + high) / 2, low=low, high=high, n=3))

    assert told(-0.6, -0.4) is True
    assert told(-0.3, 0.2) is False
    assert told(-0.9, -0.7) is False
    assert told(-0.5, -0.2) is None
    assert told(-1.0, 0.0) is None


@pytest.mark.parametrize("way", ["float32", "bfloat16"])
def test_states_of_bfloat16_are_told_from_others(script, way):
    rounded = script("measures_c12")
    states = torch.tensor([1.0, 1 + 2.0**-9, 1 + 2.0**-7])
    assert rounded.are_numbers_of(states, rounded.WAYS[way][1]) == (way == "float32")
    assert rounded.are_numbers_of(states[::2], rounded.WAYS[way][1])
