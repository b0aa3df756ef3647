"""What claim 11 measures itself, against values by hand."""

import importlib
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from looplens.gallery import Scale
from looplens.gallery.scripts import folder
from looplens.tasks import get_task

SMOKE = Scale(name="smoke", quiet=True)


@pytest.fixture
def script(monkeypatch):
    """Import a script of the gallery by its name."""
    monkeypatch.syspath_prepend(str(folder()))
    return lambda name: sys.modules.get(name) or importlib.import_module(name)


class Multiplier:
    """Says the product of what was written last and the next element; errs at the first step."""

    def __init__(self, wrong: int):
        self.product = torch.from_numpy(get_task("group").product)
        self.wrong = wrong

    def __call__(self, text, iterations):
        count = int((text[0] == 6).nonzero()[0, 0])  # the place of "="
        written = text.shape[1] - count - 1
        said = text[:, 0]
        if written:
            said = self.product[text[:, -1], text[:, written]]
        elif self.wrong:
            said = (said + self.wrong) % 6
        return torch.nn.functional.one_hot(said, 7).float()[:, None]


def test_written_steps_are_read_again(script):
    claim = script("c11_written_steps")
    wanted = SimpleNamespace(generator=lambda stream: np.random.default_rng(0))
    assert claim.written_answers(Multiplier(wrong=0), wanted, SMOKE) == 1
    # In a group a wrong step is carried to the end.
    assert claim.written_answers(Multiplier(wrong=1), wanted, SMOKE) == 0


def test_operations_of_an_answer(script):
    claim = script("c11_written_steps")
    sizes = {"d_model": 2, "n_heads": 1, "d_mlp": 3, "d_vocab": 5, "n_core": 1, "injection": "none"}
    model = SimpleNamespace(cfg=SimpleNamespace(to_dict=lambda: sizes))
    # A layer: 2 d h (2 H + 2 G) + 6 d m = 32 + 36, and 4 H h = 8 a key; the head: 2 d V = 20.
    once = (68 + 8) + (68 + 16)
    assert claim.operations(model, 2, 1, 1) == pytest.approx((once + 20) / 1e6)
    assert claim.operations(model, 2, 3, 2) == pytest.approx((3 * once + 40) / 1e6)


def test_the_fewest_loops_near_the_best_are_chosen(script):
    claim = script("c11_written_steps")
    accuracy = np.array([[0.2, 0.97], [0.9, 0.98], [0.95, 0.96]])  # (loops, seed)
    assert claim.chosen((1, 2, 4), accuracy) == [4, 1]
    assert claim.log_lengths(12, (1, 2, 3, 6)) == [(4, 2), (8, 3)]
