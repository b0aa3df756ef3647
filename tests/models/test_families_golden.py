"""Every native family against numbers from its reference implementation."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import looplens

GOLDEN = Path(__file__).parents[2].parent / "shared" / "golden"
TOLERANCE = 5e-5
CASES = [
    pytest.param("huginn", "golden", None, id="huginn"),
    pytest.param("ouro", "golden", None, id="ouro"),
    pytest.param("raven-llama", "golden", None, id="raven-llama"),
    pytest.param("raven-olmo2", "golden", None, id="raven-olmo2"),
    pytest.param("parcae", "golden", None, id="parcae"),
    pytest.param("etd-llama", "golden", (2, 5), id="etd-llama-span"),
    pytest.param("etd-llama", "golden_whole_stack", (0, 7), id="etd-llama-whole-stack"),
]


def load(name, file="golden", loop=None):
    if not (GOLDEN / name).is_dir():
        pytest.skip(f"no reference numbers at {GOLDEN / name}")
    return looplens.load_model(GOLDEN / name, loop=loop), load_file(
        GOLDEN / name / f"{file}.safetensors"
    )


def close(value, expected):
    torch.testing.assert_close(value, expected, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize(("name", "file", "loop"), CASES)
def test_every_state_of_every_pass_is_the_reference(name, file, loop):
    model, golden = load(name, file, loop)
    trace = looplens.trace(
        model,
        golden["input_ids"],
        iterations=len(golden["logits"]),
        initial_state=golden.get("initial_state"),
        attention=True,
    )
    for field in ("states", "layer_states", "logits", "attention"):
        close(getattr(trace, field), golden[field])
    with torch.no_grad():
        if "prelude_output" in golden:
            close(model.embed_tokens(golden["input_ids"]), golden["prelude_output"])
        if "gate_logits" in golden:
            close(torch.stack([model.gate(s) for s in trace.states[1:]]), golden["gate_logits"])


def test_parcae_feeds_its_core_with_the_decayed_state():
    model, golden = load("parcae")
    _, cache = model.run_with_cache(
        golden["input_ids"],
        iterations=len(golden["injected"]),
        initial_state=golden["initial_state"],
        names_filter="core.0.hook_resid_pre@*",
    )
    close(cache["core.0.hook_resid_pre"], golden["injected"])


@pytest.mark.parametrize(("name", "file", "loop"), CASES)
def test_recording_gives_the_same_states(name, file, loop, tmp_path):
    model, golden = load(name, file, loop)
    ids = golden["input_ids"][0].tolist()
    iterations = len(golden["logits"])
    random = model.cfg.initial_state == "noise"
    run = looplens.record(
        model,
        [ids, ids[:7]],
        iterations=iterations,
        restarts=2 if random else 1,
        out=tmp_path / "run",
    )
    alone = looplens.trace(
        model, [ids], iterations=iterations, initial_state=run.restart_seeds[-1] if random else None
    )
    stored = torch.from_numpy(run.state(restart=-1, tokens=run.token_range(0)).to_numpy())
    torch.testing.assert_close(stored, alone.states[:, 0].movedim(0, 1), atol=1e-5, rtol=1e-5)
