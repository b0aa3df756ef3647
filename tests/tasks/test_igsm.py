"""i-GSM: solved by hand and by brute force, in symbols and in words."""

import numpy as np
import pytest

from looplens.errors import InputError
from looplens.tasks import get_task

IGSM, WORDS = get_task("igsm"), get_task("igsm:style=words")


def answers(task, text):
    prompt = task.prompt(text)
    return [
        (task.words[target], level, needed)
        for target, level, needed in zip(
            prompt.targets,
            prompt.token_metadata["difficulty"],
            prompt.token_metadata["definitions"],
            strict=True,
        )
        if target >= 0
    ]


def brute_force(text):
    """Evaluate the definitions as Python, again and again until nothing changes."""
    *definitions, question = text.removesuffix(" ?").split(" . ")
    names = {}
    for _ in definitions:
        for entry in definitions:
            name, value = entry.replace("#", "_").split(" := ")
            try:
                names[name] = eval(value, {}, names)
            except NameError:
                continue
    return names[question.replace("#", "_")] % 7


def test_by_hand():
    text = "E#I := 4 . E#J := E#I - 2 * K#M + A#F . K#M := 5 . A#F := 3 . F#J := K#M . E#J ? F#J ?"
    # 4 - 10 + 3 = -3 = 4 modulo 7, from three constants; F#J copies one constant.
    assert answers(IGSM, text) == [("4", 2.0, 4.0), ("5", 2.0, 2.0)]
    told = (
        "The number of each Studio 's Satchel equals 2 times each Basket 's Ruler . "
        "The number of each Basket 's Ruler equals 6 . How many Satchel does each Studio have ?"
    )
    assert answers(WORDS, told) == [("5", 2.0, 2.0)]
    assert IGSM.prompt("E#I := 4 . E#I ?").targets == (-1, -1, -1, -1, -1, 4)


def test_samples_are_solved_exactly():
    for prompt in IGSM.prompts(60, seed=3):
        (target,) = (target for target in prompt.targets if target >= 0)
        assert prompt.token_texts[-1] == "?"
        assert target == prompt.targets[-1] == brute_force(prompt.text)


def test_steps_are_drawn_as_asked():
    batch = IGSM.sample(np.random.default_rng(0), 40, length=10, difficulty=(2, 5))
    asked = batch.targets >= 0
    assert asked.sum() == 40
    _, counts = np.unique(batch.metadata["difficulty"][asked], return_counts=True)
    assert counts.tolist() == [10, 10, 10, 10]
    assert (batch.metadata["definitions"] >= batch.metadata["difficulty"])[asked].all()
    several = get_task("igsm:questions=4").sample(np.random.default_rng(0), 200, difficulty=(3, 3))
    assert set(several.metadata["difficulty"][several.targets >= 0]) == {3.0}
    shares = np.bincount(several.targets[several.targets >= 0], minlength=7)
    assert len(shares) == 7
    assert shares.min() > 0.1 * shares.sum()


def test_definitions_come_first_unless_shuffled():
    def forward_references(task):
        found = 0
        for prompt in task.prompts(30, seed=1, difficulty=4):
            known = set()
            for entry in prompt.text.split(" . ")[:-1]:
                name, value = entry.split(" := ")
                found += sum("#" in word and word not in known for word in value.split())
                known.add(name)
        return found

    assert forward_references(get_task("igsm:shuffled=false")) == 0
    assert forward_references(IGSM) > 30


def test_both_styles_tell_the_same_problems():
    symbols, words = (task.sample(np.random.default_rng(7), 20) for task in (IGSM, WORDS))
    for a, b in zip(symbols.targets, words.targets, strict=True):
        assert a[a >= 0].tolist() == b[b >= 0].tolist()
    assert IGSM.words[:7] == WORDS.words[:7] == tuple("0123456")


@pytest.mark.parametrize(
    "text",
    [
        "E#I := E#J . E#J := E#I . E#I ?",  # a circle
        "E#I := 4 . E#J ?",  # never defined
        "E#I := 4 + E#J . E#J := 1 . E#I ?",  # constants stand alone
        "E#I := 4 . E#I := 4 . E#I ?",
        "E#I := 4 .",
        "E#I ? E#I := 4 .",
        "E#I := 0 * E#J . E#J := 1 . E#I ?",
        "E#I := E#J + . E#J := 1 . E#I ?",
        "E#I := . E#I ?",
    ],
)
def test_malformed_problems_are_refused(text):
    with pytest.raises(InputError, match=r"is not a text of task 'igsm'\. A text defines each"):
        IGSM.prompt(text)


def test_bad_arguments_are_explained():
    rng = np.random.default_rng(0)
    with pytest.raises(InputError, match=r"3 definitions with 4 steps .* length=4\.\.48"):
        IGSM.sample(rng, 2, length=3, difficulty=(1, 4))
    with pytest.raises(InputError, match="Unknown igsm style 'prose'"):
        get_task("igsm:style=prose")
    with pytest.raises(InputError, match="at least 1 question; got questions=0"):
        get_task("igsm:questions=0")
    assert (IGSM.sample(rng, 4, length=1).targets >= 0).sum() == 4
