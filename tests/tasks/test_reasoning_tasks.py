"""Addition, Mano, groups and pointers by hand and by brute force; options; padding; streams."""

from itertools import islice

import numpy as np
import pytest

from looplens.errors import InputError
from looplens.tasks import Group, Mano, get_task
from looplens.training import k_by_l


def answers(task, text: str) -> dict[int, str]:
    """The targets of a text, as tokens, by position."""
    targets = task.prompt(text).targets
    return {place: task.vocabulary[t] for place, t in enumerate(targets) if t >= 0}


def test_addition_is_the_example_of_the_paper():
    task = get_task("addition")
    assert answers(task, "315+120+045+824=1304") == {
        15: "1", 16: "3", 17: "0", 18: "4", 19: ".",
    }  # fmt: skip
    assert answers(task, "999+001=") == {7: "1"}  # the answer need not be there yet
    assert answers(get_task("addition:reverse=true"), "999+001=000") == {
        7: "0", 8: "0", 9: "0", 10: "1",
    }  # fmt: skip
    for prompt in task.prompts(20, seed=3):
        question, answer = prompt.text.split("=")
        assert int(answer) == sum(map(int, question.split("+")))
        assert prompt.token_metadata["difficulty"][-1] == question.count("+") + 1


def test_addition_is_exact_only_when_every_digit_is():
    task = get_task("addition")
    batch = task.sample(np.random.default_rng(0), 6)
    wrong = batch.targets.copy()
    wrong[2, np.flatnonzero(batch.targets[2] >= 0)[1]] += 1
    assert task.exact(batch.tokens, wrong).tolist() == [True, True, False, True, True, True]


def evaluate_prefix(words: list[str], modulus: int) -> int:
    """Recursive descent, from the left: another way than the task's own."""
    word = words.pop(0)
    if word not in "+-*":
        return int(word)
    left, right = evaluate_prefix(words, modulus), evaluate_prefix(words, modulus)
    return {"+": left + right, "-": left - right, "*": left * right}[word] % modulus


def test_mano_trees_have_their_value_at_the_end():
    task = get_task("mano")
    assert answers(task, "<bos> <len_2> + 5 * 3 4 <ans>") == {7: "17"}
    assert answers(task, "<bos> <len_2> - - 1 2 3 <ans>") == {7: "19"}  # -4 modulo 23
    for prompt in task.prompts(60, seed=1):
        words = prompt.text.split()
        inside = words[2:-1]
        assert words[1] == f"<len_{sum(word in '+-*' for word in inside)}>"
        expected = evaluate_prefix(inside, 23)
        assert not inside
        assert prompt.targets[-1] == expected
        assert sum(t >= 0 for t in prompt.targets) == 1


def test_mano_splits_operations_evenly_between_branches():
    rng = np.random.default_rng(0)
    task = Mano()
    # Of two operations, the second is in the left branch (sign first) half of the time.
    left = [task._tree(rng, 2)[1] >= task.modulus for _ in range(2000)]
    assert np.mean(left) == pytest.approx(0.5, abs=0.05)


def test_mano_holds_out_a_fifth_of_the_longer_expressions():
    seen, unseen, every = (
        {prompt.text for prompt in get_task(f"mano:modulus=2{split}").prompts(4000, difficulty=2)}
        for split in (",split=seen", ",split=unseen", "")
    )
    assert not seen & unseen
    assert seen | unseen == every
    assert len(every) == 2 * 3**2 * 2**3  # shapes, signs, numbers
    assert len(unseen) == pytest.approx(0.2 * len(every), abs=10)
    single = get_task("mano:modulus=2,split=seen").prompts(200, difficulty=1)
    assert len({prompt.text for prompt in single}) == 3 * 2**2
    trained = get_task("mano:modulus=2,split=seen").held_out()
    drawn = trained.sample(np.random.default_rng(0), 50, difficulty=2)
    assert {trained.decode(row) for row in drawn.tokens} <= unseen
    assert get_task("mano").held_out() is get_task("mano")
    assert get_task("mano:split=unseen").held_out() is None
    with pytest.raises(InputError, match="expressions of 2 and more operations"):
        get_task("mano:split=unseen").prompts(1, difficulty=1)


