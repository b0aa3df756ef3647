"""Families at other sizes than the reference fixtures, against NumPy and against transformers."""

import math

import family_checkpoints as made
import numpy as np
import numpy_families as reference
import pytest
import torch

import looplens
from looplens.errors import InputError
from looplens.models import families

IDS = [3, 1, 4, 1, 5, 9, 2, 6]


def assert_same(values, expected):
    np.testing.assert_allclose(values.numpy(), expected, atol=2e-4)


# ---------------------------------------------------------------- against NumPy


def start_like(config, seed=1):
    return torch.randn(1, len(IDS), config["n_embd"], generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("huginn", {}),
        ("llama", {"rope_theta": 700.0, "num_key_value_heads": 1}),
        ("llama", {"rope_theta": 700.0, "init_values": {"embed_scale": 3.0, "std": 0.2}}),
        ("olmo2", {"rope_theta": 700.0, "num_key_value_heads": 1, "norm_eps": 1e-6}),
    ],
)
def test_raven_at_another_size_is_the_formula(kind, changes, tmp_path):
    config = {**made.RAVEN, **changes, "qk_bias": kind == "huginn"}
    tensors = made.raven_tensors(config, kind=kind)
    start = start_like(config)
    states, logits = reference.raven_states(
        config, tensors, IDS, start[0].double().numpy(), 3, huginn=kind == "huginn"
    )
    model = looplens.load_model(made.write(tmp_path, config, tensors))
    trace = looplens.trace(model, [IDS], iterations=3, initial_state=start)
    assert_same(trace.states[:, 0], states)
    assert_same(trace.logits[:, 0], logits)
    family = {"huginn": "huginn", "llama": "raven-llama", "olmo2": "raven-olmo2"}[kind]
    assert model.cfg.family == family
    assert model.cfg.default_iterations == 5


def test_ouro_at_another_size_is_the_formula(tmp_path):
    tensors = made.ouro_tensors(made.OURO)
    states, logits, gate = reference.ouro_states(made.OURO, tensors, IDS, 3)
    model = looplens.load_model(made.write(tmp_path, made.OURO, tensors))
    trace = looplens.trace(model, [IDS])  # total_ut_steps passes
    assert_same(trace.states[:, 0], states)
    assert_same(trace.logits[:, 0], logits)
    with torch.no_grad():
        assert_same(model.gate(trace.states[1:, 0]), gate)


def test_both_styles_of_rotary_settings_mean_the_same(tmp_path):
    tensors = made.ouro_tensors(made.OURO)
    scaling = {
        "rope_type": "llama3",
        "factor": 4.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 16,
    }
    old = {**made.OURO, "rope_scaling": scaling}
    new = {**made.OURO, "rope_parameters": {**scaling, "rope_theta": made.OURO["rope_theta"]}}
    del new["rope_theta"]
    first, second, plain = (
        looplens.load_model(made.write(tmp_path / name, config, tensors))
        for name, config in (("old", old), ("new", new), ("plain", made.OURO))
    )
    assert first.cfg == second.cfg
    ids = torch.tensor([IDS])
    assert torch.equal(first(ids), second(ids))
    assert (first(ids) - plain(ids)).abs().max() > 1e-3

    expected = reference.frequencies(700.0, 8)
    for i, frequency in enumerate(expected):  # the published rule, one branch after the other
        wavelength = 2 * math.pi / frequency
        if wavelength > 16 / 1.0:
            expected[i] = frequency / 4
        elif wavelength >= 16 / 4.0:
            smooth = (16 / wavelength - 1) / (4 - 1)
            expected[i] = (1 - smooth) * frequency / 4 + smooth * frequency
    from looplens.models.rope import rotary_frequencies

    np.testing.assert_allclose(rotary_frequencies(first.cfg).numpy(), expected)


def test_retrofits_may_start_from_the_prelude(tmp_path):
    config = {**made.RAVEN, "qk_bias": False, "rope_theta": 700.0}
    tensors = made.raven_tensors(config, kind="llama")

    def states(mode):
        directory = made.write(tmp_path / mode, {**config, "initial_state_mode": mode}, tensors)
        model = looplens.load_model(directory)
        return model, looplens.trace(model, [IDS], iterations=2).states

    model, fed = states("embed-init")
    with torch.no_grad():
        injected = model.embed_tokens(torch.tensor([IDS]))
        assert torch.equal(fed[0], injected)
        skipping, skipped = states("skip-adapter")
        torch.testing.assert_close(
            skipped[1], skipping._run(skipping.core, injected, first=skipping.cfg.n_prelude)
        )
        torch.testing.assert_close(skipped[2], skipping.step(skipped[1], injected))


