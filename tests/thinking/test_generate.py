import dataclasses
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import looplens as ll
from looplens.errors import AnalysisError, InputError
from looplens.models import LoopedConfig, LoopedTransformer, char_tokenizer
from looplens.thinking import (
    ActHalting,
    ActRouter,
    ArgmaxStability,
    ExitRule,
    LatentDifference,
    OutputKL,
    generate,
    threshold_exit,
)

GOLDEN = Path(__file__).parents[2].parent / "shared" / "golden"

HUGINN = LoopedConfig(
    d_model=32,
    n_heads=4,
    d_mlp=48,
    d_vocab=10,
    n_ctx=32,
    n_prelude=2,
    n_core=2,
    n_coda=2,
    qk_bias=True,
    rope_style="adjacent",
    embedding_scale=32**0.5,
)
OURO = LoopedConfig(
    d_model=32,
    n_heads=4,
    d_mlp=48,
    d_vocab=10,
    n_ctx=32,
    n_core=3,
    norm="sandwich",
    injection="none",
    initial_state="embedding",
    loop_norm=True,
    coda_norm=False,
    final_norm=False,
    tie_embeddings=False,
    embedding_scale=32**0.5,
)
CONFIGS = {
    "huginn": HUGINN,
    "ouro": OURO,
    "grouped": dataclasses.replace(HUGINN, n_kv_heads=2),
    "one key head": dataclasses.replace(OURO, n_kv_heads=1),
    "pre-norm, added": dataclasses.replace(
        HUGINN, norm="pre", injection="add", initial_state="prelude", coda_norm=False
    ),
    "from zero": dataclasses.replace(HUGINN, initial_state="zeros", n_coda=0),
    "first pass bare": dataclasses.replace(HUGINN, first_injection=False, qk_norm="projection"),
    "parcae": dataclasses.replace(
        HUGINN,
        norm="pre",
        injection="diagonal",
        qk_norm="rotated",
        mlp="relu2",
        prelude_norm=True,
        readout_map=True,
        value_embeddings=(1, 3, 5),
    ),
}
PROMPT = [3, 1, 4, 1, 5]


def make(cfg: LoopedConfig) -> LoopedTransformer:
    torch.manual_seed(0)
    model = LoopedTransformer(cfg, char_tokenizer("0123456789"), name="tiny").eval()
    with torch.no_grad():  # wide enough that iterations and positions differ
        for weight in model.parameters():
            weight.mul_(1.25) if weight.ndim > 1 else weight.add_(0.1 * torch.randn_like(weight))
    return model


def full_forward(model, generation, iterations, **kwargs) -> torch.Tensor:
    """Logits of every generated token, from one forward without a cache."""
    ids = torch.cat((generation.prompt_ids, generation.token_ids[:-1]))
    with torch.no_grad():
        logits = model(ids[None], iterations=iterations, **kwargs)
    return logits[0, len(generation.prompt_ids) - 1 :]


# ---------------------------------------------------------------- equal to the full forward


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("initial_state", [None, "perturbed:0.5", "tensor"])
def test_cached_generation_equals_the_full_forward(name, initial_state):
    model = make(CONFIGS[name])
    start = initial_state
    if start == "tensor":
        start = torch.randn(1, len(PROMPT) + 7, 32, generator=torch.Generator().manual_seed(1))
    generation = generate(model, PROMPT, max_new_tokens=8, iterations=5, initial_state=start)
    expected = full_forward(model, generation, 5, initial_state=start)
    torch.testing.assert_close(generation.logits, expected, atol=1e-5, rtol=0)
    assert torch.equal(generation.token_ids, expected.argmax(-1))
    assert generation.exits.tolist() == generation.iterations_used.tolist() == [5] * 8
    assert not generation.fired.any()
    # States too, on both time axes.
    ids = torch.cat((generation.prompt_ids, generation.token_ids[:-1]))
    trace = ll.trace(model, ids, iterations=5, initial_state=start)
    states = trace.states[:, 0, len(PROMPT) - 1 :].transpose(0, 1)
    torch.testing.assert_close(generation.states, states, atol=1e-5, rtol=1e-5)


