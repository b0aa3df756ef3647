"""The count of operations against torch's own counter, on models of several families."""

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from looplens import analysis
from looplens.errors import InputError
from looplens.models import LoopedConfig, LoopedTransformer

SIZES = {"d_model": 16, "n_heads": 4, "d_mlp": 24, "d_vocab": 11, "n_ctx": 32}
FAMILIES = {
    "huginn": {"n_prelude": 2, "n_core": 3, "n_coda": 1, "injection": "linear"},
    "ouro": {"n_core": 2, "norm": "sandwich", "injection": "none", "exit_gate": True},
    "grouped": {"n_core": 2, "n_kv_heads": 2, "d_head": 6, "injection": "add", "n_prelude": 1},
    "parcae": {
        "n_core": 2,
        "n_coda": 1,
        "injection": "diagonal",
        "mlp": "relu2",
        "qk_norm": "rotated",
        "readout_map": True,
        "value_embeddings": (0, 2),
        "value_gate_width": 8,
    },
    "late injection": {"n_core": 1, "injection": "linear", "first_injection": False},
}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_formula_is_what_torch_counts(family):
    cfg = LoopedConfig(**SIZES, **FAMILIES[family])
    model = LoopedTransformer(cfg)
    length, iterations = 7, 3
    tokens = torch.arange(length)[None] % cfg.d_vocab
    # The counter knows no fused attention on the processor: with a listener it is written out.
    listeners = [(name, lambda x, hook: None) for name in model.hook_dict if "pattern" in name]
    with FlopCounterMode(display=False) as counter, model.hooks(fwd_hooks=listeners):
        model(tokens, iterations=iterations)
    # Written out, every query is multiplied with every key and masked afterwards.
    count = analysis.flops(cfg.to_dict(), np.full(length, length))
    assert count.total(iterations).sum() == counter.get_total_flops()
    if cfg.exit_gate:
        with FlopCounterMode(display=False) as counter:
            model.gate(torch.zeros(1, length, cfg.d_model))
        assert count.gate.sum() == counter.get_total_flops()


def test_costs_grow_with_position_and_depth():
    cfg = LoopedConfig(**SIZES, **FAMILIES["huginn"])
    count = analysis.flops(cfg.to_dict(), [1, 2, 3])
    assert (np.diff(count.iteration) == 4 * 16 * 3).all()  # 4 d a position and layer
    more = count.total([2, 3, np.nan])
    assert more[1] - count.total([2, 2, 2])[1] == count.iteration[1]
    assert np.isnan(more[2])
    assert count.total(2, readouts=2)[0] - count.total(2)[0] == count.readout[0]


def test_what_cannot_be_counted_is_said():
    with pytest.raises(InputError, match="lacks d_model, n_heads"):
        analysis.flops({}, 1)
    with pytest.raises(InputError, match="at least itself"):
        analysis.flops(LoopedConfig(**SIZES).to_dict(), 0)
    with pytest.raises(InputError, match="mlp must be one of"):
        analysis.flops(LoopedConfig(**SIZES).to_dict() | {"mlp": "moe"}, 1)
