"""Training of models whose layers loop by themselves."""

import dataclasses
import json
import math

import pytest
import torch

import looplens
from looplens.errors import InputError
from looplens.models import AdaptiveConfig, AdaptiveTransformer
from looplens.training import Loss, Recipe, Stage, adaptive_usage, frey, train
from looplens.training.step import build_model, make_optimizer, take_step


@pytest.fixture
def recipe():
    cfg = AdaptiveConfig(
        d_model=16, n_heads=2, d_mlp=24, d_vocab=9, n_ctx=16, n_layers=2, max_steps=3,
        local_slots=4, global_slots=3, scale_start=0.0,
    )  # fmt: skip
    return Recipe(
        name="adaptive", summary="Two layers.", task="affine", model=cfg, steps=6, batch=4,
        warmup=2, curriculum=(Stage(share=1.0, length=3, difficulty=(1, 3)),), seed=3,
    )  # fmt: skip


def go(recipe, folder, **keywords):
    keywords = {"progress": False, "evaluation_sequences": 8, "checkpoint_every": 2} | keywords
    return train(recipe, folder / "model", checkpoints=folder / "checkpoints", **keywords)


def stop_at_3(number, _):
    if number == 3:
        raise KeyboardInterrupt


def test_a_resumed_training_gives_the_very_same_weights_and_a_card(recipe, tmp_path):
    straight = go(recipe, tmp_path / "straight")
    with pytest.raises(KeyboardInterrupt):
        go(recipe, tmp_path / "resumed", callback=stop_at_3)
    resumed = go(recipe, tmp_path / "resumed")
    one, two = (looplens.load_model(result.directory) for result in (straight, resumed))
    assert isinstance(one, AdaptiveTransformer)
    for name, value in one.state_dict().items():
        assert torch.equal(value, two.state_dict()[name]), name
    assert resumed.evaluation.iterations == (3,)
    assert resumed.evaluation == straight.evaluation
    text = (resumed.directory / "README.md").read_text()
    assert "| layers | 2, each for up to 3 steps |" in text
    assert "| memory | 4 slots a layer, 3 for all |" in text
    health = json.loads(resumed.log.read_text().splitlines()[-1])["health"]
    assert len(health["expected_steps"]) == len(health["memory"]) == 2


def test_every_part_is_trained(recipe):
    model = build_model(recipe)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = make_optimizer(model, recipe)
    for step in range(3):
        take_step(recipe, model, optimizer, step)
    same = [n for n, value in model.state_dict().items() if torch.equal(value, before[n])]
    assert not same


def test_usage_by_hand(recipe):
    model = build_model(recipe).eval()
    tokens = torch.tensor([[1, 7, 2, 8, 3], [0, 8, 5, 7, 6]])
    targets = torch.tensor([[-1, -1, 3, -1, 2], [-1, -1, 0, -1, 6]])
    with torch.no_grad():
        for layer in model.layers:  # halts after each step with probability 1/2
            layer.halt_router.weight.zero_()
            layer.halt_router.bias.zero_()
    usage = adaptive_usage(model, tokens, targets)
    assert usage.expected_steps == pytest.approx([1.75, 1.75])  # 1/2 + 2/4 + 3/4
    assert usage.halting_entropy == pytest.approx([1.5 * math.log(2)] * 2)
    assert usage.ponder_cost == pytest.approx(0.375)
    state = model.embed(tokens)
    with torch.no_grad():
        layer, share = model.layers[0], 0.0
        for n, weight in enumerate((0.5, 0.25, 0.25)):
            query = layer.mem_norm(state)
            read = sum(
                layer.mem_gates[bank](state, model.memory.read(query, bank, 0))
                for bank in ("local", "global")
            )
            share += weight * (read.norm(dim=-1) / state.norm(dim=-1))
            rotation = model.rotary.at(slice(0, 5), tokens.device)
            state = layer.step(state, n, model.memory, rotation)
    assert usage.memory[0] == pytest.approx(float(share[targets >= 0].mean()), rel=1e-5)


def test_without_banks_or_steps_there_is_nothing_to_use(recipe):
    cfg = dataclasses.replace(recipe.model, max_steps=1, local_slots=0, global_slots=0)
    model = build_model(dataclasses.replace(recipe, model=cfg)).eval()
    tokens = torch.tensor([[1, 7, 2]])
    usage = adaptive_usage(model, tokens, torch.tensor([[-1, -1, 3]]))
    assert usage.expected_steps.tolist() == [1, 1]
    assert usage.halting_entropy == pytest.approx([0, 0], abs=1e-9)
    assert usage.memory.tolist() == [0, 0]


def test_pads_and_unanswered_tokens_do_not_count_as_steps(recipe):
    model = build_model(recipe).eval()
    tokens = torch.tensor([[1, 7, 2, 8, 3], [0, 8, 5, 7, 6]])
    targets = torch.tensor([[-1, -1, 3, -1, -1], [-1, -1, -1, -1, 6]])
    usage = adaptive_usage(model, tokens, targets)
    assert usage.ponder_cost == pytest.approx(float((usage.expected_steps - 1).mean() / 2))
    assert usage.ponder_cost != pytest.approx(model.trace(tokens).ponder_cost, rel=1e-6)


def test_losses_over_iterations_are_not_for_adaptive_models(recipe):
    with pytest.raises(InputError, match=r"takes the loss 'last' and no regulariser; got 'every'"):
        dataclasses.replace(recipe, loss=Loss(kind="every"))
    with pytest.raises(
        InputError, match="answers of task 'zoo' depend on the number of iterations"
    ):
        frey("zoo")


def test_the_factory_takes_sizes_and_passes_the_rest_through():
    made = frey("affine", layers=2, max_steps=5, d_model=16, model={"d_mlp": 40}, steps=7)
    assert (made.name, made.steps) == ("affine-frey-2x5", 7)
    assert frey("phop:last=true").name != frey("phop").name
    cfg = made.model
    assert (cfg.n_layers, cfg.max_steps, cfg.d_mlp, cfg.d_vocab) == (2, 5, 40, 9)
    assert (cfg.local_slots, cfg.global_slots, cfg.scale_start) == (64, 32, 0.0)
    assert AdaptiveConfig.from_dict(cfg.to_dict()) == cfg
