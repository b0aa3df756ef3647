"""Looped modules that looplens did not write, behind the interface of its own."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from wrapping_modules import VOCAB, D, Looped, TwoStates

import looplens as ll
from looplens.errors import InputError, SiteError
from looplens.loops import Loop, LoopSpec, Start, Tap
from looplens.models.wrapping import wrap

IDS = torch.tensor([[1, 2, 3, 4, 5], [5, 0, 7, 8, 11]])


def looped_spec(**changes) -> LoopSpec:
    values = {
        "loop": Loop("step", 6),
        "layers": ["layers.0", "layers.1"],
        "iterations": "steps",
        "readout": "head",
        "sites": {"mlp_out": "mix"},
    }
    return LoopSpec(**(values | changes))


@pytest.mark.parametrize(
    "style",
    [{}, {"as_tuple": True}, {"keyword": True}, {"without_grad": True}],
    ids=["tensors", "tuples", "hidden states by keyword", "under no_grad"],
)
def test_a_wrapped_module_goes_through_the_states_it_goes_through(style):
    module = Looped(**style).train()
    model = wrap(module, loop=looped_spec())
    trace = ll.trace(model, IDS, iterations=4)
    with torch.no_grad():
        states, layers, logits = module.by_hand(IDS, 4)
    torch.testing.assert_close(trace.states, states, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(trace.layer_states, layers, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(trace.logits, logits, rtol=1e-5, atol=1e-6)
    assert trace.attention is None
    assert not trace.exited_early
    # nothing of the module was changed for good
    assert module.steps == 6
    assert all(part.training for part in module.modules())
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in module.modules())


@pytest.mark.parametrize("way", ["replaced", "keyword"])
def test_a_wrapped_module_starts_where_it_is_told(way):
    module = Looped()
    start = Start(keyword="start", scheme="noise", std=0.5) if way == "keyword" else None
    model = wrap(module, loop=looped_spec(start=start), d_model=D)
    given = torch.randn(2, 5, D)
    trace = ll.trace(model, IDS, iterations=3, initial_state=given)
    with torch.no_grad():
        states, _, logits = module.by_hand(IDS, 3, given)
    torch.testing.assert_close(trace.states, states)
    torch.testing.assert_close(trace.logits, logits)
    again = [ll.trace(model, IDS, 3, initial_state="noise").states for _ in range(2)]
    assert torch.equal(*again)


def test_restarts_are_seeded_and_batches_equal_single_prompts(tmp_path):
    model = wrap(Looped(), loop=looped_spec())
    prompts = [[1, 2, 3], [4, 5], [6, 7, 8], [9]]
    options = {
        "iterations": 20,
        "restarts": 2,
        "initial_state": "perturbed",
        "seed": 7,
        "progress": False,
        "sites": ["core.*.hook_resid_post", "resid_pre", "mlp_out"],
    }
    run = ll.record(model, prompts, out=tmp_path / "all", **options)
    assert run.restart_seeds == (7, 8)
    states = run.state().values
    assert not np.allclose(states[0, :, 0], states[1, :, 0])
    for index, prompt in enumerate(prompts):
        alone = ll.record(model, prompt, out=tmp_path / str(index), **options)
        tokens = run.token_range(index)
        np.testing.assert_array_equal(run.state(tokens=tokens), alone.state())
        for site in run.site_names:
            np.testing.assert_array_equal(run.site(site, tokens=tokens), alone.site(site))
    # what goes into the second layer is what came out of the first
    np.testing.assert_array_equal(run.site("resid_pre", layer=1), run.site(layer=0))
    assert run.attrs["settings"]["loop"]["declared"] == "step 6"


def test_a_run_of_a_wrapped_module_is_that_of_the_same_native_mathematics(tmp_path):
    native = ll.LoopedTransformer(
        ll.LoopedConfig(
            d_model=32, n_heads=4, d_mlp=48, d_vocab=10, n_ctx=32, n_prelude=1, n_core=2, n_coda=1
        )
    ).eval()

    class Foreign(torch.nn.Module):
        """Huginn's mathematics in a forward of its own, with another loop."""

        def __init__(self):
            super().__init__()
            self.parts = native
            self.depth = 8

        def forward(self, ids, s0):
            e = self.parts.embed_tokens(ids)
            x, todo = s0, self.depth
            while todo:
                x = self.parts.adapter(torch.cat((x, e), -1))
                x = self.parts._run(self.parts.core, x, first=1)
                todo -= 1
            return self.parts.readout(x)

    module = Foreign()
    spec = LoopSpec(
        loop=Loop("step", 8),
        layers=["parts.core.0", "parts.core.1"],
        start=Start(keyword="s0", scheme="noise"),
        iterations="depth",
        readout=lambda module, state: module.parts.readout(state),
        sites={"attn_out": "hook_attn_out", "mlp_out": "hook_mlp_out"},
        pattern="attn.hook_pattern",
    )
    options = {
        "iterations": 12,
        "restarts": 2,
        "attention": True,
        "sites": ["resid_post", "attn_out", "mlp_out"],
        "progress": False,
    }
    prompts = [[1, 2, 3, 4], [5, 6], [7, 8, 9, 0]]
    wrapped = ll.record(
        wrap(module, loop=spec, d_model=32), prompts, out=tmp_path / "wrapped", **options
    )
    own = ll.record(native, prompts, out=tmp_path / "own", **options)
    np.testing.assert_allclose(wrapped.state(), own.state(), atol=1e-6)
    for site in own.site_names:
        np.testing.assert_allclose(wrapped.site(site), own.site(site), atol=1e-6)
    for prompt in range(3):
        np.testing.assert_allclose(wrapped.attention(prompt), own.attention(prompt), atol=1e-6)
    for name in own.readout:
        np.testing.assert_allclose(
            wrapped.readout[name], own.readout[name], atol=1e-5, err_msg=name
        )


