"""p-hop as in the paper: one answer, at the last letter, behind a chain of proper hops."""

import numpy as np
import pytest

from looplens.errors import InputError
from looplens.tasks import get_task
from looplens.tasks.phop import find_hop
from looplens.tasks.phop_chain import draw_chain


@pytest.mark.parametrize(("hops", "length"), [(1, 4), (3, 8), (8, 40), (32, 256)])
def test_every_hop_leads_further_back(hops, length):
    rng = np.random.default_rng(hops)
    letters = np.stack([draw_chain(rng, length, hops) for _ in range(200)])
    places = [np.full(200, length - 1)]
    for hop in range(1, hops + 1):
        places.append(find_hop(letters, np.full(200, hop))[:, -1])
        assert (places[-1] < places[-2]).all()
    assert (places[-1] >= 1).all()
    answers = np.bincount(np.take_along_axis(letters, places[-1][:, None], axis=1)[:, 0])
    assert answers.min() > 25  # 50 expected of each letter
    if length == 40:  # hops are spread over the text, not crowded at its end
        assert np.mean(places[-1]) < 0.2 * length


def test_only_the_last_letter_has_a_target():
    task = get_task("phop:last=true,hops=32")
    batch = task.sample(np.random.default_rng(0), 64, length=80, difficulty=(1, 32))
    assert (batch.targets[:, -1] >= 32).all()
    assert (batch.targets[:, :-1] == -1).all()
    assert set(batch.metadata["difficulty"][:, -1]) == set(map(float, range(1, 33)))
    first = task.prompts(1, seed=0, difficulty=16)[0].text
    assert (first[0], len(first)) == ("G", 257)
    plain = get_task("phop").prompt("2abcadbca")
    last = get_task("phop:last=true").prompt("2abcadbca")
    assert last.targets[-1] == plain.targets[-1]


def test_texts_without_a_chain_have_no_target():
    assert get_task("phop:last=true").prompt("2abcd").targets == (-1,) * 5


def test_too_short_texts_are_explained():
    rng = np.random.default_rng(0)
    with pytest.raises(InputError, match="8 hops from the last letter need 18 letters; got leng"):
        get_task("phop:last=true").sample(rng, 2, length=12)
    with pytest.raises(InputError, match="1 to 32 hops; got hops=33"):
        get_task("phop:hops=33")
