"""Loops over ordinary Hugging Face decoders: by hand, against golden numbers, and undone again."""

import json
from pathlib import Path

import pytest
import torch

from looplens.errors import InputError
from looplens.models.looping import loop_layers
from looplens.models.residuals import last_token_residuals

transformers = pytest.importorskip("transformers")
GOLDEN = Path(__file__).parents[2].parent / "shared" / "golden" / "etd-llama"
TOKENS = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6], [2, 7, 1, 8, 2, 8, 1, 8]])
SMALL = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 5,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 50,
    "max_position_embeddings": 64,
    "initializer_range": 0.2,
    "pad_token_id": 0,
}
FAMILIES = {
    "Llama": SMALL,
    "Mistral": {**SMALL, "sliding_window": 3},
    "Qwen2": {**SMALL, "use_sliding_window": True, "sliding_window": 3, "max_window_layers": 2},
    "Qwen3": {**SMALL, "head_dim": 8},
    "Olmo2": SMALL,
    "Gemma2": {**SMALL, "head_dim": 8, "sliding_window": 3},
    "GPTNeoX": {k: v for k, v in SMALL.items() if k != "num_key_value_heads"},
    "GPT2": {
        "n_embd": 32, "n_layer": 5, "n_head": 4, "vocab_size": 50, "n_positions": 64,
        "initializer_range": 0.2, "resid_pdrop": 0.1,
    },
}  # fmt: skip


def make(family="Llama", **changes):
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(**{**FAMILIES[family], **changes})
    kind = "GPT2LMHeadModel" if family == "GPT2" else f"{family}ForCausalLM"
    return getattr(transformers, kind)(config).eval().requires_grad_(False)


def layers_of(model):
    for path in ("model.layers", "transformer.h", "gpt_neox.layers"):
        try:
            return model.get_submodule(path)
        except AttributeError:
            continue
    raise AssertionError(type(model))


def unrolled(family, order):
    """A deeper model without any loop, that meets the same layers in the given order."""
    model = make(family)
    layers, config = layers_of(model), model.config
    *above, name = next(n for n, module in model.named_modules() if module is layers).split(".")
    deeper = torch.nn.ModuleList(layers[number] for number in order)
    setattr(model.get_submodule(".".join(above)), name, deeper)
    config.num_hidden_layers = len(order)
    if getattr(config, "layer_types", None):
        config.layer_types = [config.layer_types[number] for number in order]
    return model


@pytest.mark.parametrize("family", FAMILIES)
def test_naive_is_the_deeper_model_with_repeated_layers(family):
    deep = unrolled(family, [0, 1, 2, 3, 1, 2, 3, 1, 2, 3, 4])
    with loop_layers(make(family), 1, 4, iterations=3) as looped:
        torch.testing.assert_close(looped(TOKENS).logits, deep(TOKENS, use_cache=False).logits)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("mode", ["naive", "residual", "anchored"])
def test_one_pass_is_the_plain_model_and_undoing_restores_it(family, mode):
    model = make(family)
    plain = model(TOKENS).logits
    names, layers = list(model.state_dict()), layers_of(model)
    with loop_layers(model, 1, 3, 1, mode) as looped:
        assert torch.equal(looped(TOKENS).logits, plain)
        assert list(model.state_dict()) == names
        assert not torch.equal(looped(TOKENS, iterations=4).logits, plain)
    assert layers_of(model) is layers
    assert torch.equal(model(TOKENS).logits, plain)
    assert model(TOKENS).past_key_values is not None


def test_the_modes_are_their_formulas():
    model = make().double()
    looped = loop_layers(model, 1, 4, 1)

    def g(h):
        """One pass over the span, from the difference that one pass makes."""
        seen = []
        first = model.model.layers[1]
        handle = first.register_forward_pre_hook(lambda _, args: (h, *args[1:]))
        with loop_layers(model, 1, 4, 1) as once:
            seen.append(once.loop_states(TOKENS)[1])
        handle.remove()
        return seen[0]

    h0 = looped.loop_states(TOKENS)[0]
    looped.unloop()
    h, by_hand = h0, []
    for _ in range(6):
        h = h + (g(h) - h) / 6
        by_hand.append(h)
    with loop_layers(model, 1, 4, 6, "residual") as looped:
        torch.testing.assert_close(looped.loop_states(TOKENS)[1:], torch.stack(by_hand))
    entering = []
    handle = model.model.layers[4].register_forward_pre_hook(
        lambda _, args: entering.append(args[0])
    )
    with loop_layers(model, 1, 4, 6, "anchored") as looped:
        looped(TOKENS)
    handle.remove()
    torch.testing.assert_close(entering[0], 0.5 * g(h0) + 0.5 * h)


