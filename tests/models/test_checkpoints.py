import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from looplens.errors import InputError
from looplens.models import (
    LoopedConfig,
    LoopedTransformer,
    char_tokenizer,
    load_model,
    model_card,
    save_model,
)


@pytest.fixture
def model():
    torch.manual_seed(0)
    cfg = LoopedConfig(d_model=16, n_heads=2, d_mlp=32, d_vocab=4, n_ctx=16)
    return LoopedTransformer(cfg, char_tokenizer("abcd"), name="tiny").eval()


def test_a_checkpoint_gives_the_same_model_back(model, tmp_path):
    save_model(model, tmp_path / "m", card="# tiny\n")
    loaded = load_model(tmp_path / "m")
    assert torch.equal(loaded("abba"), model("abba"))
    assert loaded.cfg == model.cfg
    assert loaded.tokenizer.decode(loaded.tokenizer.encode("dad")) == "dad"
    assert {path.name for path in (tmp_path / "m").iterdir()} == {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "README.md",
    }


def test_weights_that_do_not_fit_are_all_listed(model, tmp_path):
    save_model(model, tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    weights["extra"] = torch.zeros(1)
    weights["adapter.weight"] = torch.zeros(2, 2)
    del weights["ln_final.weight"]
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(
        InputError, match=r"missing ln_final.weight; unexpected extra; adapter.weight has shape"
    ):
        load_model(tmp_path)


def test_unreadable_checkpoints_say_which_file(model, tmp_path):
    save_model(model, tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"short")
    with pytest.raises(InputError, match=r"cannot read the weights .*model\.safetensors"):
        load_model(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(InputError, match="not valid JSON"):
        load_model(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    with pytest.raises(InputError, match="model_type 'gpt2' is not supported: expected"):
        load_model(tmp_path)


def test_an_unknown_name_lists_the_bundled_models():
    with pytest.raises(InputError, match="Did you mean 'affine-huginn-mini'"):
        load_model("affine-hugin-mini")


@pytest.mark.parametrize("name", ["affine-huginn-mini", "phop-huginn-mini", "phop-ouro-mini"])
def test_bundled_models_reach_their_card(name):
    """The accuracy on the card comes out again, on sequences that training never drew."""
    from looplens.tasks import prompts_trained_on

    card = model_card(name)
    model = load_model(name)
    prompts = prompts_trained_on(card, 48, seed=987)
    ids = torch.tensor([prompt.token_ids for prompt in prompts])
    targets = torch.tensor([prompt.targets for prompt in prompts])
    with torch.no_grad():
        answers = model(ids, iterations=card["recommended_iterations"], initial_state=None)
    hit = (answers.argmax(-1) == targets)[targets >= 0].float().mean()
    assert card["accuracy"] >= 0.99
    assert hit >= 0.985
