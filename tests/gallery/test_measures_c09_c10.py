"""What claims 9 and 10 count and choose themselves, against values by hand."""

import importlib
import sys

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from looplens.gallery import Scale
from looplens.gallery.scripts import folder
from looplens.models import AdaptiveConfig, AdaptiveTransformer
from looplens.tasks import Batch

QUICK = Scale(name="quick", quiet=True)


@pytest.fixture
def script(monkeypatch):
    """Import a script of the gallery by its name."""
    monkeypatch.syspath_prepend(str(folder()))
    return lambda name: sys.modules.get(name) or importlib.import_module(name)


def test_splits_of_four_layers(script):
    claim = script("c09_what_to_loop")
    made = claim.splits(4, 8, others=4)
    assert {role: [str(split) for split in some] for role, some in made.items()} == {
        claim.ONE: ["0-12*1-0"],
        claim.FEW: ["4-4*2-4"],
        claim.KNEES: ["4-4*3-4"],  # 4 + 4 * 3 + 4 = 20 layers
        # Starts 0 1 2 3 5 6 7 8 remain; of these places 0, 2 1/3, 4 2/3 and 7, rounded.
        claim.OTHERS: ["0-4*3-8", "2-4*3-6", "6-4*3-2", "8-4*3-0"],
        claim.WIDE: ["2-8*2-2"],  # 2 + 8 * 2 + 2 = 20 layers
    }
    assert made[claim.FEW][0].layer_passes == 16


@pytest.mark.parametrize(
    ("start", "stop", "knees", "wide", "layer_passes"),
    [(3, 4, "3-1*9-8", "2-8*2-2", 20), (5, 8, "5-3*4-4", "1-9*2-2", 21),
     (2, 7, "2-5*3-5", "1-10*2-1", 22), (3, 9, "3-6*3-3", "0-12*2-0", 24)],
)  # fmt: skip
def test_spans_that_are_compared_cost_the_same(script, start, stop, knees, wide, layer_passes):
    claim = script("c09_what_to_loop")
    made = claim.splits(start, stop, others=claim.LAYERS)
    assert [str(made[role][0]) for role in (claim.KNEES, claim.WIDE)] == [knees, wide]
    others = made[claim.OTHERS]
    assert {split.start for split in others} == set(range(12 - stop + start + 1)) - {start}
    for split in (*others, *made[claim.KNEES], *made[claim.WIDE]):
        assert split.layer_passes == layer_passes


def test_a_role_is_the_mean_over_its_spans(script):
    claim = script("c09_what_to_loop")
    a, b = claim.Split(0, 4, 3), claim.Split(1, 5, 3)
    found = claim.Found(
        {(7, claim.OTHERS, a): 0.25, (7, claim.OTHERS, b): 0.75, (8, claim.OTHERS, a): 1.0,
         (7, claim.KNEES, a): 0.625, (8, claim.KNEES, a): 0.875},
        [7, 8],
    )  # fmt: skip
    assert found.right(claim.OTHERS).tolist() == [0.5, 1.0]
    assert found.over(claim.KNEES, claim.OTHERS).mean == 0


def test_parameters_of_the_memory(script):
    claim = script("c10_loops_and_memory")
    # Two layers of width 32 with 64 slots: keys and values 4096, norm 64, two projections and gates
    # of 1024 with a bias of 32; then 32 slots for all, 2048.
    assert claim.brought(2, 32, 64) == 2 * (4096 + 64 + 4096 + 64) + 2048 == 18688

    def size(name):
        model = AdaptiveTransformer(claim.recipe(claim.FACTS, name, 0, QUICK).model)
        return sum(values.numel() for values in model.parameters())

    plain = size(claim.PLAIN)
    assert size(claim.MEMORY) - plain == 18688
    # 97 more hidden units, three matrices of width 32, two layers; 98 would be 18816.
    assert size(claim.WIDER) - plain == 97 * 3 * 32 * 2 == 18624


@pytest.mark.parametrize("slots", [0, 6])
def test_operations_are_what_torch_counts(script, slots):
    claim = script("c10_loops_and_memory")
    sizes = {"d_model": 8, "n_heads": 2, "d_mlp": 12, "d_vocab": 5, "n_ctx": 8, "n_layers": 2}
    cfg = AdaptiveConfig(**sizes, local_slots=slots, global_slots=slots // 2, max_steps=3)
    model, keys = AdaptiveTransformer(cfg), 3
    listeners = [(name, lambda x, hook: None) for name in model.hook_dict if "pattern" in name]
    with FlopCounterMode(display=False) as counter, model.hooks(fwd_hooks=listeners):
        model(torch.zeros(1, keys, dtype=torch.long))
    # Every query is multiplied with every key there, so all tokens cost what the last one does.
    assert claim.operations(cfg, keys) * 1e6 == pytest.approx(counter.get_total_flops() / keys)


def test_guessing_is_the_commonest_answer_of_each_place(script):
    claim = script("c10_loops_and_memory")
    targets = np.array([[-1, 3, 5], [-1, 3, 6], [-1, 4, 7], [-1, 3, 8]])
    asked = Batch(tokens=np.zeros_like(targets), targets=targets, metadata={})
    assert claim.guessing(asked) == (3 + 1) / 8