def test_hooks_on_layers_fire_once_a_pass_in_order():
    model, fired = make(), []
    looped = loop_layers(model, 1, 3, iterations=3)
    for number in range(5):
        model.model.layers[number].register_forward_hook(
            lambda *_, number=number: fired.append(number)
        )
    seen = looped(TOKENS, output_hidden_states=True).hidden_states
    assert fired == [0, 1, 2, 1, 2, 1, 2, 3, 4]
    assert len(seen) == len(fired) + 1
    looped.iterations = 2
    assert "model.layers[1:3] x 2, naive" in repr(looped)
    assert looped.config is model.config


def test_padding_changes_nothing():
    model = make()
    with loop_layers(model, 1, 4, iterations=3) as looped:
        alone = looped(TOKENS[:1, :5]).logits
        padded = torch.cat((TOKENS[:1, :5], torch.zeros(1, 3, dtype=torch.long)), 1)
        mask = torch.tensor([[1, 1, 1, 1, 1, 0, 0, 0]])
        together = looped(padded, attention_mask=mask).logits[:, :5]
    torch.testing.assert_close(alone, together)


def test_layers_that_return_tuples_keep_the_rest_of_the_last_pass():
    class Layer(torch.nn.Module):
        def __init__(self, add):
            super().__init__()
            self.add, self.count = add, 0

        def forward(self, x):
            self.count += 1
            return x + self.add, self.count

    class Decoder(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = torch.nn.ModuleList(Layer(add) for add in (1, 10, 100))

        def forward(self, x):
            for layer in self.layers:
                x, last = layer(x)
            return x, last

    answer, last = loop_layers(Decoder(), 1, 3, iterations=4)(torch.zeros(1))
    assert (answer.item(), last) == (1 + 4 * 110, 4)


def test_a_cache_is_refused_and_generation_works_without():
    model = make()
    cache = transformers.DynamicCache()
    with loop_layers(model, 1, 3, iterations=2) as looped:
        assert looped(TOKENS).past_key_values is None
        for wrong in ({"use_cache": True}, {"past_key_values": cache}):
            with pytest.raises(InputError, match=r"cannot use a key/value cache.*use_cache=False"):
                looped(TOKENS, **wrong)
        with pytest.raises(InputError, match="cannot use a key/value cache"):
            looped.generate(TOKENS, max_new_tokens=2, do_sample=False)
        written = looped.generate(TOKENS, max_new_tokens=2, do_sample=False, use_cache=False)
        assert torch.equal(written[:, 8], looped(TOKENS).logits[:, -1].argmax(-1))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((1, 3, 2, "residuall"), "naive, residual, anchored, got 'residuall'. Did you mean"),
        ((3, 3, 2), "start=3 must be below stop=3"),
        ((2, 6, 2), r"LlamaForCausalLM has 5 layers in model.layers, so 0 <= start < stop <= 5"),
        ((-1, 3, 2), "layers -1 to 2 are not all there"),
        ((1, 3, 0), "iterations must be an integer of at least 1, got 0"),
    ],
)
def test_bad_loops_are_refused(arguments, message):
    model = make()
    with pytest.raises(InputError, match=message):
        loop_layers(model, *arguments)
    assert type(model.model.layers) is torch.nn.ModuleList


def test_what_cannot_be_looped_is_refused():
    with pytest.raises(InputError, match=r"not a causal .* looked for model\.layers, "):
        loop_layers(torch.nn.Sequential(torch.nn.Linear(2, 2)), 0, 1, 2)
    model = make()
    looped = loop_layers(model, 1, 3, iterations=2)
    with pytest.raises(InputError, match="looped already, over layers 1 to 2: call unloop"):
        loop_layers(model, 0, 1, 2)
    looped.unloop()
    looped.unloop()
    with pytest.raises(InputError, match="undone by unloop"):
        looped(TOKENS)