def test_noise_has_the_published_deviation(tmp_path):
    model = looplens.load_model(made.write(tmp_path, made.RAVEN, made.raven_tensors(made.RAVEN)))
    assert model.cfg.initial_state == "noise"
    assert model.cfg.initial_state_std == pytest.approx(0.1 * 24**0.5)


HUGINN_0125 = {
    **made.RAVEN,
    "n_embd": 5280,
    "n_heads": 55,
    "num_key_value_heads": 55,
    "head_dim": 96,
    "intermediate_size": 17920,
    "n_layers_in_prelude": 2,
    "n_layers_in_recurrent_block": 4,
    "n_layers_in_coda": 2,
    "padded_vocab_size": 65536,
    "block_size": 4096,
    "tie_embeddings": True,
}
LLAMA_1B_RETROFIT = {
    **made.RAVEN,
    "n_embd": 2048,
    "n_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "intermediate_size": 8192,
    "n_layers_in_prelude": 4,
    "n_layers_in_recurrent_block": 6,
    "n_layers_in_coda": 4,
    "padded_vocab_size": 128256,
    "rope_theta": 500000.0,
    "qk_bias": False,
}
OURO_1_4B = {
    **made.OURO,
    "hidden_size": 2048,
    "num_attention_heads": 16,
    "num_key_value_heads": 16,
    "head_dim": 128,
    "intermediate_size": 5632,
    "num_hidden_layers": 24,
    "vocab_size": 49152,
}


@pytest.mark.parametrize(
    ("config", "tell_tales", "parameters"),
    [
        pytest.param(HUGINN_0125, {"freqs_cis": ()}, 3_564_976_800, id="huginn-0125"),
        pytest.param(LLAMA_1B_RETROFIT, {"lm_head.weight": ()}, 1_385_228_288, id="llama-3.2-1b"),
        pytest.param(OURO_1_4B, {"lm_head.weight": ()}, 1_434_652_673, id="ouro-1.4b"),
    ],
)
def test_published_models_have_their_published_number_of_parameters(config, tell_tales, parameters):
    family = families.find_family(config, tell_tales)
    cfg = family.config(config, tell_tales, None)
    with torch.device("meta"):
        model = looplens.models.LoopedTransformer(cfg)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters


# ---------------------------------------------------------------- against transformers


DECODERS = {
    "llama": ("LlamaConfig", {"rope_theta": 700.0}),
    "llama-tied-scaled": (
        "LlamaConfig",
        {
            "tie_word_embeddings": True,
            "rope_scaling": {
                "rope_type": "llama3",
                "rope_theta": 700.0,
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 32,
            },
        },
    ),
    "mistral": ("MistralConfig", {"sliding_window": None}),
    "qwen2": ("Qwen2Config", {}),
    "qwen3": ("Qwen3Config", {"head_dim": 10}),
    "olmo2": ("Olmo2Config", {}),
}


@pytest.mark.parametrize("kind", DECODERS)
def test_one_pass_of_a_looped_decoder_is_the_decoder(kind, tmp_path):
    transformers = pytest.importorskip("transformers")
    name, changes = DECODERS[kind]
    config = getattr(transformers, name)(
        hidden_size=24,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=36,
        num_hidden_layers=3,
        vocab_size=20,
        max_position_embeddings=64,
        rms_norm_eps=1e-3,
        pad_token_id=0,
        bos_token_id=0,
        eos_token_id=0,
        **changes,
    )
    torch.manual_seed(0)
    theirs = transformers.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():  # norms and biases away from their trivial start
        for parameter in theirs.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    theirs.save_pretrained(tmp_path)
    ours = looplens.load_model(tmp_path, loop=(1, 2))
    ids = torch.tensor([IDS])
    with torch.no_grad():
        torch.testing.assert_close(ours(ids), theirs(ids).logits, atol=5e-5, rtol=1e-4)
        # Two passes are the decoder with the layer written twice.
        layers = theirs.model.layers
        layers.insert(2, layers[1])
        theirs.config.num_hidden_layers = 4
        theirs.config.layer_types = ["full_attention"] * 4
        layers_twice = theirs(ids, use_cache=False).logits
        torch.testing.assert_close(ours(ids, iterations=2), layers_twice, atol=5e-5, rtol=1e-4)