def test_every_seed_has_its_own_noise_at_every_position():
    model = make(HUGINN)
    for seed in (0, 7):
        generation = generate(model, PROMPT, max_new_tokens=6, iterations=2, initial_state=seed)
        expected = full_forward(model, generation, 2, initial_state=seed)
        torch.testing.assert_close(generation.logits, expected, atol=1e-5, rtol=0)
        starts = generation.states[:, 0]
        assert (torch.cdist(starts, starts) + torch.eye(6) > 0.1).all()


@pytest.mark.parametrize(
    ("family", "loop"),
    [
        ("huginn", None),
        ("ouro", None),
        ("raven-llama", None),
        ("raven-olmo2", None),
        ("parcae", None),
        ("etd-llama", (1, 3)),
    ],
)
def test_published_layouts_generate_from_the_cache(family, loop):
    directory = GOLDEN / family
    if not directory.exists():
        pytest.skip(f"no golden checkpoint at {directory}")
    model = ll.load_model(directory, **({"loop": loop} if loop else {}))
    generation = generate(model, PROMPT, max_new_tokens=6, iterations=4)
    expected = full_forward(model, generation, 4)
    torch.testing.assert_close(generation.logits, expected, atol=1e-5, rtol=1e-5)
    if family == "ouro":
        trace = ll.trace(model, PROMPT, iterations=4)
        early = generate(model, PROMPT, max_new_tokens=3, iterations=4, exit_rule="gate:0.7")
        gates = model.gate(trace.states[1:, 0]).detach()[:, None]
        assert early.exits[0] == threshold_exit(gates, 0.7)[0, -1]


def test_bundled_model_answers_from_the_cache():
    model = ll.load_model("affine-huginn-mini")
    text = "3+4*2+1*5"
    whole = full_forward_text(model, text)
    for cut in (1, 3, 6):
        generation = generate(model, text[:cut], max_new_tokens=1)
        assert generation.text == whole[cut - 1]
        torch.testing.assert_close(
            generation.logits[0], model(text[:cut])[0, -1].detach(), atol=1e-4, rtol=0
        )
    long = generate(model, text, max_new_tokens=12)
    expected = full_forward(model, long, 16)
    torch.testing.assert_close(long.logits, expected, atol=1e-4, rtol=1e-5)
    assert len(long.text) == 12
    # Stopping early does not change a settled answer, but saves iterations.
    early = generate(model, text, max_new_tokens=12, iterations=64, exit_rule="latent-diff")
    assert early.text == long.text
    assert early.exits.float().mean() < 8
    # Reusing the last iteration's keys is harmless, the first one's are no substitute.
    assert generate(model, text, max_new_tokens=12, kv="last").text == long.text
    assert generate(model, text, max_new_tokens=12, kv="first").text != long.text


def full_forward_text(model, text) -> str:
    with torch.no_grad():
        return model.tokenizer.decode(model(text)[0].argmax(-1).tolist())


# ---------------------------------------------------------------- stopping


def test_prompt_exit_is_the_rule_on_the_trace():
    model = make(HUGINN)
    trace = ll.trace(model, PROMPT, iterations=12)
    for rule in (
        LatentDifference(threshold=0.7),
        OutputKL(threshold=0.3),
        ArgmaxStability(steps=2),
    ):
        expected = rule.exit_step(trace)[0, -1]
        generation = generate(model, PROMPT, max_new_tokens=1, iterations=12, exit_rule=rule)
        assert generation.exits[0] == expected
        assert generation.fired[0] == (rule.fires(rule.values(trace))[:, 0, -1].any())
        assert generation.iterations_used[0] == 12
        if expected == 12:
            torch.testing.assert_close(
                generation.logits[0], trace.logits[-1, 0, -1], atol=1e-5, rtol=0
            )


def uncached_with_exits(model, generation, iterations):
    """What generation with early exits means, without a cache: one forward where every position
    keeps its keys from its last iteration on, because its state no longer moves its keys.
    """
    prompt = len(generation.prompt_ids)
    ids = torch.cat((generation.prompt_ids, generation.token_ids[:-1]))[None]
    used = torch.tensor([iterations] * (prompt - 1) + generation.iterations_used.tolist())
    frozen: dict[str, torch.Tensor] = {}

    def hold(value, hook):
        if hook.name in frozen:
            stopped = (used < model.clock.iteration)[None, :, None, None]
            value = torch.where(stopped, frozen[hook.name], value)
        frozen[hook.name] = value
        return value

    sites = [f"core.{i}.attn.hook_{x}" for i in range(model.cfg.n_core) for x in "kv"]
    with model.hooks(fwd_hooks=[(site, hold) for site in sites]):
        return ll.trace(model, ids, iterations=iterations).states[:, 0, prompt - 1 :]


