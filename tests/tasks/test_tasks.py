"""The generators: exact labels by brute force, seeds, difficulty, texts and error messages."""

import subprocess
import sys

import numpy as np
import pytest

from looplens.errors import InputError
from looplens.tasks import TASKS, get_task

PHOP, AFFINE = get_task("phop"), get_task("affine")


def brute_force_hop(letters: str, hops: int, i: int) -> str | None:
    """The definition of the paper, 1-based and literal."""
    v = " " + letters
    for _ in range(hops):
        i = max([0, *(j for j in range(2, i + 1) if v[j - 1] == v[i])]) if i else 0
    return v[i] if i else None


def brute_force_affine(text: str, position: int) -> int | None:
    if position == 0 or position % 2:
        return None
    value = int(text[0])
    for place in range(1, position, 2):
        digit = int(text[place + 1])
        value = value + digit if text[place] == "+" else value * digit
    return value % 7


def test_phop_targets_follow_the_definition():
    batch = PHOP.sample(np.random.default_rng(3), 24)
    assert batch.tokens.shape == (24, 49)
    for tokens, targets, level in zip(
        batch.tokens, batch.targets, batch.metadata["difficulty"], strict=True
    ):
        text = PHOP.decode(tokens)
        hops, letters = int(text[0]), text[1:]
        expected = [None, *(brute_force_hop(letters, hops, i) for i in range(1, 49))]
        assert [PHOP.characters[t] if t >= 0 else None for t in targets] == expected
        np.testing.assert_array_equal(level, np.where(targets >= 0, hops, np.nan))


def test_phop_by_hand():
    (_, *targets) = PHOP.prompt("1abcadbb").targets
    read = "".join(PHOP.characters[t] if t >= 0 else "." for t in targets)
    assert read == "...b.cb"  # after the earlier a: b; after the earlier b: c; bb: b itself


def test_phop_spreads_hops_evenly():
    batch = PHOP.sample(np.random.default_rng(0), 80, difficulty=(3, 6))
    _, counts = np.unique(batch.tokens[:, 0] + 1, return_counts=True)
    assert counts.tolist() == [20, 20, 20, 20]
    fixed = PHOP.sample(np.random.default_rng(0), 9, difficulty=5)
    assert (fixed.tokens[:, 0] == 4).all()


def test_affine_targets_are_the_running_value():
    batch = AFFINE.sample(np.random.default_rng(5), 40)
    assert batch.tokens.shape == (40, 21)
    for tokens, targets in zip(batch.tokens, batch.targets, strict=True):
        text = AFFINE.decode(tokens)
        expected = [brute_force_affine(text, i) for i in range(21)]
        assert [t if t >= 0 else None for t in targets] == expected
        assert "*0" not in text
    np.testing.assert_array_equal(batch.metadata["difficulty"][:, 2::2], [range(1, 11)] * 40)


def test_affine_answers_do_not_give_themselves_away():
    targets = AFFINE.sample(np.random.default_rng(1), 4000).targets[:, 2::2]
    shares = np.stack([(targets == value).mean(axis=0) for value in range(7)])
    assert np.abs(shares - 1 / 7).max() < 0.03


@pytest.mark.parametrize("name", sorted(TASKS))
def test_seeds_reproduce_and_differ(name):
    task = TASKS[name]
    first, again, other = (task.sample(np.random.default_rng(s), 6) for s in (1, 1, 2))
    np.testing.assert_array_equal(first.tokens, again.tokens)
    np.testing.assert_array_equal(first.targets, again.targets)
    assert not np.array_equal(first.tokens, other.tokens)
    assert [p.text for p in task.prompts(3, seed=4)] == [p.text for p in task.prompts(3, seed=4)]


@pytest.mark.parametrize("name", sorted(TASKS))
def test_difficulty_restricts_the_targets(name):
    low, high = TASKS[name].difficulty_range
    low = min(max(low, 2), high)
    high = min(low + 1, high)
    batch = TASKS[name].sample(np.random.default_rng(0), 30, difficulty=(low, high))
    level = batch.metadata["difficulty"]
    assert set(np.unique(level[~np.isnan(level)])) == {low, high}
    np.testing.assert_array_equal(np.isnan(level), batch.targets == -1)


@pytest.mark.parametrize("name", sorted(TASKS))
def test_prompts_are_readable_and_checked_exactly(name):
    task = TASKS[name]
    for prompt in task.prompts(4, seed=2):
        between = "" if task.characters else " "
        assert between.join(prompt.token_texts) == prompt.text == task.decode(prompt.token_ids)
        assert task.encode(prompt.text).tolist() == list(prompt.token_ids)
        assert task.prompt(prompt.text).targets == prompt.targets
        assert prompt.metadata["task"] == name
        targets = np.array([prompt.targets])
        predictions = targets.copy()
        assert np.nanmean(task.check([prompt.token_ids], predictions)) == 1.0
        last = int(np.flatnonzero(targets[0] >= 0)[-1])
        predictions[0, last] += 1
        marks = task.check([prompt.token_ids], predictions)[0]
        assert marks[last] == 0.0
        np.testing.assert_array_equal(np.isnan(marks), targets[0] == -1)


@pytest.mark.parametrize(
    ("task", "text", "message"),
    [
        ("phop", "3abxe", r"made of the characters '12345678abcd', but it holds 'e', 'x'"),
        ("phop", "", r"but it is empty. A text is one digit 1..8"),
        ("phop", "abca", r"'abca' is not a text of task 'phop'. A text is one digit 1..8"),
        ("phop", "3", r"'3' is not a text of task 'phop'"),
        ("affine", "3+4*", r"'3\+4\*' is not a text of task 'affine'. A text is a digit 0..6"),
        ("affine", "3", r"at least one operation"),
        ("affine", "34+", r"'34\+' is not a text"),
        ("affine", "3+7", r"but it holds '7'"),
    ],
)
def test_malformed_texts_are_explained(task, text, message):
    with pytest.raises(InputError, match=message):
        get_task(task).prompt(text)


def test_bad_arguments_are_explained():
    rng = np.random.default_rng(0)
    with pytest.raises(InputError, match=r"Unknown task 'p-hop'\. Did you mean 'phop'"):
        get_task("p-hop")
    with pytest.raises(InputError, match="at least 1 letters; got batch=2, length=0"):
        PHOP.sample(rng, 2, length=0)
    with pytest.raises(InputError, match="at most 8 hops; got 9"):
        PHOP.sample(rng, 2, difficulty=9)
    with pytest.raises(InputError, match=r"counts hops from 1 up .* got \(0, 3\)"):
        PHOP.sample(rng, 2, difficulty=(0, 3))
    with pytest.raises(InputError, match=r"No position .* 4 operations has difficulty 6"):
        AFFINE.sample(rng, 2, length=4, difficulty=6)
    with pytest.raises(InputError, match=r"token ids 0\.\.11; saw 0\.\.12"):
        PHOP.label([[0, 12]])
    with pytest.raises(InputError, match=r"one prediction a token, shape \(1, 3\); got \(1, 2\)"):
        AFFINE.check([[1, 7, 2]], [[0, 0]])


def test_tasks_need_no_torch():
    code = "import sys, looplens.tasks; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
