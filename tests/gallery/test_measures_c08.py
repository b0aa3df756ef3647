"""What claim 8 measures itself, against values by hand."""

import dataclasses
import importlib
import math
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from looplens.gallery import Interval, Scale
from looplens.gallery.scripts import folder
from looplens.tasks import get_task

SMOKE = Scale(name="smoke", quiet=True)


@pytest.fixture
def claim(monkeypatch):
    monkeypatch.syspath_prepend(str(folder()))
    return sys.modules.get("c08_knowledge") or importlib.import_module("c08_knowledge")


def three(claim, *columns):
    return dict(zip(claim.SHAPES, map(np.array, columns), strict=True))


def test_the_gap_is_covered_by_shares(claim):
    used = three(claim, [0.2, 0.2, 0.3], [0.6, 0.5, 0.8], [0.6, 0.6, 0.7])
    # The mean gap is 0.4: the loops cover all of it, three quarters and five quarters.
    assert claim.covered(used) == pytest.approx([1.0, 0.75, 1.25])
    kept = three(claim, [10.0, 10.0, 10.0], [11.0, 10.0, 12.0], [20.0, 20.0, 20.0])
    assert claim.covered(kept) == pytest.approx([0.1, 0.0, 0.2])
    assert claim.more_covered(used, kept) is True
    assert claim.more_covered(kept, used) is False
    unsure = three(claim, [0.2, 0.2, 0.3], [0.6, 0.5, 0.8], [0.6, 0.1, 0.4])
    assert claim.covered(unsure) is None
    assert claim.more_covered(unsure, kept) is None


def test_a_change_is_none_when_it_is_surely_small(claim):
    assert claim.change(three(claim, [2.0, 4.0], [2.2, 4.4], [9.0, 9.0])).mean == pytest.approx(0.1)

    def said(low, high):
        return claim.within(Interval(mean=(low + high) / 2, low=low, high=high, n=3), 0.1)

    assert said(-0.09, 0.09) is True
    assert said(0.11, 0.2) is False
    assert said(-0.2, -0.11) is False
    assert said(0.05, 0.15) is None
    assert said(-0.2, 0.2) is None


def test_a_training_drawn_again_meets_nothing_of_the_test(claim):
    recipe = claim.mano(claim.SMALL, 0, SMOKE)
    texts, repeated = claim.met(recipe)
    assert 100 < texts < recipe.steps * recipe.batch
    assert repeated == 0
    # A split that leaks is found: here training shows the held-out task itself.
    leaking = dataclasses.replace(recipe, task="mano:modulus=3")
    assert claim.met(leaking)[1] > 0


class Half:
    """Guesses the words of a name, and halves its belief between a right value and "bio"."""

    cfg = SimpleNamespace(default_iterations=1)

    def __init__(self, task):
        self.task = task

    def parameters(self):
        return iter([torch.zeros(7), torch.zeros(3)])

    def readout(self, tokens):
        logits = torch.full((*tokens.shape, len(self.task.words)), -torch.inf)
        first = 1
        for place, size in enumerate(self.task.sizes[:3]):
            logits[:, place, first : first + size] = 0.0
            first += size
        logits[:, 3:-1].scatter_(2, tokens[:, 4:, None], 0.0)
        logits[:, 3:-1, 0] = 0.0
        return logits


def test_bits_by_hand(monkeypatch):
    counting = importlib.import_module("looplens.training.capacity")
    monkeypatch.setattr(counting, "unroll", lambda model, tokens, **how: tokens)
    monkeypatch.setattr(counting, "batch_noise", lambda cfg, shape, rng: None)
    task = get_task("bios:people=6")
    known = counting.capacity(Half(task), task)
    assert known.name_nats == pytest.approx(math.log(20 * 20 * 50))
    assert known.value_nats == pytest.approx(8 * math.log(2))
    # Nothing of the names; a value less one bit each, for six people: 30 bits of values, 8 values.
    values = math.log2(2 * 12 * 28 * 20 * 20 * 20 * 10 * 20)
    assert known.bits == pytest.approx(6 * (values - 8), rel=1e-6)
    assert known.per_parameter == pytest.approx(known.bits / 10)
