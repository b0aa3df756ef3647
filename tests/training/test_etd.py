"""Training on from a plain model with a loop in its middle."""

import dataclasses

import numpy as np
import pytest
import torch

import looplens
from looplens.analysis import choose_loop_span
from looplens.errors import InputError
from looplens.models import LoopedConfig, LoopedTransformer
from looplens.models.residuals import last_token_residuals
from looplens.tasks import get_task
from looplens.training import DepthSampling, Recipe, Stage, etd_recipe, k_by_l, span_to_loop, train
from looplens.training.etd import take_over
from looplens.training.step import build_model, make_optimizer, take_step


@pytest.fixture
def plain():
    cfg = LoopedConfig(
        d_model=16, n_heads=2, d_mlp=24, d_vocab=9, n_ctx=16, n_core=5, norm="pre",
        injection="none", initial_state="embedding", coda_norm=False, embedding_scale=4.0,
        default_iterations=1,
    )  # fmt: skip
    return Recipe(
        name="plain", summary="Five layers.", task="affine", model=cfg, steps=6, batch=4, warmup=2,
        curriculum=(
            Stage(share=0.5, length=2, difficulty=(1, 2)),
            Stage(share=0.5, length=3, difficulty=(1, 3)),
        ),
        depth=DepthSampling(kind="fixed", mean=1), seed=3,
    )  # fmt: skip


def go(recipe, folder, **keywords):
    keywords = {"progress": False, "evaluation_sequences": 8, "checkpoint_every": 2} | keywords
    return train(recipe, folder / "model", checkpoints=folder / "checkpoints", **keywords)


def weights(result):
    return looplens.load_model(result.directory).state_dict()


def stop_at(step):
    def callback(number, _):
        if number == step:
            raise KeyboardInterrupt

    return callback


def test_one_pass_of_the_split_model_is_the_plain_model_and_more_passes_repeat_its_middle(plain):
    model, tokens = build_model(plain), torch.tensor([[1, 7, 2, 8, 3]])
    split = build_model(etd_recipe(plain, 1, 3, 2, steps=4))
    take_over(split, model)
    torch.testing.assert_close(split(tokens, iterations=1), model(tokens), atol=1e-5, rtol=1e-5)
    unrolled = LoopedTransformer(dataclasses.replace(plain.model, n_core=7))
    with torch.no_grad():
        for ours, theirs in zip(
            unrolled.core, [model.core[i] for i in (0, 1, 2, 1, 2, 3, 4)], strict=True
        ):
            ours.load_state_dict(theirs.state_dict())
        unrolled.embed.load_state_dict(model.embed.state_dict())
        unrolled.ln_final.load_state_dict(model.ln_final.state_dict())
        torch.testing.assert_close(split(tokens), unrolled(tokens), atol=1e-5, rtol=1e-5)


def test_the_continued_recipe_says_where_it_comes_from(plain):
    recipe = etd_recipe(plain, 2, 4, 3, steps=4, learning_rate=1e-3)
    cfg = recipe.model
    assert (cfg.n_prelude, cfg.n_core, cfg.n_coda, cfg.default_iterations) == (2, 2, 1, 3)
    assert recipe.name == "plain-2-2x3-1"
    assert (recipe.depth.mean, recipe.backprop_iterations, recipe.learning_rate) == (3, 3, 1e-3)
    assert [stage.length for stage in recipe.curriculum] == [3]
    other = dataclasses.replace(plain, seed=4)
    assert recipe.fingerprint() != dataclasses.replace(recipe, base=other).fingerprint()
    with pytest.raises(InputError, match=r"Expected 0 <= start < stop <= 5 .* start=3, stop=3"):
        etd_recipe(plain, 3, 3, 2, steps=4)
    with pytest.raises(InputError, match=r"does not train a plain model: expected all layers in"):
        etd_recipe(recipe, 0, 1, 2, steps=4)


def test_interrupted_in_the_base_or_after_it_gives_the_very_same_weights(plain, tmp_path):
    recipe = etd_recipe(plain, 1, 3, 2, steps=5)
    straight = go(recipe, tmp_path / "straight")
    base = tmp_path / "resumed" / "checkpoints" / "base"
    with pytest.raises(KeyboardInterrupt):
        go(plain, base, callback=stop_at(3))
    with pytest.raises(KeyboardInterrupt):
        go(recipe, tmp_path / "resumed", callback=stop_at(3))
    resumed = go(recipe, tmp_path / "resumed")
    given = go(recipe, tmp_path / "given", base=base / "model")
    for name, value in weights(straight).items():
        assert torch.equal(value, weights(resumed)[name]), name
        assert torch.equal(value, weights(given)[name]), name
    assert "continued from | `plain`, 6 steps" in (resumed.directory / "README.md").read_text()


def test_the_model_of_another_recipe_is_no_base(plain, tmp_path):
    other = go(dataclasses.replace(plain, seed=9), tmp_path / "other", steps=1)
    with pytest.raises(InputError, match=r"starts from 'plain' .* but .*other.model holds a model"):
        go(etd_recipe(plain, 1, 3, 2, steps=1), tmp_path, base=other.directory)


def test_weights_are_taken_over_by_layer_number(plain):
    base = build_model(plain)
    gated = build_model(
        dataclasses.replace(plain, model=dataclasses.replace(plain.model, exit_gate=True), seed=8)
    )
    fresh = gated.exit_gate.weight.clone()
    take_over(gated, base)
    assert torch.equal(gated.core[4].mlp.down_proj.weight, base.core[4].mlp.down_proj.weight)
    assert torch.equal(gated.exit_gate.weight, fresh)
    deeper = LoopedTransformer(dataclasses.replace(plain.model, n_core=6))
    with pytest.raises(InputError, match=r"has layers.5.* which the base model lacks"):
        take_over(deeper, base)
    with pytest.raises(InputError, match=r"has layers.5.*the model to train has nothing of that"):
        take_over(base, deeper)


def test_continued_training_goes_on_with_new_batches(plain):
    first = etd_recipe(plain, 1, 3, 2, steps=4)
    second = dataclasses.replace(first, name="third", base=first)
    assert (plain.first_step, first.first_step, second.first_step) == (0, 6, 10)
    seen = []
    for recipe in (plain, first, second):
        model = build_model(recipe)
        embed = model.embed.register_forward_pre_hook(
            lambda _, args: seen.append(args[0].numpy().tobytes())
        )
        optimizer = make_optimizer(model, recipe)
        for step in range(recipe.steps):
            take_step(recipe, model, optimizer, step)
        embed.remove()
    assert len(seen) == len(set(seen)) == 14


def test_the_span_is_chosen_at_the_last_token_before_the_pads():
    plain = k_by_l("addition:digits=1", 3, 1, d_model=16, n_heads=2, batch=4)
    model, stage = build_model(plain), plain.curriculum[-1]
    batch = get_task(plain.task).sample(
        plain.generator("probe"), 32, length=stage.length, difficulty=stage.difficulty
    )
    rows = [row[row != get_task(plain.task).vocabulary.index("_")] for row in batch.tokens]
    assert len({len(row) for row in rows}) > 3
    alone = last_token_residuals(model, [torch.from_numpy(row[None]) for row in rows])
    span = span_to_loop(model, plain, sequences=32)
    np.testing.assert_allclose(span.distance, choose_loop_span(alone).distance, atol=1e-5)


def test_the_span_is_chosen_from_the_task_that_was_trained(plain):
    span = span_to_loop(build_model(plain), plain, sequences=16)
    assert (span.n_layers, span.prompts) == (5, 16)
    assert np.isfinite(span.distance).all()