@pytest.mark.parametrize("family", ["Llama", "GPT2", "Qwen2"])
@pytest.mark.parametrize("mode", ["naive", "residual", "anchored"])
def test_a_loop_can_be_traced_pass_by_pass(family, mode):
    import looplens
    from looplens.models.wrapping import wrap

    looped = loop_layers(make(family), 1, 4, 3, mode)
    model = wrap(looped)  # it declares its own loop
    seen = looplens.trace(model, TOKENS, iterations=4)
    torch.testing.assert_close(seen.states, looped.loop_states(TOKENS, iterations=4))
    assert seen.layer_states.shape == (4, 3, 2, 8, 32)
    if mode == "naive":
        torch.testing.assert_close(seen.layer_states[:, -1], seen.states[1:])
        for k in (1, 2, 4):
            torch.testing.assert_close(seen.logits[k - 1], looped(TOKENS, iterations=k).logits)
    elif mode == "residual":
        torch.testing.assert_close(seen.logits[-1], looped(TOKENS, iterations=4).logits)


class TestLastTokenResiduals:
    def test_streams_are_raw_and_of_the_last_real_token(self):
        model = make()
        seen = last_token_residuals(model, [TOKENS, TOKENS[:1, :3]])
        assert seen.shape == (3, 6, 32)
        hidden = model(TOKENS, output_hidden_states=True).hidden_states
        for layer in range(5):  # the last of transformers is after the final norm
            torch.testing.assert_close(torch.from_numpy(seen[:2, layer]), hidden[layer][:, -1])
        normed = model.model.norm(torch.from_numpy(seen[:2, 5]))
        torch.testing.assert_close(normed, hidden[5][:, -1])

    @pytest.mark.parametrize("side", ["left", "right"])
    def test_padding_is_not_the_last_token(self, side):
        model, fill = make(), torch.zeros(1, 4, dtype=torch.long)
        short = TOKENS[:1, :4]
        ids = torch.cat((fill, short) if side == "left" else (short, fill), 1)
        batch = {"input_ids": ids, "attention_mask": (ids != 0).long()}
        if side == "left":
            batch["position_ids"] = torch.arange(8)[None] - 4
            batch["position_ids"].clamp_(min=0)
        padded, alone = (last_token_residuals(model, [b]) for b in (batch, short))
        assert padded == pytest.approx(alone, abs=1e-5)

    def test_a_looped_transformer_gives_its_realised_depth(self):
        from looplens.models import LoopedConfig, LoopedTransformer

        cfg = LoopedConfig(
            d_model=16, n_heads=2, d_mlp=24, d_vocab=10, n_ctx=32, n_prelude=1, n_core=2, n_coda=1
        )
        model = LoopedTransformer(cfg).eval()
        seen = last_token_residuals(model, [TOKENS], iterations=3)
        assert seen.shape == (2, 1 + 1 + 2 * 3 + 1, 16)
        with loop_layers(make(), 1, 3, iterations=3) as looped:
            assert last_token_residuals(looped, [TOKENS]).shape == (2, 1 + 5 + 2 * 2, 32)

    def test_no_prompt_is_an_error(self):
        with pytest.raises(InputError, match="at least one batch"):
            last_token_residuals(make(), [])


golden = pytest.mark.skipif(not GOLDEN.exists(), reason=f"golden numbers are not at {GOLDEN}")


@golden
@pytest.mark.parametrize(
    ("file", "name"),
    [("golden.safetensors", "split"), ("golden_whole_stack.safetensors", "whole_stack")],
)
def test_golden_recursion_over_an_ordinary_llama(file, name):
    from safetensors.torch import load_file

    config = transformers.LlamaConfig(**json.loads((GOLDEN / "config.json").read_text()))
    model = transformers.LlamaForCausalLM(config).eval()
    model.load_state_dict(load_file(GOLDEN / "model.safetensors"))
    wanted = load_file(GOLDEN / file)
    shape = json.loads((GOLDEN / "recursion.json").read_text())[name]
    start = shape["start_index"]
    looped = loop_layers(model, start, start + shape["block_size"], shape["recursions"])
    ids = wanted["input_ids"]
    states = looped.loop_states(ids)
    torch.testing.assert_close(states, wanted["states"], atol=5e-5, rtol=0)
    for k, logits in enumerate(wanted["logits"], start=1):
        with torch.no_grad():
            seen = looped(ids, iterations=k).logits
        torch.testing.assert_close(seen, logits, atol=5e-5, rtol=0)