# ---------------------------------------------------------------------- nested loops


def two_states(axis: str) -> LoopSpec:
    net = ["net.0", "net.1"]
    return LoopSpec(
        loop=Loop("t", 3, inner=Loop("h", 2, inner=Loop("l", 3))),
        layers={"h": net, "l": net},
        axis=axis,
        state={"h": "net", "l": "net"},
        start=Start(
            Tap("embed"),
            read=lambda module, x: (
                module.low_start if axis == "l" else module.high_start
            ).expand_as(x),
        ),
        iterations="outer",
        readout=None if axis == "l" else "head",
    )


@pytest.mark.parametrize("axis", ["t", "h", "l"])
def test_every_firing_of_nested_loops_has_its_coordinates(axis):
    module = TwoStates()
    model = wrap(module, loop=two_states(axis))
    trace = ll.trace(model, IDS)
    settings = model.loop_settings(trace.iterations)["loop"]
    with torch.no_grad():
        module(IDS)
    high = [z for kind, z in module.seen if kind == "high"]
    low = [z for kind, z in module.seen if kind == "low"]
    if axis == "t":
        expected = high[1::2]  # the second of two slow updates
        calls = [z for _, z in module.seen]
        assert settings["coordinates"] == {"t": [1, 2, 3]}
        assert settings["layers"][0] == {"module": "net.0", "h": 1, "l": 1}
        assert settings["layers"][6] == {"module": "net.0", "h": 1}
        assert settings["layers"][8] == {"module": "net.0", "h": 2, "l": 1}
        last_layers = trace.layer_states[:, 1::2].flatten(0, 1)
    elif axis == "h":
        expected, calls = high, [z for _, z in module.seen]
        assert settings["coordinates"] == {"t": [1, 1, 2, 2, 3, 3], "h": [1, 2] * 3}
        last_layers = trace.layer_states[:, 1::2].flatten(0, 1)
    else:
        expected = calls = low
        assert settings["coordinates"]["l"] == [1, 2, 3] * 6
        assert settings["coordinates"]["h"] == [1, 1, 1, 2, 2, 2] * 3
        last_layers = trace.layer_states[:, 1]
    torch.testing.assert_close(trace.states[1:], torch.stack(expected), rtol=0, atol=0)
    torch.testing.assert_close(last_layers, torch.stack(calls), rtol=0, atol=0)
    if axis != "l":
        torch.testing.assert_close(trace.logits[-1], module(IDS)["logits"], rtol=0, atol=0)


def test_iterations_are_whole_passes_of_the_outermost_loop():
    model = wrap(TwoStates(), loop=two_states("l"))
    assert ll.trace(model, IDS, iterations=12).iterations == 12
    with pytest.raises(InputError, match=r"iterations=7 .* each holds 6 iterations \(h 2 x l 3\)"):
        ll.trace(model, IDS, iterations=7)


