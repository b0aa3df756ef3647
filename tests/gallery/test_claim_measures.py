"""What claims 2, 6, 11 and 12 measure themselves, against values by hand."""

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


def test_saturation_is_the_first_iteration_near_the_best(script):
    claim = script("c02_iterations")
    assert claim.depths(SMOKE) == (1, 2, 4, 8)
    accuracy = np.array([[0.99, 0.5], [1.0, 0.9], [1.0, 0.97], [0.9, 0.98]])
    assert claim.saturation(accuracy, SMOKE).tolist() == [1, 4]
    assert claim.rank(np.array([1.0, 2, 5])) == 1
    assert claim.rank(np.array([3.0, 3, 3])) == 0


def test_stages_repeat_when_every_loop_has_one_profile(script):
    claim = script("c06_stages")
    rising = np.arange(4.0)
    profiles = np.stack([[rising, 2 * rising + 1, rising], [rising, -rising, rising]])
    assert claim.alike(profiles[:1], 2, slice(0, 2)) == pytest.approx(1)
    assert claim.alike(profiles, 2, slice(1, 2)) == pytest.approx(0)  # 1 and -1


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


def test_orbits_are_counted_by_their_size(script):
    claim = script("c12_bf16")

    def reading(regimes, amplitude):
        return SimpleNamespace(
            known=np.array([regimes]), taken=np.array([regimes]), amplitude=np.array([amplitude])
        )

    exact = reading(["orbit", "orbit", "orbit", "fixed_point"], [0.001, 0.1, 0.2, 0.0])
    rounded = reading(["fixed_point", "orbit", "unresolved", "fixed_point"], [0.0, 0.1, 0.2, 0.0])
    by_dtype = {"rounded weights": [exact], "bfloat16": [rounded]}
    assert claim.orbits_found(by_dtype, small=True) == (0, 1)
    assert claim.orbits_found(by_dtype, small=False) == (1, 2)
    assert claim.agreement([exact], [rounded]).mean == 0.5
