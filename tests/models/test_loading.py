"""Reading weight files: shards, torch files, dtypes, the hub, damage."""

import json

import family_checkpoints as made
import pytest
import torch
from safetensors.torch import load_file, save_file

import looplens
from looplens.errors import InputError

IDS = torch.tensor([[3, 1, 4, 1, 5]])


@pytest.fixture
def tensors():
    return made.raven_tensors(made.RAVEN)


def test_shards_give_the_same_model(tensors, tmp_path):
    whole = looplens.load_model(made.write(tmp_path / "whole", made.RAVEN, tensors))
    sharded = looplens.load_model(made.write(tmp_path / "shards", made.RAVEN, tensors, shards=3))
    for name, value in whole.state_dict().items():
        assert torch.equal(value, sharded.state_dict()[name])
    assert torch.equal(whole(IDS), sharded(IDS))


def test_stored_and_asked_for_dtypes(tensors, tmp_path):
    half = {name: value.bfloat16() for name, value in tensors.items()}
    stored = looplens.load_model(made.write(tmp_path / "half", made.RAVEN, half))
    directory = made.write(tmp_path / "full", made.RAVEN, tensors)
    cast = looplens.load_model(directory, dtype=torch.bfloat16)
    assert {p.dtype for p in (*stored.parameters(), *cast.parameters())} == {torch.bfloat16}
    assert torch.equal(stored(IDS), cast(IDS))
    assert stored.rotary.cos.dtype == torch.float32
    wide = looplens.load_model(directory, dtype=torch.float64)
    # Attention's softmax and the norms stay in float32, as in the published models.
    torch.testing.assert_close(wide(IDS), looplens.load_model(directory)(IDS), atol=1e-4, rtol=1e-4)


def test_weights_that_do_not_fit_are_all_listed_by_their_stored_names(tensors, tmp_path):
    del tensors["transformer.ln_f.weight"]
    tensors["transformer.coda.0.attn.Wqkv.weight"] = torch.zeros(30, 24)
    tensors["extra"] = torch.zeros(1)
    with pytest.raises(
        InputError,
        match=r"missing transformer\.ln_f\.weight; unexpected extra; "
        r"transformer\.coda\.0\.attn\.Wqkv\.weight has shape \(30, 24\), expected \(90, 24\)",
    ):
        looplens.load_model(made.write(tmp_path, made.RAVEN, tensors))


def test_tied_heads_may_be_stored_or_not(tensors, tmp_path):
    config = {**made.RAVEN, "tie_embeddings": True}
    stored = looplens.load_model(made.write(tmp_path / "stored", config, tensors))
    del tensors["lm_head.weight"]
    absent = looplens.load_model(made.write(tmp_path / "absent", config, tensors))
    assert torch.equal(stored(IDS), absent(IDS))
    with pytest.raises(InputError, match=r"missing lm_head\.weight"):
        looplens.load_model(made.write(tmp_path / "untied", made.RAVEN, tensors))


def test_damaged_shards_are_named(tensors, tmp_path):
    directory = made.write(tmp_path, made.RAVEN, tensors, shards=2)
    shard = directory / "model-00002-of-00002.safetensors"
    content = shard.read_bytes()
    shard.write_bytes(content[:-8])
    with pytest.raises(InputError, match=r"cannot read .*model-00002-of-00002\.safetensors: trunc"):
        looplens.load_model(directory)
    shard.unlink()
    with pytest.raises(InputError, match="lacks the shards model-00002-of-00002"):
        looplens.load_model(directory)
    (directory / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"x": "../elsewhere.safetensors"}})
    )
    with pytest.raises(InputError, match="names a shard outside its directory"):
        looplens.load_model(directory)


def test_torch_files_are_read_for_parcae_alone(tensors, tmp_path):
    made.write(tmp_path, made.RAVEN, tensors)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"holds no weights: expected model\.safetensors"):
        looplens.load_model(tmp_path)
    torch.save(tensors, tmp_path / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"is a torch file.*convert the checkpoint to safetensors"):
        looplens.load_model(tmp_path)


PARCAE = {
    "_class_name": "ParcaeConfig",
    "n_embd": 40,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "n_layers_in_prelude": 1,
    "n_layers_in_recurrent_block": 1,
    "n_layers_in_coda": 1,
    "mean_recurrence": 3,
    "vocab_size": 13,
    "padding_multiple": 8,
    "block_size": 16,
    "norm_eps": 1e-5,
    "qk_norm": True,
    "prelude_norm": True,
    "tie_embeddings": True,
    "logit_softcap": 5.0,
    "rope_settings": {"rope_base": 100, "use_rope": True, "rope_condense_ratio": 1},
}


def parcae_tensors():
    torch.manual_seed(0)
    d, hd, inner = 40, 10, 48
    tensors = {
        "transformer.wte.weight": torch.randn(16, d),
        "transformer.C.weight": torch.randn(d, d) / d**0.5,
        "transformer.ln_prelude.weight": torch.rand(d) + 0.5,
        "transformer.ln_f.weight": torch.rand(d) + 0.5,
        "transformer.adapter.A_log": torch.zeros(d),
        "transformer.adapter.dt_bias": torch.zeros(d),
        "transformer.adapter.B": torch.randn(d, d) / d**0.5,
        "value_embeds.1.weight": torch.randn(16, 2 * hd),
        "value_embeds.2.weight": torch.randn(16, 2 * hd),  # no gate in layer 2: unused
        "transformer.core_block.0.attn.ve_gate.weight": torch.randn(2, 32) / 32**0.5,
    }
    for part in ("prelude", "core_block", "coda"):
        name = f"transformer.{part}.0"
        tensors |= {
            f"{name}.attn.c_q.weight": torch.randn(4 * hd, d) / d**0.5,
            f"{name}.attn.c_k.weight": torch.randn(2 * hd, d) / d**0.5,
            f"{name}.attn.c_v.weight": torch.randn(2 * hd, d) / d**0.5,
            f"{name}.attn.c_proj.weight": torch.randn(d, 4 * hd) / d**0.5,
            f"{name}.mlp.fc.weight": torch.randn(inner, d) / d**0.5,
            f"{name}.mlp.proj.weight": torch.randn(d, inner) / inner**0.5,
            f"{name}.norm_1.weight": torch.rand(d) + 0.5,
            f"{name}.norm_2.weight": torch.rand(d) + 0.5,
        }
    return tensors