# ---------------------------------------------------------------------- early exit


def test_a_module_that_exits_early_is_recorded_with_what_it_ran_and_it_is_said(tmp_path):
    module = Looped(tolerance=0.001)
    model = wrap(module, loop=looped_spec(exits_early=True))
    prompts = [[1, 2, 3], [4], [7, 8, 9]]
    ran = []
    for prompt in prompts:
        with torch.no_grad():
            states, _, _ = module.by_hand(torch.tensor([prompt]), 40)
        steps = [((b - a).norm() / a.norm()).item() for a, b in pairwise(states)]
        ran.append(next(t for t, step in enumerate(steps, start=1) if step < 0.001))
    assert len(set(ran)) > 1, "the prompts must leave at different times"
    run = ll.record(model, prompts, out=tmp_path / "run", iterations=40, progress=False)
    assert run.iterations == max(ran)
    np.testing.assert_array_equal(run.prompts["iterations_run"], ran)
    settings = run.attrs["settings"]
    assert settings["exited_early"] is True
    assert settings["iterations_asked"] == 40
    assert settings["iterations_run"] == [ran]
    assert f"after {min(ran)} to {max(ran)} of 40 iterations" in run.model["source"]
    for prompt, count in enumerate(ran):
        tokens = run.token_range(prompt)
        state = run.state(tokens=tokens, restart=0)
        assert np.isfinite(state[:, : count + 1]).all()
        assert np.isnan(state[:, count + 1 :]).all()
        entropy = run.readout["entropy"].isel(restart=0, token=tokens)
        assert np.isfinite(entropy[:, :count]).all()
        assert np.isnan(entropy[:, count:]).all()
    trace = ll.trace(model, prompts[0], iterations=40)
    assert trace.exited_early
    assert (trace.iterations, trace.iterations_asked) == (ran[0], 40)
    report = run.report(tmp_path / "report.html").read_text()
    assert "left the loop by itself" in report


def test_leaving_early_without_saying_so_is_an_error():
    model = wrap(Looped(tolerance=0.001), loop=looped_spec())
    with pytest.raises(SiteError, match=r"left the loop 'step' after \d+ .* exits_early=True"):
        ll.trace(model, [1, 2, 3], iterations=40)