# ---------------------------------------------------------------- padding


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_changes_nothing_for_real_tokens(side, tmp_path):
    model = looplens.load_model(made.write(tmp_path, made.RAVEN, made.raven_tensors(made.RAVEN)))
    short, pad = IDS[:5], [0] * 3
    row = pad + short if side == "left" else short + pad
    mask = torch.tensor([[1] * 8, [int(side == "right" or i >= 3) for i in range(8)]])
    if side == "right":
        mask[1, 5:] = 0
    real = slice(3, None) if side == "left" else slice(None, 5)
    with torch.no_grad():
        both = model(torch.tensor([IDS, row]), iterations=3, initial_state=7, attention_mask=mask)
        torch.testing.assert_close(
            both[0], model(torch.tensor([IDS]), iterations=3, initial_state=7)[0]
        )
        torch.testing.assert_close(
            both[1, real],
            model(torch.tensor([short]), iterations=3, initial_state=7)[0],
            atol=1e-5,
            rtol=1e-5,
        )
        with model.padded(mask):  # attention written out agrees with the fused kernel
            trace = looplens.trace(model, [IDS, row], iterations=3, initial_state=7, attention=True)
        torch.testing.assert_close(trace.logits[-1][0], both[0], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(trace.logits[-1][1, real], both[1, real], atol=1e-5, rtol=1e-5)
    with pytest.raises(InputError, match="row 0 of attention_mask must mark one contiguous"):
        model(torch.tensor([IDS]), attention_mask=torch.tensor([[1, 0, 1, 1, 1, 1, 1, 1]]))


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("base", "changes", "message"),
    [
        ("raven", {"injection_type": "gate"}, "injection_type is 'gate', and only 'linear'"),
        ("raven", {"nonlin_name": "GELU"}, "nonlin_name is 'GELU', and only 'SiLU'"),
        ("raven", {"bias": True}, "bias is True, and only False"),
        ("raven", {"state_init": "unit"}, "state_init is 'unit'"),
        ("raven", {"block_class_name": "PreNorm"}, "block_class_name is 'PreNorm'"),
        ("raven", {"num_key_value_heads": 1}, "num_key_value_heads is 1, and with qk_bias"),
        ("raven", {"rope_base": None}, "lacks rope_base"),
        ("ouro", {"hidden_act": "gelu"}, "hidden_act is 'gelu', and only 'silu'"),
        ("ouro", {"attention_bias": True}, "attention_bias is True"),
        ("ouro", {"rope_scaling": {"rope_type": "yarn"}}, r"rope_scaling\.rope_type is 'yarn'"),
        ("ouro", {"rope_parameters": {"rope_type": "dynamic"}}, r"rope_parameters\.rope_type is"),
        ("ouro", {"rope_scaling": {"type": "llama3"}}, "llama3 rope scaling lacks factor"),
        ("ouro", {"partial_rotary_factor": 0.5}, "partial_rotary_factor is 0.5"),
        ("ouro", {"layer_types": ["sliding_attention"]}, "layer_types names sliding_attention"),
        ("ouro", {"sliding_window": 8}, "sliding_window is 8, and only null"),
        ("ouro", {"model_type": "mamba"}, "model_type 'mamba' is not supported: expected"),
    ],
)
def test_unsupported_values_are_named(base, changes, message, tmp_path):
    config = {**(made.RAVEN if base == "raven" else made.OURO), **changes}
    tensors = made.raven_tensors(made.RAVEN) if base == "raven" else made.ouro_tensors(made.OURO)
    with pytest.raises(InputError, match=message):
        looplens.load_model(made.write(tmp_path, config, tensors))


@pytest.mark.parametrize(
    ("loop", "message"),
    [
        (None, r"pass loop=\(start, stop\).*e\.g\. loop=\(0, 2\) for the whole stack"),
        ((1, 1), r"0 <= start < stop <= 2 \(num_hidden_layers\), got \(1, 1\)"),
        ((0, 3), r"got \(0, 3\)"),
    ],
)
def test_a_decoder_must_be_told_what_to_loop(loop, message, tmp_path):
    config = {**made.OURO, "model_type": "llama"}
    with pytest.raises(InputError, match=message):
        looplens.load_model(made.write(tmp_path, config, made.ouro_tensors(config)), loop=loop)


def test_a_looped_checkpoint_says_itself_what_it_loops(tmp_path):
    directory = made.write(tmp_path, made.OURO, made.ouro_tensors(made.OURO))
    with pytest.raises(InputError, match=r"this is a Ouro checkpoint, .* leave loop out"):
        looplens.load_model(directory, loop=(0, 2))


def test_every_family_fills_its_row_of_the_table():
    rows = families.supported()
    assert {row["name"] for row in rows} >= {"huginn", "raven-llama", "raven-olmo2", "ouro"}
    for row in rows:
        blank = [key for key, value in row.items() if not value and key != "left_out"]
        assert not blank, (row["name"], blank)