def test_parcae_from_a_torch_file(tmp_path):
    tensors = parcae_tensors()
    (tmp_path / "config.json").write_text(json.dumps(PARCAE))
    torch.save(tensors, tmp_path / "model.pt")
    model = looplens.load_model(tmp_path)
    save_file(tensors, tmp_path / "model.safetensors")
    again = looplens.load_model(tmp_path)
    logits = model(IDS)
    assert torch.equal(logits, again(IDS))
    assert logits.shape == (1, 5, 16)  # the padded vocabulary
    assert logits.abs().max() < 5  # the soft-cap
    assert model.cfg.value_embeddings == (1,)
    # The token enters inside the loop: values of another token change the same state's successor.
    injected, state = model.embed_tokens(IDS), torch.zeros(1, 5, 40)
    first = model.step(state, injected)
    model.token_embedding(IDS.flip(1))
    assert (model.step(state, injected) - first).abs().max() > 1e-3
    with pytest.raises(InputError, match="the tokens last embedded have shape"):
        model.step(state[:, :2], injected[:, :2])


def test_the_stored_rotary_table_of_parcae_decides(tmp_path):
    tensors = parcae_tensors()
    angle = torch.arange(16)[:, None] * 7.0 ** (-torch.arange(0, 10, 2) / 10)
    table = torch.stack((angle.cos(), angle.sin()), dim=-1)[None, :, None]
    plain = looplens.load_model(made.write(tmp_path / "plain", PARCAE, tensors))
    stored = looplens.load_model(
        made.write(tmp_path / "stored", PARCAE, {**tensors, "freqs_cis": table})
    )
    config = {**PARCAE, "rope_settings": {"rope_base": 7}}
    same = looplens.load_model(made.write(tmp_path / "same", config, tensors))
    torch.testing.assert_close(stored(IDS), same(IDS), atol=1e-4, rtol=1e-4)
    assert (stored(IDS) - plain(IDS)).abs().max() > 1e-3


@pytest.mark.parametrize("injection", ["linear", "add"])
def test_parcae_with_other_injections(injection, tmp_path):
    tensors = {k: v for k, v in parcae_tensors().items() if ".adapter." not in k}
    if injection == "linear":
        tensors["transformer.adapter.adapter.weight"] = torch.randn(40, 80) / 80**0.5
    config = {**PARCAE, "injection_type": injection, "logit_softcap": None, "prelude_norm": False}
    del tensors["transformer.ln_prelude.weight"]
    model = looplens.load_model(made.write(tmp_path, config, tensors))
    assert model.cfg.injection == injection
    injected, state = model.embed_tokens(IDS), torch.randn(1, 5, 40)
    fed = state + injected
    if injection == "linear":
        weight = tensors["transformer.adapter.adapter.weight"]
        fed = torch.cat((state, injected), -1) @ weight.T
    _, cache = model.run_with_cache(IDS, 1, state, names_filter="core.0.hook_resid_pre")
    torch.testing.assert_close(cache["core.0.hook_resid_pre@1"], fed)


def test_a_torch_file_with_code_in_it_is_refused(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(PARCAE))
    torch.save({"x": print}, tmp_path / "model.pt")
    with pytest.raises(InputError, match=r"cannot read the weights .*model\.pt"):
        looplens.load_model(tmp_path)


def test_a_model_loaded_from_a_family_is_saved_in_our_layout(tensors, tmp_path):
    model = looplens.load_model(made.write(tmp_path / "a", made.RAVEN, tensors))
    looplens.models.save_model(model, tmp_path / "b")
    again = looplens.load_model(tmp_path / "b")
    assert again.cfg == model.cfg
    assert torch.equal(again(IDS), model(IDS))
    assert load_file(tmp_path / "b" / "model.safetensors").keys() == model.state_dict().keys()


def test_a_hub_id_without_a_network_says_what_to_do(monkeypatch):
    import huggingface_hub

    asked = {}

    def offline(hub_id, **options):
        asked.update(options, hub_id=hub_id)
        raise huggingface_hub.errors.LocalEntryNotFoundError("no connection")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(InputError, match=r"'owner/name' .* no connection.*pass its directory"):
        looplens.load_model("owner/name", revision="main")
    assert asked["hub_id"] == "owner/name"
    assert "*.safetensors" in asked["allow_patterns"]
    assert not any(
        pattern.endswith((".py", ".bin", ".pt", "*")) for pattern in asked["allow_patterns"]
    )


def test_a_hub_id_is_fetched_and_loaded(tensors, tmp_path, monkeypatch):
    import huggingface_hub

    directory = made.write(tmp_path / "snapshot", made.RAVEN, tensors)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(directory))
    assert looplens.load_model("owner/some-huginn").model_name == "some-huginn"
