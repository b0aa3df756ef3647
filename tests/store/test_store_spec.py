from __future__ import annotations

import pytest
from store_help import make_prompts, make_spec

from looplens.errors import InputError, SiteError
from looplens.prompts import Prompt


def test_sizes_are_exact():
    sizes = make_spec().nbytes()
    restarts, tokens, layers, iterations, d_model = 2, 21, 2, 4, 6
    assert sizes["loop/state"] == restarts * tokens * (iterations + 1) * d_model * 4
    assert sizes["states/resid_post"] == restarts * tokens * layers * iterations * d_model * 4
    assert sizes["states/k"] == restarts * tokens * layers * iterations * 2 * 3 * 4
    assert sizes["attention/2/pattern"] == restarts * layers * iterations * 4 * 7 * 7 * 4
    assert sizes["readout/topk_ids"] == restarts * tokens * iterations * 3 * 4
    assert make_spec(dtype="float16").nbytes()["loop/state"] * 2 == sizes["loop/state"]


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        (
            {"sites": ("resid_pots",)},
            SiteError,
            r"no site family 'resid_pots'.*Did you mean",
        ),
        ({"sites": ("pattern",)}, SiteError, r"patterns are chosen with attention_prompts"),
        ({"sites": ("k", "k")}, SiteError, r"names a family twice"),
        ({"d_head": None}, InputError, r"sites q, k, v and z need n_heads and d_head"),
        (
            {"attention_prompts": (9,)},
            InputError,
            r"prompt 9, but the 4 prompts are counted",
        ),
        ({"iterations": 0}, InputError, r"iterations must be at least 1, but is 0"),
        ({"restart_seeds": (1,)}, InputError, r"each of the 2 restarts, but has 1"),
        ({"dtype": "float61"}, InputError, r"one of float32, float16, but is 'float61'. Did you"),
        ({"prompts": []}, InputError, r"at least one prompt"),
        ({"settings": {"f": print}}, InputError, r"must be values that JSON can hold, but"),
        ({"model": {"lr": float("nan")}}, InputError, r"must be values that JSON can hold, but"),
    ],
)
def test_a_spec_that_cannot_be_recorded_says_why(changes, kind, message):
    with pytest.raises(kind, match=message):
        make_spec(**changes)


def test_metadata_cannot_take_the_name_of_a_column():
    taken = Prompt(token_ids=(1,), text="a", token_texts=("a",), token_metadata={"target": (1.0,)})
    with pytest.raises(InputError, match=r"token_metadata cannot have a column 'target'"):
        make_spec(prompts=[*make_prompts(), taken])
    spaced = Prompt(token_ids=(1,), text="a", token_texts=("a",), metadata={"a/b": 1})
    with pytest.raises(InputError, match=r"named like Python variables, but one is 'a/b'"):
        make_spec(prompts=[*make_prompts(), spaced])
