"""Recipes by family and size, their plain baselines, and the two stages of an exit gate."""

import dataclasses
import json

import numpy as np
import pytest
import torch

import looplens
from looplens.analysis import flops
from looplens.errors import InputError
from looplens.tasks import get_task
from looplens.training import (
    RECIPES,
    LoopingRegulariser,
    Loss,
    Stage,
    equal_flops,
    equal_parameters,
    etd_recipe,
    evaluate,
    evaluate_exits,
    frey,
    gate_stage,
    huginn,
    k_by_l,
    ouro,
    train,
)
from looplens.training.losses import block_similarity
from looplens.training.step import build_model, make_optimizer, take_step

SMALL = {
    "d_model": 16, "n_heads": 2, "batch": 8, "steps": 6, "warmup": 2,
    "curriculum": (Stage(share=1.0, length=3, difficulty=(1, 3)),),
}  # fmt: skip


def operations(recipe):
    cfg = recipe.model
    return flops(cfg.to_dict(), np.arange(1, 20)).total(cfg.default_iterations)


def parameters(recipe):
    return sum(p.numel() for p in build_model(recipe).parameters())


@pytest.mark.parametrize("prelude", [0, 1])
def test_k_by_l_and_its_baselines(prelude):
    looped = k_by_l("affine", 2, 3, prelude=prelude, coda=prelude, **SMALL)
    deep, shallow = equal_flops(looped), equal_parameters(looped)
    assert looped.depth.draw(np.random.default_rng(0)) == 3 == looped.backprop_iterations
    assert (deep.model.n_core, shallow.model.n_core) == (6, 2)
    np.testing.assert_array_equal(operations(deep), operations(looped))
    assert parameters(shallow) == parameters(looped) < parameters(deep)
    assert deep.depth.mean == deep.model.default_iterations == 1
    assert len({looped.fingerprint(), deep.fingerprint(), shallow.fingerprint()}) == 3
    # One pass of the loop is the plain model.
    tokens = torch.tensor([[3, 7, 4, 8, 2]])
    torch.testing.assert_close(
        build_model(looped)(tokens, iterations=1),
        _with_weights(shallow, build_model(looped))(tokens),
    )


def _with_weights(recipe, model):
    other = build_model(recipe)
    other.load_state_dict(model.state_dict())
    return other


def test_baselines_of_other_families_lack_only_injection_and_gate():
    random = huginn("affine", iterations=4, **SMALL)
    adapter = 2 * 16 * 16
    assert parameters(random) - parameters(equal_parameters(random)) == adapter
    np.testing.assert_array_equal(
        operations(random) - operations(equal_flops(random)), 4 * 2.0 * adapter
    )
    gated = ouro("affine", iterations=3, **SMALL)
    assert parameters(gated) - parameters(equal_parameters(gated)) == 16 + 1
    plain = equal_flops(gated, seed=4)
    assert (plain.loss, plain.seed, plain.base) == (Loss(), 4, None)


def test_names_are_parts_of_paths():
    assert k_by_l("affine", 1, 4, **SMALL).name == "affine-1x4"
    assert gate_stage(ouro("phop", **SMALL | {"curriculum": RECIPES["phop-ouro-mini"].curriculum}))
    for recipe in RECIPES.values():
        assert "/" not in recipe.name
        assert ":" not in recipe.name


def test_losses_that_cannot_be_are_refused():
    with pytest.raises(InputError, match="kind 'expected' needs a model with an exit gate"):
        k_by_l("affine", 1, 4, loss=Loss(kind="expected"), **SMALL)
    with pytest.raises(InputError, match=r"all must carry gradient.*backprop_iterations=2"):
        ouro("affine", backprop_iterations=2, **SMALL)
    with pytest.raises(InputError, match="name its recipe as base"):
        ouro("affine", loss=Loss(kind="gate"), **SMALL)
    with pytest.raises(
        InputError, match=r"compares an iteration .* mean=2 or more\); got .*always 1"
    ):
        gate_stage(k_by_l("affine", 1, 1, **SMALL))
    with pytest.raises(InputError, match="nothing but the gate, so it takes no regulariser"):
        gate_stage(k_by_l("affine", 2, 2, **SMALL), regulariser=LoopingRegulariser(block=1))
    with pytest.raises(InputError, match=r"block=2 needs a model of 4, 6, ... layers; .* has 3"):
        k_by_l("affine", 3, 1, regulariser=LoopingRegulariser(block=2), **SMALL)


def test_the_context_holds_the_task():
    assert k_by_l("phop:last=true,hops=32", 1, 4).model.n_ctx == 512
    assert frey("affine").model.n_ctx == huginn("phop").model.n_ctx == 256
    with pytest.raises(
        InputError, match=r"sequences of 257 tokens, but .* n_ctx=256; set n_ctx to"
    ):
        k_by_l("phop:last=true,hops=32", 1, 4, n_ctx=256)
    with pytest.raises(InputError, match="32 hops from the last letter need 66 letters"):
        k_by_l(
            "phop:last=true,hops=32", 1, 4,
            curriculum=(Stage(share=1.0, length=20, difficulty=(1, 32)),),
        )  # fmt: skip


def test_a_gate_is_trained_at_a_fixed_depth_whatever_the_model_was_trained_at():
    second = gate_stage(huginn("affine", iterations=5, **SMALL))
    assert str(second.depth) == "always 5"


