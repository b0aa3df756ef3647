"""Whole trainings: resuming is exact, the result loads, the card is complete, and it learns."""

import dataclasses
import json

import numpy as np
import pytest
import torch

import looplens
from looplens.errors import InputError
from looplens.tasks import get_task
from looplens.training import RECIPES, DepthSampling, Stage, evaluate, k_by_l, train
from looplens.training.step import build_model, probe_health
from looplens.training.truncated import batch_noise, start


class Interrupted(Exception):
    pass


def interrupt_at(step):
    def callback(number, values):
        if number == step:
            raise Interrupted

    return callback


def run(recipe, out, **keywords):
    keywords = {"progress": False, "evaluation_sequences": 16, "checkpoint_every": 5} | keywords
    return train(recipe, out / "model", checkpoints=out / "checkpoints", **keywords)


def weights(result):
    return looplens.load_model(result.directory).state_dict()


def without_time(log):
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "seconds"} for line in lines]


def test_a_resumed_run_gives_the_very_same_weights(tiny, tmp_path):
    straight = run(tiny, tmp_path / "straight")
    with pytest.raises(Interrupted):
        run(tiny, tmp_path / "resumed", callback=interrupt_at(13))  # last checkpoint at 10
    stepped = []
    resumed = run(tiny, tmp_path / "resumed", callback=lambda number, _: stepped.append(number))
    assert stepped == list(range(11, 25))
    for name, value in weights(straight).items():
        assert torch.equal(value, weights(resumed)[name]), name
    assert without_time(straight.log) == without_time(resumed.log)
    assert resumed.evaluation == straight.evaluation


def test_seeds_decide_the_weights(tiny, tmp_path):
    first = run(tiny, tmp_path / "a", steps=3)
    again = run(tiny, tmp_path / "a", steps=3, resume=False)
    other = run(dataclasses.replace(tiny, seed=8), tmp_path / "b", steps=3)
    name = "core.0.attn.q_proj.weight"
    assert torch.equal(weights(first)[name], weights(again)[name])
    assert not torch.equal(weights(first)[name], weights(other)[name])


def test_a_finished_run_is_not_trained_again(tiny, tmp_path):
    first = run(tiny, tmp_path, steps=4)
    stepped = []
    second = run(tiny, tmp_path, steps=4, callback=lambda number, _: stepped.append(number))
    assert not stepped
    assert second.seconds == first.seconds
    assert second.evaluation == first.evaluation


def test_a_checkpoint_of_another_recipe_is_refused(tiny, tmp_path):
    run(tiny, tmp_path, steps=4)
    changed = dataclasses.replace(tiny, learning_rate=1e-3)
    with pytest.raises(InputError, match=r"written by another recipe than 'tiny'.*resume=False"):
        run(changed, tmp_path, steps=4)


def test_log_holds_health(tiny, tmp_path):
    lines = without_time(run(tiny, tmp_path).log)
    assert [line["step"] for line in lines] == [20, 24]
    assert {"loss", "accuracy", "iterations", "learning_rate", "gradient_norm"} <= lines[0].keys()
    health = lines[-1]["health"]
    assert -1 <= health["token_correlation"] <= 1
    assert health["loss_one_iteration"] > 0
    assert health["loss"] > 0


def test_a_line_of_the_log_that_was_cut_short_is_dropped(tiny, tmp_path):
    log = run(tiny, tmp_path).log
    whole = log.read_text()
    log.write_text(whole + whole[:20])
    run(tiny, tmp_path)
    assert log.read_text() == whole


