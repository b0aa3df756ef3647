from __future__ import annotations

import numpy as np
import pytest

from looplens.errors import InputError
from looplens.prompts import Prompt


def prompt(**changes):
    return Prompt(**{"token_ids": (1, 2), "text": "ab", "token_texts": ("a", "b"), **changes})


def test_arrays_become_plain_tuples():
    made = prompt(
        token_ids=np.array([1, 2]), targets=[2, -1], token_metadata={"hops": np.array([1, np.nan])}
    )
    assert made.token_ids == (1, 2)
    assert type(made.token_ids[0]) is int
    assert made.targets == (2, -1)
    assert made.token_metadata["hops"][0] == 1.0
    assert len(made) == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"token_ids": (), "token_texts": ()}, r"at least one token, but the prompt 'ab' has none"),
        ({"token_texts": ("a",)}, r"has 2 token ids but 1 entries in token_texts"),
        ({"targets": (1, 2, 3)}, r"has 2 token ids but 3 entries in targets"),
        ({"token_metadata": {"hops": (1.0,)}}, r"1 entries in token_metadata\['hops'\]"),
        ({"token_ids": (1, -2)}, r"token_ids must lie between 0 and \d+, but 'ab' has the id -2"),
        ({"targets": (1, -2)}, r"or -1 where a position has none, but 'ab' has the target -2"),
        ({"text": "\ud800"}, r"writable as UTF-8, but half of a surrogate pair"),
        ({"token_texts": ("a", 3)}, r"must be strings, but a int was given: 3"),
        ({"metadata": {"x": [1]}}, r"metadata\['x'\].*must be a string or a number, but is a list"),
    ],
)
def test_a_prompt_that_cannot_be_used_says_why(changes, message):
    with pytest.raises(InputError, match=message):
        prompt(**changes)