@pytest.mark.parametrize(("of", "order"), [("S3", 6), ("A4", 12), ("S4", 24), ("A5", 60)])
def test_groups_are_groups(of, order):
    group = Group(of=of)
    product = group.product
    assert product.shape == (order, order)
    everything = np.arange(order)
    assert (product[0] == everything).all()  # the first element is the identity
    assert (product[:, 0] == everything).all()
    for table in (product, product.T):  # a Latin square: every element has an inverse
        assert (np.sort(table, axis=1) == everything).all()
    a, b, c = np.random.default_rng(0).integers(order, size=(3, 500))
    np.testing.assert_array_equal(product[product[a, b], c], product[a, product[b, c]])
    assert (product != product.T).any()


def test_group_products_act_from_the_left():
    task = get_task("group")
    assert answers(task, "231 213 213") == {0: "231", 1: "132", 2: "231"}
    batch = get_task("group:of=A5").sample(np.random.default_rng(0), 3000, length=6)
    shares = np.bincount(batch.targets[:, 5], minlength=60) / 3000
    assert np.abs(shares - 1 / 60).max() < 0.01  # a late product gives nothing away


def test_a_chain_writes_the_products_before_the_last():
    chain = get_task("group:chain=true")
    assert answers(chain, "231 213 213 = 231 132") == {3: "231", 4: "132", 5: "231"}
    batch = chain.sample(np.random.default_rng(0), 4, length=5)
    silent = get_task("group").label(batch.tokens[:, :5])
    assert (batch.targets[:, 5:] == silent.targets).all()
    assert batch.metadata["difficulty"][0, 5:].tolist() == [1, 2, 3, 4, 5]
    for wrong in ("231 213", "231 213 = 213", "231 = 231 213"):
        with pytest.raises(InputError, match="ending with '=' and all products but the last"):
            chain.prompt(wrong)


def test_pointers_follow_the_arrows():
    task = get_task("pointers")
    assert answers(task, "acbdcbda?2a") == {10: "b"}
    assert answers(get_task("pointers:questions=2"), "acbdcbda?2a?1d") == {10: "b", 13: "a"}
    chain = get_task("pointers:chain=true")
    assert answers(chain, "acbdcbda?3acb") == {10: "c", 11: "b", 12: "d"}
    for prompt in chain.prompts(30, seed=2):
        pairs, _, question = prompt.text.partition("?")
        goes = dict(zip(pairs[0::2], pairs[1::2], strict=True))
        way = question[1]
        for _ in range(int(question[0])):
            way += goes[way[-1]]
        assert question[1:] == way[:-1]
        assert chain.vocabulary[prompt.targets[-1]] == way[-1]
        assert len(set(way)) == len(way)  # no question leads back


def test_zoo_answers_move_with_the_iterations():
    task = get_task("zoo")
    batch = task.label(task.encode("F1 O2 S O5")[None])

    def at(iteration: int) -> list[str]:
        return [task.vocabulary[t] for t in task.targets_at(batch, iteration)[0]]

    assert at(1) == ["4", "3", "1", "0"]
    assert at(4) == ["4", "0", "4", "3"]
    assert at(30) == ["4", "2", "24", "5"]
    np.testing.assert_array_equal(task.targets_at(batch, 16), batch.targets)
    assert task.answers_move
    assert not get_task("mano").answers_move


def test_padding_is_no_part_of_a_text():
    task = get_task("mano")
    batch = task.sample(np.random.default_rng(0), 8, difficulty=(1, 4))
    sizes = {len(prompt.token_ids) for prompt in task.prompts(8, seed=0, difficulty=(1, 4))}
    assert len(sizes) == 4
    assert batch.tokens.shape[1] == max(sizes)
    pad = task.vocabulary.index("<pad>")
    assert (batch.targets[batch.tokens == pad] == -1).all()
    assert all(pad not in prompt.token_ids for prompt in task.prompts(8, seed=0))
    np.testing.assert_array_equal(task.label(batch.tokens).targets, batch.targets)
    with pytest.raises(InputError, match="but it holds '<pad>'"):
        task.encode("<bos> <len_1> + 1 1 <ans> <pad>")


def test_streams_can_be_entered_anywhere():
    task = get_task("pointers")
    all_of_them = list(islice(task.stream(5, 4, length=6), 4))
    (third,) = islice(task.stream(5, 4, length=6), 2, 3)
    np.testing.assert_array_equal(third.tokens, all_of_them[2].tokens)
    assert len({batch.tokens.tobytes() for batch in all_of_them}) == 4