class Scripted(ExitRule):
    """Leaves after the iterations that it is told, token by token."""

    reads = "state"

    def __init__(self, steps):
        self.steps = iter(steps)

    def begin(self, initial_state):
        return next(self.steps)

    def advance(self, memory, seen):
        return memory, seen.state.new_full(seen.state.shape[:-1], seen.iteration - memory)

    def fires(self, value):
        return value >= 0


@pytest.mark.parametrize("name", ["huginn", "ouro", "one key head", "parcae"])
def test_early_exits_attend_to_the_latest_iteration_of_earlier_tokens(name):
    model = make(CONFIGS[name])
    script = [2, 1, 5, 3, 9, 1, 6, 20, 2, 7]
    generation = generate(
        model, PROMPT, max_new_tokens=10, iterations=9, exit_rule=Scripted(script)
    )
    used = generation.iterations_used.tolist()
    assert used == [9, 1, 5, 3, 9, 1, 6, 9, 2, 7]  # the prompt runs them all
    assert generation.exits.tolist() == [2, *used[1:]]
    assert generation.fired.tolist() == [True] * 7 + [False, True, True]
    assert generation.kv == "latest"
    states = uncached_with_exits(model, generation, 9)
    for n, count in enumerate(used):
        torch.testing.assert_close(
            generation.trajectory(n), states[: count + 1, n], atol=1e-5, rtol=0
        )
        assert (generation.states[n, count:] == generation.states[n, count]).all()


def test_router_stops_generation():
    model = make(HUGINN)
    rule = ActHalting(router=ActRouter(32), limit=4)
    with torch.no_grad():
        rule.router.linear.weight.zero_()
        rule.router.linear.bias.fill_(-0.7)  # weights of .332, three of them .995
    generation = generate(model, PROMPT, max_new_tokens=3, iterations=9, exit_rule=rule)
    assert generation.exits.tolist() == [3, 3, 3]


def test_readout_of_an_early_exit_is_that_of_its_state():
    model = make(dataclasses.replace(HUGINN, n_coda=0))  # a coda looks at other positions
    for name in ("latent-diff:0.8", "kl:0.3"):
        generation = generate(model, PROMPT, max_new_tokens=6, iterations=9, exit_rule=name)
        assert generation.exits.min() < 9
        at = [generation.states[n, t] for n, t in enumerate(generation.exits.tolist())]
        with torch.no_grad():
            torch.testing.assert_close(
                generation.logits, model.readout(torch.stack(at)[None])[0], atol=1e-5, rtol=0
            )


def test_gate_rule_reads_the_models_gate():
    model = make(dataclasses.replace(OURO, exit_gate=True))
    generation = generate(model, PROMPT, max_new_tokens=5, iterations=6, exit_rule="gate:0.9")
    with torch.no_grad():
        trace = SimpleNamespace(states=None, gate_logits=model.gate(generation.states[:, 1:]))
    survival = torch.sigmoid(-trace.gate_logits).cumprod(1)
    for n, step in enumerate(generation.exits.tolist()):
        assert (1 - survival[n, : step - 1] < 0.9).all()
        assert step == 6 or 1 - survival[n, step - 1] >= 0.9
    with pytest.raises(InputError, match="GateThreshold reads the exit gate, and 'tiny' has none"):
        generate(make(OURO), PROMPT, max_new_tokens=1, exit_rule="gate:0.9")


def test_continuous_start_carries_the_state_over():
    model = make(HUGINN)
    generation = generate(model, PROMPT, max_new_tokens=5, iterations=4, continuous_start=True)
    assert torch.equal(generation.states[1:, 0], generation.states[:-1, -1])
    fresh = generate(model, PROMPT, max_new_tokens=5, iterations=4)
    assert torch.equal(generation.states[0], fresh.states[0])
    assert not torch.allclose(generation.states[1], fresh.states[1])
    # The same by hand: a forward that is told where each position starts.
    ids = torch.cat((generation.prompt_ids, generation.token_ids[:-1]))
    starts = ll.trace(model, ids, iterations=1).states[0].clone()
    starts[0, len(PROMPT) :] = generation.states[1:, 0]
    expected = full_forward(model, generation, 4, initial_state=starts)
    torch.testing.assert_close(generation.logits, expected, atol=1e-5, rtol=0)
    with pytest.raises(InputError, match="would never see what it generated"):
        generate(make(OURO), PROMPT, max_new_tokens=2, continuous_start=True)


