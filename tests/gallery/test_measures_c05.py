"""What claim 5 measures itself, against values by hand."""

import importlib

import numpy as np
import pytest

from looplens.gallery.scripts import folder


@pytest.fixture
def measures(monkeypatch):
    monkeypatch.syspath_prepend(str(folder()))
    return importlib.import_module("measures_c05")


def turned(cosines):
    """Return states in the plane with these cosines to the first axis."""
    cosines = np.asarray(cosines, dtype=np.float64)
    return np.stack([cosines, np.sqrt(1 - cosines**2)], axis=-1)


def test_a_trajectory_settles_when_nine_tenths_of_its_last_half_are_near_its_end(measures):
    # The last state is the first axis; the late half has 20 states, the bound is 0.95.
    early, end = [-1.0] * 20, [1.0] * 18
    two_far = turned([*early, 0.94, 0.94, *end])  # 18 of 20 are near
    three_far = turned([*early, 0.94, 0.94, 0.94, *end[:17]])  # 17 of 20
    near = turned([*early, 0.96, 0.96, 0.96, *end[:17]])
    assert measures.settles(two_far) == 1
    assert measures.settles(three_far) == 0
    assert measures.settles(np.stack([two_far, three_far, near, three_far])) == 0.5


def test_settling_is_told_by_directions_alone(measures):
    grows = np.arange(1.0, 41)[:, None] * np.array([3.0, 4.0])
    flips = np.where(np.arange(40) % 2, 1.0, -1.0)[:, None] * np.array([3.0, 4.0])
    assert measures.settles(grows) == 1
    assert measures.settles(flips) == 0


def test_models_that_move_less_change_their_attention_less(measures):
    def model(step, change):
        # Only the last quarter counts: before it the order is the other way round.
        early = np.full(6, 1 / step), np.full(6, 1 / change)
        return {
            "step": np.append(early[0], [step, step]),
            "change": np.append(early[1], [change, change]),
        }

    first_seed = [model(0.1, 0.01), model(0.2, 0.02), model(0.3, 0.03)]
    second_seed = [model(0.1, 0.03), model(0.2, 0.02), model(0.3, 0.01)]
    cells = list(zip(first_seed, second_seed, strict=True))
    assert measures.quiet_together(cells) == pytest.approx([1, -1])


def test_all_of_several_checks(monkeypatch):
    monkeypatch.syspath_prepend(str(folder()))
    every = importlib.import_module("c05_layer_cycle").every
    assert every([True, True]) is True
    assert every([True, None]) is None
    assert every([None, False, True]) is False