# ---------------------------------------------------------------------- wrong declarations


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"layers": ["layers.0", "layer.1"]}, SiteError, "no module 'layer.1'.*'layers.1'"),
        ({"iterations": "config.steps"}, InputError, "'config.steps' is no attribute of Looped"),
        ({"loop": Loop("step", 5), "iterations": None}, SiteError, "expected 5 firings, saw 6"),
        (
            {"loop": Loop("step", 3, inner=Loop("half", 2))},
            SiteError,
            r"not loop as declared \(step 2 x half 2\): .*layers.0: expected 4 firings, saw 2",
        ),
        ({"start": "head"}, SiteError, "first iteration ended before the initial state"),
        ({"readout": ["layers.0", "head"]}, InputError, "differs from the module's own logits by"),
        ({"readout": "layers.0"}, InputError, "the readout gives logits of shape"),
        ({"state": "head"}, SiteError, "expected 12 firings|expected 2 firings, saw 1"),
        ({"start": Start(keyword="start", scheme="noise")}, InputError, "pass d_model="),
        ({"pattern": Tap("mix", item=1)}, SiteError, r"no tensor at the output of layers.0.mix"),
    ],
)
def test_a_wrong_declaration_is_found_out_when_it_is_made(changes, error, message):
    with pytest.raises(error, match=f"(?s){message}"):
        wrap(Looped(), loop=looped_spec(**changes))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Loop("l", 0), "count must be an integer of at least 1, got 0"),
        (lambda: Loop("l", 2, inner=Loop("l", 2)), "different names, got l, l"),
        (lambda: looped_spec(layers=[]), "at least one layer"),
        (lambda: looped_spec(layers={"stp": ["a"]}), "layers names the loop 'stp'.*'step'"),
        (lambda: looped_spec(axis="l"), "axis names the loop 'l', but the declared loops are step"),
        (lambda: looped_spec(sites={"attn": "a"}), "sites names 'attn'"),
        (lambda: Start(scheme="noisy"), "must be one of own, noise, zeros, got 'noisy'"),
        (lambda: wrap(Looped()), "no preset for Looped"),
        (lambda: wrap(Looped(), loop=Loop("step", 3)), "loop must be a LoopSpec, got Loop"),
        (lambda: wrap("gpt2"), "expected a torch.nn.Module to wrap, got str"),
    ],
)
def test_a_declaration_checks_itself(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_what_a_wrapped_model_cannot_do_is_said(tmp_path):
    model = wrap(Looped(), loop=looped_spec(iterations=None, readout=None, sites={}))
    out = tmp_path / "run"
    with pytest.raises(InputError, match="iterations=4, but the loop is declared with 6"):
        ll.trace(model, IDS, iterations=4)
    with pytest.raises(SiteError, match="does not offer the site 'mlp_out'; it offers resid_pre"):
        ll.record(model, [1, 2], out=out, sites="mlp_out")
    with pytest.raises(SiteError, match="does not offer attention patterns"):
        ll.record(model, [1, 2], out=out, attention=True)
    with pytest.raises(InputError, match="has no readout"):
        ll.record(model, [1, 2], out=out, readout=3)
    with pytest.raises(InputError, match=f"token id {VOCAB} is outside the vocabulary"):
        ll.record(model, [1, VOCAB], out=out)
    with pytest.raises(InputError, match="restarts=2 needs a random initial state"):
        ll.record(model, [1, 2], out=out, restarts=2)
    with pytest.raises(InputError, match="initial_state=3 is a seed"):
        ll.trace(model, [1, 2], initial_state=3)
    with pytest.raises(InputError, match="no tokenizer"):
        ll.trace(model, "12")
    with pytest.raises(InputError, match="without padding"):
        ll.trace(model, IDS, attention_mask=torch.tensor([[0, 1, 1, 1, 1], [1] * 5]))
    assert not out.exists()
    assert not ll.record(model, [1, 2], out=out, progress=False).has_readout


# ---------------------------------------------------------------------- hooks by coordinate


def test_hooks_see_and_change_single_passes():
    module = Looped(as_tuple=True)
    model = wrap(module, loop=looped_spec())
    plain = ll.trace(model, IDS)

    def halve(value, hook):
        assert hook.name == "core.0.hook_resid_post"
        assert model.clock.iteration == 3
        return value / 2

    with model.hooks(fwd_hooks=[("core.0.hook_resid_post@3", halve)]):
        changed = ll.trace(model, IDS)
    torch.testing.assert_close(changed.states[:3], plain.states[:3], rtol=0, atol=0)
    torch.testing.assert_close(changed.layer_states[2, 0], plain.layer_states[2, 0] / 2)
    with torch.no_grad():
        last = module.layers[1](plain.layer_states[2, 0] / 2)[0]
    torch.testing.assert_close(changed.states[3], last)
    torch.testing.assert_close(ll.trace(model, IDS).states, plain.states, rtol=0, atol=0)

    logits, cache = model.run_with_cache(IDS, names_filter="core.*.hook_resid_post")
    torch.testing.assert_close(cache["core.1.hook_resid_post@4"], plain.states[4])
    torch.testing.assert_close(logits, plain.logits[-1])
    with pytest.raises(SiteError, match="matched none of the passes that ran"):
        model.run_with_hooks(IDS, fwd_hooks=[("core.0.hook_resid_post@9", lambda v, hook: v)])
    with pytest.raises(SiteError, match="matches no hook point"):
        model.run_with_hooks(IDS, fwd_hooks=[("core.7.hook_resid_post", lambda v, hook: v)])


def test_interventions_reach_wrapped_modules(tmp_path):
    from looplens.recording import Intervention

    model = wrap(Looped(), loop=looped_spec())
    change = Intervention.ablate("core.1.hook_mlp_out@4:", tokens=2)
    options = {"sites": ["resid_post", "mlp_out"], "progress": False}
    plain = ll.record(model, [1, 2, 3, 4], out=tmp_path / "plain", **options)
    run = ll.record(model, [1, 2, 3, 4], out=tmp_path / "run", interventions=change, **options)
    states, untouched = run.state().values, plain.state().values
    np.testing.assert_array_equal(states[:, :, :4], untouched[:, :, :4])
    np.testing.assert_array_equal(states[:, :2], untouched[:, :2])
    assert not np.allclose(states[:, 2, 4:], untouched[:, 2, 4:])
    ablated = run.site("mlp_out", layer=1, tokens=2).values[0]
    assert ablated[:3].all()
    assert not ablated[3:].any()