# ---------------------------------------------------------------- caches, sampling, hooks


def test_shared_caches_are_approximations_with_the_right_limits():
    model = make(OURO)
    logits = {
        kv: generate(model, PROMPT, max_new_tokens=4, iterations=4, kv=kv).logits
        for kv in ("full", "latest", "last", "first", "shared:1", "shared:2", "shared:4")
    }
    assert torch.equal(logits["full"], logits["latest"])
    assert torch.equal(logits["full"], logits["shared:4"])
    assert torch.equal(logits["last"], logits["shared:1"])
    for kv in ("last", "first", "shared:2"):
        assert torch.equal(logits[kv][0], logits["full"][0])  # the prompt shares nothing
        assert not torch.allclose(logits[kv][1], logits["full"][1])


def test_sampling_is_seeded():
    model = make(HUGINN)
    draw = lambda seed: generate(  # noqa: E731
        model, PROMPT, max_new_tokens=12, temperature=1.5, seed=seed, iterations=2
    ).token_ids.tolist()
    assert draw(0) == draw(0)
    assert len({tuple(draw(seed)) for seed in range(4)}) > 1


def test_hooks_fire_with_both_coordinates():
    model = make(HUGINN)
    fired = []

    def note(value, hook):
        fired.append((model.position_offset, model.clock.iteration, value.shape[1]))

    with model.hooks(fwd_hooks=[("core.0.hook_resid_post@2:", note)]):
        generate(model, PROMPT, max_new_tokens=2, iterations=3)
    assert fired == [(0, 2, 5), (0, 3, 5), (5, 2, 1), (5, 3, 1)]


def test_stop_tokens_and_what_is_kept():
    model = make(HUGINN)
    free = generate(model, "31415", max_new_tokens=6, iterations=3)
    stop = free.token_ids[2].item()
    cut = free.token_ids.tolist().index(stop) + 1
    stopped = generate(model, "31415", max_new_tokens=6, iterations=3, stop_tokens=[stop])
    assert stopped.token_ids.tolist() == free.token_ids.tolist()[:cut]
    assert stopped.text == "".join(map(str, stopped.token_ids.tolist()))
    assert f"{cut} tokens, 3.0 iterations" in repr(stopped)
    bare = generate(model, "31415", max_new_tokens=2, iterations=3, record=False)
    assert bare.states is None
    with pytest.raises(AnalysisError, match="record=True"):
        bare.trajectory(0)


def test_bad_input_is_refused_and_leaves_the_model_alone():
    model = make(HUGINN)
    with pytest.raises(InputError, match=r"expected a LoopedTransformer.*got Linear"):
        generate(torch.nn.Linear(2, 2), PROMPT, max_new_tokens=1)
    assert len(generate(model, [1] * 30, max_new_tokens=3, iterations=1)) == 3
    with pytest.raises(InputError, match=r"30 tokens and 4 new ones need 33 positions.*most 3 can"):
        generate(model, [1] * 30, max_new_tokens=4)
    with pytest.raises(InputError, match="one prompt at a time, got a batch of 2"):
        generate(model, torch.ones(2, 3, dtype=torch.long), max_new_tokens=1)
    with pytest.raises(InputError, match="max_new_tokens must be an integer of at least 1, got 0"):
        generate(model, PROMPT, max_new_tokens=0)
    with pytest.raises(InputError, match="temperature must not be negative, got -1"):
        generate(model, PROMPT, max_new_tokens=1, temperature=-1)
    with pytest.raises(InputError, match=r"initial_state of shape \(1, 5, 32\) does not broadcast"):
        generate(model, PROMPT, max_new_tokens=3, initial_state=torch.zeros(1, 5, 32))

    def burst(value, hook):
        raise RuntimeError("burst")

    bursting = model.hooks(fwd_hooks=[("core.0.hook_resid_post@2", burst)])
    with bursting, pytest.raises(RuntimeError, match="burst"):
        generate(model, PROMPT, max_new_tokens=2, iterations=3)
    assert model.position_offset == 0
    assert all(block.attn.cache is None for block in model.core)
    assert model.clock.iteration is None
    generate(model, PROMPT, max_new_tokens=2, iterations=3)