def test_baselines_of_continued_and_of_adaptive_models_take_all_of_their_steps():
    first = ouro("affine", iterations=3, **SMALL)
    plain = equal_flops(gate_stage(first, steps=5, batch=4))
    assert (plain.steps, plain.batch, plain.base, plain.model.n_core) == (11, 8, None, 3)
    deep = k_by_l("affine", 5, 1, **SMALL)
    assert equal_flops(etd_recipe(deep, 1, 3, 4, steps=9)).steps == 15
    adaptive = frey("affine", layers=2, max_steps=3, d_model=16, n_heads=2)
    shallow, long = equal_parameters(adaptive).model, equal_flops(adaptive).model
    assert (shallow.n_layers, shallow.max_steps) == (2, 1)
    assert (long.n_layers, long.max_steps) == (6, 1)


def run(recipe, out, **keywords):
    keywords = {"progress": False, "evaluation_sequences": 8, "checkpoint_every": 2} | keywords
    return train(recipe, out / "model", checkpoints=out / "checkpoints", **keywords)


class Interrupted(Exception):
    pass


@pytest.mark.parametrize("gate", [True, False])
def test_the_second_stage_trains_the_gate_alone_and_resumes(gate, tmp_path):
    first = ouro("affine", iterations=3, gate=gate, **SMALL)
    second = gate_stage(first, steps=5)

    def interrupt(number, _):
        if number == 3:
            raise Interrupted

    straight = run(second, tmp_path / "straight")
    with pytest.raises(Interrupted):
        run(second, tmp_path / "again", callback=interrupt)
    stepped = []
    again = run(second, tmp_path / "again", callback=lambda number, _: stepped.append(number))
    assert stepped == [3, 4, 5]
    before = looplens.load_model(
        tmp_path / "straight" / "checkpoints" / "base" / "model"
    ).state_dict()
    one, two = (looplens.load_model(r.directory).state_dict() for r in (straight, again))
    for name, value in one.items():
        assert torch.equal(value, two[name]), name
        if not name.startswith("exit_gate"):
            assert torch.equal(value, before[name]), name
        elif gate:
            assert not torch.equal(value, before[name])
    card = json.loads((straight.directory / "card.json").read_text())
    assert card["recipe"]["base"]["name"] == first.name
    assert card["exits"]["quantile"][-1] == 1.0
    text = (straight.directory / "README.md").read_text()
    assert "| loss | exit gate alone, slope 50, threshold 0.005 |" in text
    assert f"| 1 | 3.00 | {card['exits']['accuracy'][-1]:.4f} |" in text
    assert card["fingerprint"] == second.fingerprint() != first.fingerprint()


def test_the_second_stage_lowers_its_loss():
    first = ouro("affine", iterations=3, **SMALL)
    recipe = gate_stage(first, steps=60, warmup=1, learning_rate=0.05, batch=32)
    model = build_model(recipe)
    optimizer = make_optimizer(model, recipe)
    losses = [take_step(recipe, model, optimizer, step)["loss"] for step in range(60)]
    assert np.mean(losses[-10:]) < np.mean(losses[:10])


def test_steps_with_other_losses_learn():
    every = ouro("affine", iterations=3, gate=False, loss=Loss(kind="every"), **SMALL)
    recipe = dataclasses.replace(every, steps=80, batch=32)
    model = build_model(recipe)
    optimizer = make_optimizer(model, recipe)
    losses = [take_step(recipe, model, optimizer, step)["loss"] for step in range(80)]
    assert np.mean(losses[-10:]) < 0.95 * np.mean(losses[:10])


def test_the_regulariser_makes_blocks_alike():
    deep = equal_flops(k_by_l("affine", 1, 4, **SMALL))
    regular = dataclasses.replace(deep, steps=30, regulariser=LoopingRegulariser(block=1))
    model = build_model(regular)
    optimizer = make_optimizer(model, regular)
    before = block_similarity(model, 1).item()
    for step in range(30):
        take_step(regular, model, optimizer, step)
    assert abs(before) < 0.1
    assert block_similarity(model, 1).item() > 0.5
    assert regular.fingerprint() != dataclasses.replace(deep, steps=30).fingerprint()


def test_exits_are_marked_where_tokens_leave():
    recipe = ouro("affine", iterations=3, **SMALL)
    model = build_model(recipe)
    task = get_task("affine")
    with torch.no_grad():
        model.exit_gate.weight.zero_()
        model.exit_gate.bias.fill_(0.0)
    held_out = {"sequences": 16, "length": 3, "difficulty": (1, 3)}
    found = evaluate_exits(
        model, task, np.random.default_rng(0), quantiles=(0.5, 0.75, 1.0), **held_out
    )
    by_count = evaluate(model, task, np.random.default_rng(0), iterations=(1, 2, 3), **held_out)
    # lambda is 1/2 everywhere: CDF 1/2, 3/4, 1, so that q picks the iteration.
    assert found.iterations == (1, 2, 3)
    assert found.accuracy == pytest.approx(by_count.accuracy)
    assert found.entropy == pytest.approx(1.5 * np.log(2))
    assert found.expected_exit == pytest.approx([1 / 2 + 2 / 4 + 3 / 4] * 3)
    plain = build_model(k_by_l("affine", 1, 2, **SMALL))
    with pytest.raises(InputError, match="has no exit gate"):
        evaluate_exits(plain, task, np.random.default_rng(0))
