"""Presets for looped models of other libraries, against reference numbers and their own outputs."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import looplens as ll
from looplens.errors import InputError
from looplens.loops import Loop, LoopSpec, Start, Tap
from looplens.models.wrapping import wrap
from looplens.models.wrapping.presets import albert, hrm_text

transformers = pytest.importorskip("transformers")
GOLDEN = Path(__file__).parents[2].parent / "shared" / "golden"


def hrm(values=None):
    if not hasattr(transformers, "HrmTextConfig"):
        pytest.skip("this transformers has no HRM-Text")
    torch.manual_seed(0)
    tiny = {
        "vocab_size": 24,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "head_dim": 8,
        "max_position_embeddings": 64,
        "initializer_range": 0.2,
        "embedding_scale": 5.0,
    }
    config = transformers.HrmTextConfig(**(values or tiny))
    return transformers.HrmTextForCausalLM(config).eval()


def bridge(module, architecture):
    builder = pytest.importorskip("transformer_lens.model_bridge.sources._bridge_builder")
    return builder.build_bridge_from_module(module, architecture, hf_config=module.config)


@pytest.fixture
def golden_hrm():
    folder = GOLDEN / "hrm-text"
    if not folder.exists():
        pytest.skip(f"no reference numbers at {folder}")
    config = json.loads((folder / "config.json").read_text())
    module = hrm({k: v for k, v in config.items() if k not in ("architectures", "model_type")})
    module.load_state_dict(load_file(folder / "model.safetensors"))
    return module, load_file(folder / "golden.safetensors")


@pytest.mark.parametrize("kind", ["plain", "bridge"])
def test_hrm_text_goes_through_the_reference_states(golden_hrm, kind):
    module, golden = golden_hrm
    if kind == "bridge":
        module = bridge(module, "HrmTextForCausalLM")
    trace = ll.trace(wrap(module), golden["input_ids"], attention=True)
    calls, layers, *shape = golden["layer_states"].shape
    close = {"rtol": 0, "atol": 5e-5}
    torch.testing.assert_close(trace.states, golden["states"], **close)
    torch.testing.assert_close(trace.logits, golden["logits"], **close)
    # three calls of the fast stack and one of the slow one lie along the layer axis
    by_call = trace.layer_states.reshape(calls, layers, *shape)
    torch.testing.assert_close(by_call, golden["layer_states"], **close)
    patterns = trace.attention.reshape(golden["attention"].shape)
    torch.testing.assert_close(patterns, golden["attention"], **close)

    flat = wrap(module, hrm_text(module, axis="l"))
    low = ll.trace(flat, golden["input_ids"])
    torch.testing.assert_close(low.states, golden["low_states"], **close)
    table = flat.loop_settings(6)["loop"]["coordinates"]
    assert table == {"h": [1, 1, 1, 2, 2, 2], "l": [1, 2, 3, 1, 2, 3]}


def test_the_answer_after_t_cycles_is_that_of_a_model_with_t_cycles():
    module = hrm()
    ids = torch.tensor([[1, 2, 3, 4]])
    trace = ll.trace(wrap(module), ids, iterations=5)
    for cycles in (1, 3, 5):
        module.config.H_cycles = cycles
        with torch.no_grad():
            own = module(input_ids=ids, use_cache=False).logits
        torch.testing.assert_close(trace.logits[cycles - 1], own, rtol=0, atol=0)


def test_a_wrapped_bridge_goes_all_the_way(tmp_path):
    module = bridge(hrm(), "HrmTextForCausalLM")
    model = wrap(module)
    prompts = [[1, 2, 3, 4, 5], [6, 7, 8], [9, 10, 11]]
    options = {
        "iterations": 24,
        "restarts": 2,
        "initial_state": "perturbed",
        "attention": 2,
        "sites": ["resid_post", "attn_out", "mlp_out"],
        "progress": False,
    }
    run = ll.record(model, prompts, out=tmp_path / "run", **options)
    assert (run.iterations, run.n_layers, run.restarts) == (24, 8, 2)
    assert run.model["family"] == "hrm_text"
    assert run.attrs["settings"]["loop"]["declared"] == "h 2 x l 3"
    alone = ll.record(model, prompts[2], out=tmp_path / "alone", **options)
    tokens = run.token_range(2)
    np.testing.assert_array_equal(run.state(tokens=tokens), alone.state())
    trace = ll.trace(model, prompts[0], 24, initial_state=f"perturbed:{0.1}")
    np.testing.assert_allclose(
        run.state(restart=0, tokens=run.token_range(0)), trace.trajectories()[0], atol=1e-4
    )

    results = run.analyze()
    assert {"convergence", "classify", "pca", "path_independence", "readout"} <= set(results)
    report = run.report(tmp_path / "report.html").read_text()
    assert "wrapped TransformerBridge, loops h 2 x l 3" in report
    from looplens_dashboard import create_app

    assert create_app(run).layout is not None


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("head", ["AlbertModel", "AlbertForMaskedLM"])
def test_albert_loops_one_group(head, groups):
    torch.manual_seed(0)
    config = transformers.AlbertConfig(
        vocab_size=30,
        embedding_size=8,
        hidden_size=24,
        num_hidden_layers=5,
        num_attention_heads=3,
        intermediate_size=40,
        max_position_embeddings=20,
        inner_group_num=2,
        num_hidden_groups=groups,
    )
    module = getattr(transformers, head)(config).eval()
    if groups == 2:
        with pytest.raises(InputError, match="num_hidden_groups=2: groups run one after"):
            wrap(module)
        return
    ids = torch.tensor([[1, 2, 3, 4], [5, 6, 7, 8]])
    trace = ll.trace(wrap(module), ids, attention=True)
    with torch.no_grad():
        own = module(ids, output_hidden_states=True)
    assert trace.layer_states.shape == (5, 2, 2, 4, 24)
    last = own.hidden_states[-1]
    torch.testing.assert_close(trace.states[-1], last, rtol=0, atol=1e-6)
    torch.testing.assert_close(trace.layer_states[-1, -1], last, rtol=0, atol=1e-6)
    torch.testing.assert_close(trace.attention.sum(-1), torch.ones(5, 2, 2, 3, 4))
    if head == "AlbertForMaskedLM":
        torch.testing.assert_close(trace.logits[-1], own.logits, rtol=0, atol=1e-5)
    else:
        assert albert(module).readout is None
        assert trace.logits.shape[-1] == 0
    deeper = ll.trace(wrap(module), ids, iterations=9)
    torch.testing.assert_close(deeper.states[:6], trace.states, rtol=0, atol=1e-6)
    assert module.config.num_hidden_layers == 5


@pytest.mark.parametrize("axis", ["t", "h"])
def test_three_nested_loops_over_one_network_go_through_the_reference_states(axis):
    folder = GOLDEN / "trm"
    if not folder.exists():
        pytest.skip(f"no reference numbers at {folder}")
    from trm_standin import TinyRecursiveModel

    config = json.loads((folder / "config.json").read_text())
    golden = load_file(folder / "golden.safetensors")
    module = TinyRecursiveModel(
        config, load_file(folder / "model.safetensors"), 5, golden["puzzle_identifiers"]
    )
    net = ["net.0", "net.1"]
    spec = LoopSpec(
        loop=Loop("t", 5, inner=Loop("h", 2, inner=Loop("l", 3))),
        layers={"h": net, "l": net},
        axis=axis,
        state={"h": "net", "l": "net"},
        start=Start(Tap("embed"), read=lambda m, seen: m.high_start.expand_as(seen)),
        iterations="steps",
        readout="head",
    )
    first = config["puzzle_emb_len"]
    ids = torch.nn.functional.pad(golden["input_ids"], (first, 0))
    trace = ll.trace(wrap(module, loop=spec, d_vocab=config["vocab_size"]), ids)
    calls = golden["layer_states"]  # [t, h, call, layer, batch, pos, d]
    close = {"rtol": 0, "atol": 5e-4}  # rounding grows over 40 calls; the README's tolerance
    if axis == "t":
        torch.testing.assert_close(trace.states, golden["states"], **close)
        torch.testing.assert_close(trace.logits[:, :, first:], golden["logits"], **close)
        torch.testing.assert_close(trace.layer_states, calls.flatten(1, 3), **close)
    else:
        high = golden["inner_states"][:, :, -1].flatten(0, 1)
        torch.testing.assert_close(trace.states[1:], high, **close)
        torch.testing.assert_close(trace.layer_states, calls.flatten(0, 1).flatten(1, 2), **close)


def test_layers_that_loop_by_themselves_are_recorded_too(tmp_path):
    from looplens.models import AdaptiveConfig, AdaptiveTransformer

    torch.manual_seed(0)
    cfg = AdaptiveConfig(
        d_model=16, n_heads=2, d_mlp=32, d_vocab=10, n_ctx=32, n_layers=2, max_steps=5
    )
    model = AdaptiveTransformer(cfg)
    own = model.trace([1, 2, 3])
    trace = ll.trace(model, [1, 2, 3])
    torch.testing.assert_close(trace.layer_states.transpose(0, 1), own.states[:, 1:])
    torch.testing.assert_close(trace.states, own.states[-1])
    run = ll.record(model, [[1, 2, 3], [4, 5]], out=tmp_path / "run", progress=False)
    assert (run.iterations, run.n_layers, run.has_readout) == (5, 2, False)
    assert "convergence" in run.analyze()


def standin(family):
    folder = GOLDEN / family
    if not folder.exists():
        pytest.skip(f"no reference numbers at {folder}")
    if family == "ouro":
        from ouro_standin import OuroForCausalLM as Module
    else:
        from raven_standin import RavenForCausalLM as Module
    module = Module(json.loads((folder / "config.json").read_text())).eval()
    module.load_state_dict(load_file(folder / "model.safetensors"))
    return module, load_file(folder / "golden.safetensors")


@pytest.mark.parametrize("kind", ["plain", "bridge"])
@pytest.mark.parametrize("family", ["ouro", "huginn"])
def test_the_loop_axis_is_restored_where_a_bridge_keeps_the_last_step(family, kind):
    """On modules with the published names and call, since the published code is not installed."""
    module, golden = standin(family)
    if kind == "bridge":
        module = bridge(module, type(module).__name__)
    model = wrap(module)
    if family == "ouro":
        trace = ll.trace(model, golden["input_ids"], attention=True)
        names = ["states", "layer_states", "logits", "attention", "gate_logits", "exit_pdf"]
    else:
        start = golden["initial_state"]
        trace = ll.trace(model, golden["input_ids"], 6, initial_state=start)
        names = ["states", "layer_states", "logits"]
        assert model.parse_start(3).is_random
    for name in names:
        torch.testing.assert_close(getattr(trace, name), golden[name], rtol=0, atol=5e-5)
