"""Tasks about facts: multi-hop questions and their split, biographies and their bits."""

import itertools
import math

import pytest

from looplens.errors import InputError
from looplens.tasks import get_task
from looplens.tasks.names import made_up

SMALL = "multihop:people=5,layers=4,relations=3"


def test_hops_are_followed_from_the_person_outwards():
    task = get_task(SMALL)
    facts = {}
    for relation, person in itertools.product(("teacher", "friend", "boss"), task.words[:15]):
        (answer,) = (t for t in task.prompt(f"{relation} of {person} ?").targets if t >= 0)
        facts[relation, person] = task.words[answer]
    for prompt in task.prompts(60, seed=2):
        *relations, person = prompt.text.removesuffix(" ?").split(" of ")
        for relation in reversed(relations):
            person = facts[relation, person]
        assert task.words[prompt.targets[-1]] == person
        assert set(prompt.targets[:-1]) == {-1}
        assert prompt.token_metadata["difficulty"][-1] == len(relations)
    layers = [task.words[:20].index(name) // 5 for name in facts.values()]
    assert layers == [1 + place // 5 for _ in range(3) for place in range(15)]


def test_seen_and_unseen_questions_share_facts_only():
    seen, unseen, every = (
        {prompt.text for prompt in get_task(f"{SMALL},split={split}").prompts(4000, seed=1)}
        for split in ("seen", "unseen", "all")
    )
    assert not seen & unseen
    assert seen | unseen == every
    assert len(every) == 15 * 3 + 10 * 9 + 5 * 27
    assert len(unseen) == pytest.approx(0.2 * (10 * 9 + 5 * 27), abs=20)
    assert min(text.count("of") for text in unseen) == 2
    fewer = get_task(f"{SMALL},held_out=80,split=unseen").prompts(4000, seed=1)
    assert unseen < {prompt.text for prompt in fewer}


def test_several_questions_are_answered_one_by_one():
    task = get_task("multihop")
    one, two = (task.prompt(text) for text in ("boss of Bada ?", "friend of teacher of Bada ?"))
    both = task.prompt(f"{one.text} {two.text}")
    assert both.targets == one.targets + two.targets


@pytest.mark.parametrize(
    "text",
    [
        *("Bada ?", "of Bada ?", "boss of ?", "boss Bada ?", "boss of boss ?", "boss of Bada ? ?"),
        *("boss of Bada", "boss of " * 4 + "Bada ?"),
    ],
)
def test_malformed_questions_are_refused(text):
    with pytest.raises(InputError, match=r"not a text of task 'multihop'\. A text is questions"):
        get_task("multihop").prompt(text)


def test_knowledge_bases_that_cannot_be_are_refused():
    with pytest.raises(InputError, match=r"1 to 20 relations; got 20, 4 and 21"):
        get_task("multihop:relations=21")
    with pytest.raises(InputError, match="no unseen question of 2 hops: change held_out"):
        get_task("multihop:held_out=0,split=unseen").prompts(1, difficulty=2)
    with pytest.raises(InputError, match=r"questions of 2 to 3 hops; got \(1, 3\)"):
        get_task("multihop:split=unseen").prompts(1, difficulty=(1, 3))


def test_biographies_say_the_same_of_a_person_every_time():
    task = get_task("bios:people=30")
    prompts = task.prompts(300, seed=0)
    assert len({prompt.text for prompt in prompts}) == 30
    assert len({prompt.token_ids[1:4] for prompt in prompts}) == 30
    for prompt in prompts[:5]:
        assert prompt.targets == (*prompt.token_ids[1:], -1)
        early = task.prompt(" ".join(prompt.token_texts[:6]))
        assert early.targets == prompt.targets[:6]  # the next value follows from the name
        assert early.token_metadata["place"] == (1, 2, 3, 4, 5, 6)
    name = " ".join(prompts[0].token_texts[:3])
    assert task.prompt(name).targets[-1] == -1  # nobody can know how a name goes on
    wrong = {"she": "he", "he": "she"}[prompts[0].token_texts[4]]
    with pytest.raises(InputError, match="is not a text of task 'bios:people=30'"):
        task.prompt(" ".join((*prompts[0].token_texts[:4], wrong)))


def test_every_word_of_a_large_world_is_another():
    for space in ("small", "paper"):
        words = get_task(f"bios:people=10,space={space}").words
        assert len(set(words)) == len(words)
    assert len(set(made_up(4900))) == 4900
    with pytest.raises(InputError, match="1 to 4900 made-up names"):
        made_up(4901)


def test_stored_bits_by_hand():
    task = get_task("bios:people=100,space=paper")
    # 2 * (12 * 28 * 200) * 200 * 300 * 100 * 263 values, as in the papers.
    assert task.value_bits == pytest.approx(math.log2(2 * 12 * 28 * 200 * 200 * 300 * 100 * 263))
    assert task.value_bits == pytest.approx(47.6, abs=0.05)
    everything = 100 * (math.log2(400 * 400 * 1000 / 100) + task.value_bits)
    assert task.most_bits == pytest.approx(everything)
    guessing = math.log(400 * 400 * 1000), task.value_bits * math.log(2)
    assert task.stored_bits(*guessing) == pytest.approx(0, abs=1e-6)
    one_bit_less = task.stored_bits(math.log(100), math.log(2))
    assert everything - one_bit_less == pytest.approx(100)
    assert task.stored_bits(guessing[0] + 5, 0) == pytest.approx(100 * task.value_bits)
    with pytest.raises(InputError, match="1 to 20000 people in the space 'small'; got 20001"):
        get_task("bios:people=20001")