@pytest.mark.parametrize("name", ["affine", "pointers", "mano"])
def test_equal_seeds_draw_other_texts_than_training_sees(name):
    task, recipe = get_task(name), k_by_l(name, 1, 1, seed=3)
    trained = {
        task.decode(row)
        for stream in ("data", "held_out", "probe")
        for step in range(4)
        for row in task.sample(recipe.generator(stream, step), 64).tokens
    }
    streamed = [row for batch in islice(task.stream(3, 64), 4) for row in batch.tokens]
    texts = [p.text for p in task.prompts(64, seed=3)] + [task.decode(row) for row in streamed]
    assert len(trained & set(texts)) < 0.1 * len(texts)


def test_going_back_against_the_arrows_of_a_cycle_is_always_longer():
    task = get_task("pointers")
    for length in (3, 8, 19):
        for prompt in task.prompts(30, seed=1, length=length):
            pairs, _, question = prompt.text.partition("?")
            comes = dict(zip(pairs[1::2], pairs[0::2], strict=True))
            back, place = 0, question[1]
            while place != task.vocabulary[prompt.targets[-1]]:
                place, back = comes[place], back + 1
            assert back == length - int(question[0]) > int(question[0])


def test_sums_of_the_paper_have_a_power_of_two_of_operands():
    task = get_task("addition:powers=true")
    batch = task.sample(np.random.default_rng(0), 64, length=32, difficulty=(2, 32))
    assert set(np.nanmax(batch.metadata["difficulty"], axis=1)) == {2, 4, 8, 16, 32}
    with pytest.raises(InputError, match="of at most 7 operands cannot have 8 of them"):
        task.sample(np.random.default_rng(0), 4, difficulty=(5, 7))


def test_a_variant_has_one_name():
    assert get_task("addition:reverse=true, digits=2").name == "addition:digits=2,reverse=true"
    assert get_task("addition:digits=3").name == "addition"
    assert get_task("group:of=S4") is get_task("group:of=S4")
    prompt = get_task("mano:modulus=7").prompts(1)[0]
    assert prompt.metadata["task"] == "mano:modulus=7"
    assert get_task(prompt.metadata["task"]).prompt(prompt.text).targets == prompt.targets


@pytest.mark.parametrize(
    ("task", "text", "message"),
    [
        ("addition", "31+120=", r"'31\+120=' is not a text of task 'addition'. A text is at least"),
        ("addition", "315=", "at least two operands of 3 digits"),
        ("addition", "315+120=436", "as much of the right answer"),
        ("mano", "<bos> <len_1> + 1 <ans>", "is not a text of task 'mano'"),
        ("mano", "<bos> <len_2> + 1 1 <ans>", "prefix expression of l operations"),
        ("mano", "<bos> <len_1> + 1 23 <ans>", r"words with spaces .* but it holds '23'"),
        ("group", "231 21", "but it holds '21'"),
        ("pointers", "acca?3b", "is not a text of task 'pointers'"),  # no arrow leaves b
        ("pointers", "acab?1a", "one for each letter that occurs"),
        ("zoo", "F1 3", r"'F1 3' is not a text of task 'zoo'. A text is words F0\.\.F5"),
    ],
)
def test_texts_that_are_none_are_explained(task, text, message):
    with pytest.raises(InputError, match=message):
        get_task(task).prompt(text)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("addition:digit=2", r"Unknown addition option 'digit'. Did you mean 'digits'"),
        ("addition:digits", r"given as name=value; got 'digits'"),
        ("addition:digits=two", "is a whole number, such as 3; got 'two'"),
        ("addition:reverse=yes", "Unknown addition:reverse value 'yes'"),
        ("addition:digits=12", r"operands of 1\.\.9 digits; got 12"),
        ("group:of=S9", r"Unknown group 'S9'"),
        ("affine:modulus=3", "Task 'affine' has no options"),
        ("zoo:period=1", r"period of 2\.\.12"),
        ("pointers:questions=2,chain=true", "exactly 1 with chain=true"),
    ],
)
def test_options_that_are_none_are_explained(name, message):
    with pytest.raises(InputError, match=message):
        get_task(name)


def test_sizes_that_cannot_be_are_explained():
    rng = np.random.default_rng(0)
    with pytest.raises(InputError, match="sum of at most 3 operands cannot have 4"):
        get_task("addition").sample(rng, 2, length=3, difficulty=(4, 6))
    with pytest.raises(InputError, match="at most 24 operations; got 25"):
        get_task("mano").sample(rng, 2, length=30, difficulty=25)
    with pytest.raises(InputError, match=r"at least 2 \* steps \+ 1; got length=4"):
        get_task("pointers").sample(rng, 2, length=4, difficulty=5)
    with pytest.raises(InputError, match="sequence of 4 elements has difficulty 6"):
        get_task("group").sample(rng, 2, length=4, difficulty=6)