def test_health_of_a_plain_model_is_of_one_pass_and_of_no_pads():
    recipe = k_by_l("addition:digits=1", 2, 1, d_model=16, n_heads=2)
    model, stage = build_model(recipe).eval(), recipe.curriculum[-1]
    found = probe_health(recipe, model)
    assert found["loss"] == found["loss_one_iteration"]
    batch = get_task(recipe.task).sample(
        recipe.generator("probe"), 64, length=stage.length, difficulty=stage.difficulty
    )
    lengths, alike = [], []
    for row in batch.tokens:
        text = row[row != get_task(recipe.task).vocabulary.index("_")]
        with torch.no_grad():
            state, injected = start(model, torch.from_numpy(text[None]))
            state = model.step(state, injected)[0]
        lengths += state.norm(dim=-1).tolist()
        cosines = torch.nn.functional.cosine_similarity(state[:, None], state[None], dim=-1)
        alike.append(float(cosines[~torch.eye(len(state), dtype=torch.bool)].mean()))
    assert found["state_norm"] == pytest.approx(np.mean(lengths), rel=1e-4)
    assert found["token_correlation"] == pytest.approx(np.mean(alike), abs=1e-4)


def test_model_directory_is_complete_and_the_cards_agree(tiny, tmp_path, monkeypatch):
    monkeypatch.setitem(RECIPES, "tiny", tiny)  # a recipe that the command knows
    result = run(tiny, tmp_path, steps=6)
    names = {path.name for path in result.directory.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "README.md", "card.json"} <= names
    assert not any("training" in name or "log" in name for name in names)
    model = looplens.load_model(result.directory)
    assert model.tokenizer.encode("1abca") == get_task("phop").encode("1abca").tolist()
    card = json.loads((result.directory / "card.json").read_text())
    assert card["parameters"] == sum(p.numel() for p in model.parameters())
    assert card["recommended_iterations"] == 4
    assert card["accuracy"] == result.evaluation.accuracy_at(4)
    assert (card["steps"], card["seed"], card["threads"]) == (6, 7, 1)
    assert card["torch_version"] == torch.__version__
    assert card["command"] == "looplens train tiny --out models/tiny --steps 6 --threads 1"
    assert card["evaluation"]["iterations"] == [1, 2, 4, 8, 16, 32, 64]
    text = (result.directory / "README.md").read_text()
    assert card["command"] in text
    assert f"Held-out accuracy **{card['accuracy']:.2%}** at 4 iterations" in text
    for count, accuracy in zip((1, 2, 4), result.evaluation.accuracy, strict=False):
        assert f"| {count} | {accuracy:.4f} |" in text


def test_evaluation_counts_right_answers_like_the_task_does(tiny):
    task, model = get_task("phop"), build_model(tiny)
    result = evaluate(
        model, task, np.random.default_rng(3), iterations=[3, 1], sequences=1, length=20,
        difficulty=2,
    )  # fmt: skip
    rng = np.random.default_rng(3)
    batch = task.sample(rng, 1, length=20, difficulty=2)
    noise = batch_noise(model.cfg, batch.tokens.shape, rng)
    with torch.no_grad():
        logits = model(torch.from_numpy(batch.tokens), iterations=3, initial_state=noise)
    marks = task.check(batch.tokens, logits.argmax(-1).numpy())
    assert result.iterations == (1, 3)
    assert result.difficulty == (2,)
    assert result.targets == (int((batch.targets >= 0).sum()),)
    assert result.accuracy_at(3) == pytest.approx(np.nanmean(marks))
    assert result.accuracy_by_difficulty[1][0] == result.accuracy_at(3)
    with pytest.raises(InputError, match=r"count 2 was not evaluated; there are \(1, 3\)"):
        result.accuracy_at(2)
    with pytest.raises(InputError, match="at least 1; got \\[0\\]"):
        evaluate(model, task, rng, iterations=[0])


def test_one_hop_is_learned_in_seconds(tiny, tmp_path):
    recipe = dataclasses.replace(
        tiny,
        steps=300,
        batch=32,
        warmup=20,
        learning_rate=5e-3,
        depth=DepthSampling(mean=2),
        curriculum=(Stage(share=1.0, length=12, difficulty=(1, 1)),),
    )
    result = run(recipe, tmp_path, evaluation_sequences=128, checkpoint_every=300)
    assert result.evaluation.accuracy_at(4) > 0.8  # chance is 0.25
