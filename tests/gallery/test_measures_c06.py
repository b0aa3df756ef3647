"""What claim 6 measures itself, against values by hand."""

import importlib

import numpy as np
import pytest
import torch

from looplens.gallery.scripts import folder
from looplens.models import LoopedConfig, LoopedTransformer
from looplens.tasks import get_task

RISING = np.arange(4.0)
BENT = np.array([1.0, -1.0, -1.0, 1.0])  # does not correlate with what rises


@pytest.fixture
def measures(monkeypatch):
    monkeypatch.syspath_prepend(str(folder()))
    return importlib.import_module("measures_c06")


def test_every_loop_is_compared_with_the_next(measures):
    profiles = np.array([[RISING, 2 * RISING + 1, -RISING], [BENT, RISING, np.ones(4)]])
    found = measures.following(profiles)
    assert found[0] == pytest.approx([1, -1])
    assert found[1, 0] == pytest.approx(0)
    assert np.isnan(found[1, 1])  # flat


def test_a_loop_mirrors_the_whole_or_the_same_depth(measures):
    # Four loops of four layers. All 16 layers of the feed-forward model rise together, and so do
    # any four of them.
    deep = np.arange(16.0).reshape(1, 4, 4)
    whole, part = measures.mirrored(np.stack([[BENT, RISING, RISING, RISING]]), deep)
    assert (whole.item(), part.item()) == pytest.approx((1, 1))  # the first loop does not count
    # Here every four fall, while the whole rises.
    deep = 10 * np.arange(4.0)[:, None] - RISING
    whole, part = measures.mirrored(np.stack([[BENT, RISING, RISING, RISING]]), deep[None])
    assert (whole.item(), part.item()) == pytest.approx((1, -1))


def test_a_profile_that_is_flat_has_lost_its_stages(measures):
    intact = np.stack([[BENT, RISING, RISING]])
    assert measures.kept(intact, intact).item() == pytest.approx(1)
    assert measures.kept(np.stack([[BENT, RISING, np.ones(4)]]), intact).item() == pytest.approx(
        0.5
    )


def test_what_is_zeroed_changes_the_profiles_after_it(measures):
    torch.manual_seed(0)
    cfg = LoopedConfig(
        d_model=16, n_heads=2, d_mlp=32, d_vocab=12, n_ctx=16, n_core=4, initial_state="prelude",
        injection="none", norm="pre",
    )  # fmt: skip
    model, tokens = LoopedTransformer(cfg), np.arange(24).reshape(2, 12) % 12
    intact = measures.profiles(model, tokens, 2)
    assert intact.shape == (4, 2, 4)
    changed = measures.profiles(model, tokens, 2, "core.2.hook_mlp_out") != intact
    stream = changed[-1].ravel()  # matrix entropy after each of the eight layers
    assert stream.tolist() == [False] * 2 + [True] * 6


def test_guessing_is_the_best_place_to_copy_from(measures):
    task = get_task("phop:last=true")
    # One hop leads to any other letter, so that the last letter itself is never right.
    assert 0.3 < measures.guessing(task, {"length": 16, "difficulty": 1}) < 0.6
