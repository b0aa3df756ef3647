"""Tasks of words from training to a loaded checkpoint, and exact match over whole sequences."""

import numpy as np
import pytest
import torch

import looplens
from looplens.errors import InputError
from looplens.models import Tokenizer, word_tokenizer
from looplens.tasks import get_task
from looplens.training import Stage, evaluate, k_by_l, train
from looplens.training.step import build_model, task_tokenizer

live = pytest.importorskip("looplens_dashboard.live.models")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    recipe = k_by_l(
        "mano:modulus=5", 1, 2, d_model=16, n_heads=2, n_ctx=16, steps=2, batch=4, warmup=1,
        name="mano-tiny", curriculum=(Stage(share=1.0, length=3, difficulty=(1, 3)),),
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("words")
    train(
        recipe, folder / "mano-tiny", checkpoints=folder / "state", progress=False,
        evaluation_sequences=8,
    )  # fmt: skip
    return folder / "mano-tiny"


def test_a_word_task_comes_back_from_its_checkpoint(trained):
    model, task = looplens.load_model(trained), get_task("mano:modulus=5")
    for prompt in task.prompts(4, seed=1, length=3, difficulty=(1, 3)):
        assert model.tokenizer.encode(prompt.text) == list(prompt.token_ids)
        assert model.tokenizer.decode(prompt.token_ids) == prompt.text
    run = looplens.record(
        model, ["<bos> <len_1> + 1 2 <ans>"], out=trained.with_name("run"), iterations=2
    )
    assert run.tokens["text"].values.tolist() == [
        "<bos>", "<len_1>", "+", "1", "2", "<ans>",
    ]  # fmt: skip
    assert "35 words `0 1 2 3 4 + - *" in (trained / "README.md").read_text()


def test_the_app_knows_the_words_of_a_model(trained):
    from looplens_dashboard.live.request import LiveLimits, read_request
    from looplens_dashboard.pages.live.form import about

    found = live.find_models([trained])["mano-tiny"]
    assert found.characters == ""
    assert found.words == get_task("mano:modulus=5").vocabulary
    assert found.example(2) == found.example(2) != ""
    assert "It knows these words, with spaces between them: 0 1 2" in str(about(found))
    models, limits = {"m": found}, LiveLimits()
    asked = read_request({"model": "m", "text": found.example()}, models, limits)
    assert asked.prompts == (found.example(),)
    with pytest.raises(
        InputError, match=r"does not know the word .7.\. It knows these, with space"
    ):
        read_request({"model": "m", "text": "<bos> 7"}, models, limits)
    with pytest.raises(InputError, match="has 17 tokens; mano-tiny takes at most 16"):
        read_request({"model": "m", "text": "1 " * 17}, models, limits)


@pytest.mark.parametrize(
    ("task", "measured", "levels"),
    [
        ("multihop:people=6,relations=3", "Held-out accuracy **", [2, 3]),
        ("multihop:people=6,relations=3,split=all", "Accuracy on the training distribution **", 3),
        ("bios:people=20", "Accuracy on the training distribution **", 1),
    ],
)
def test_a_card_says_whether_its_texts_were_held_out(task, measured, levels, tmp_path):
    recipe = k_by_l(task, 1, 1, d_model=16, n_heads=2, n_ctx=16, steps=1, batch=4, name="facts")
    out = train(
        recipe, tmp_path / "facts", checkpoints=tmp_path / "state", progress=False,
        evaluation_sequences=32,
    )  # fmt: skip
    found = list(out.evaluation.difficulty)
    assert found == (levels if isinstance(levels, list) else list(range(1, levels + 1)))
    text = (out.directory / "README.md").read_text()
    assert measured in text
    assert 'load_model("facts")' in text
    assert 'looplens.training.train(recipe, "facts", threads=1)' in text
    assert "looplens train" not in text


def test_word_tokenizers_are_exact(tmp_path):
    tokenizer = word_tokenizer(["a", "b", "<c>", "+"])
    assert tokenizer.encode(" a  <c> + b") == [0, 2, 3, 1]
    with pytest.raises(InputError, match="the prompt is empty: expected at least one word"):
        tokenizer.encode("  ")
    tokenizer.save(tmp_path)
    again = Tokenizer.load(tmp_path)
    assert again.decode([2, 0]) == "<c> a"
    with pytest.raises(InputError, match="word 'ab' at place 1 of the prompt is outside the vocab"):
        again.encode("a ab")
    with pytest.raises(InputError, match="distinct words without white space, got 'b c'"):
        word_tokenizer(["a", "b c"])
    with pytest.raises(InputError, match="distinct words"):
        word_tokenizer(["a", "a"])


def test_sequence_accuracy_is_exact_match():
    recipe = k_by_l("addition:digits=1", 1, 1, d_model=16, n_heads=2)
    task, model = get_task(recipe.task), build_model(recipe)
    assert task_tokenizer(recipe.task).d_vocab == len(task.vocabulary)
    asked = {"length": 3, "difficulty": (2, 3)}
    found = evaluate(
        model, task, np.random.default_rng(0), iterations=[1, 3], sequences=64, batch=64, **asked
    )
    batch = task.sample(np.random.default_rng(0), 64, **asked)
    for iterations, share in zip((1, 3), found.sequence_accuracy, strict=True):
        with torch.no_grad():
            logits = model(torch.from_numpy(batch.tokens), iterations=iterations)
        exact = task.exact(batch.tokens, logits.argmax(-1).numpy())
        assert share == pytest.approx(exact.mean())


def test_sequence_accuracy_counts_rows_by_all_of_their_targets():
    from looplens.training.evaluate import _whole_sequences

    labelled = torch.tensor([[True, True, False], [False, True, True], [False, False, True]])
    marks = torch.tensor([True, False, True, True, False])
    assert _whole_sequences(marks, labelled).tolist() == [False, True, False]


def test_accuracy_of_moving_answers_is_that_of_the_iteration():
    recipe = k_by_l("zoo", 1, 1, d_model=16, n_heads=2, n_ctx=16)
    task, model = get_task("zoo"), build_model(recipe)
    found = evaluate(
        model, task, np.random.default_rng(0), iterations=[1, 2], sequences=16, batch=16, length=8
    )
    batch = task.sample(np.random.default_rng(0), 16, length=8)
    for iterations, accuracy in zip((1, 2), found.accuracy, strict=True):
        with torch.no_grad():
            said = model(torch.from_numpy(batch.tokens), iterations=iterations).argmax(-1).numpy()
        assert accuracy == pytest.approx((said == task.targets_at(batch, iterations)).mean())
