"""The way between a selection and an address, for every selection and for every text."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from looplens_dashboard.selection import (
    KEYS,
    MOST_TOKENS,
    Choice,
    Limits,
    Selection,
    changed,
    read,
    texts,
)

PAGES = ("overview", "restarts")
CHOICES = {
    "dims": Choice(name="dims", label="Dimensions", options=(("2", "2-D"), ("3", "3-D"))),
    "layers": Choice(
        name="layers", label="Layers", control="several", options=(("0", "0"), ("1", "1"))
    ),
    "other": Choice(name="other", label="Other", control="number", low=0, high=40, default="7"),
    "filter": Choice(name="filter", label="Filter", control="text", longest=30),
}
LIMITS = Limits(
    run="demo",
    first_tokens=(0, 8, 11, 24),
    restarts=3,
    iterations=40,
    layers=(0, 1),
    attention_layers=(0, 1),
    heads=4,
    choices=CHOICES,
    options={name: tuple(choice.options) for name, choice in CHOICES.items()},
)
PRINTABLE = st.text(max_size=30).filter(lambda text: text.isprintable() and text == text.strip())


def opened(address: str, limits: Limits = LIMITS) -> tuple[Selection, list[str]]:
    values, notes = texts(address)
    selection, more = read(values, limits, PAGES)
    return selection, notes + more


@st.composite
def selections(draw: st.DrawFn) -> Selection:
    prompt = draw(st.integers(0, 2))
    token = draw(st.sampled_from(LIMITS.tokens_of(prompt)))
    layer = draw(st.none() | st.integers(0, 1))
    return Selection(
        page=draw(st.sampled_from(PAGES)),
        run="demo",
        prompt=prompt,
        token=token,
        also=tuple(
            draw(st.lists(st.integers(0, 23).filter(lambda n: n != token), max_size=5, unique=True))
        ),
        restart=draw(st.integers(0, 2)),
        layer=layer,
        attention_layer=1 if layer is None else layer,
        head=draw(st.none() | st.integers(0, 3)),
        iteration=draw(st.integers(0, 40)),
        theme=draw(st.sampled_from(["light", "dark"])),
        chosen={
            "dims": draw(st.sampled_from(["2", "3"])),
            "layers": draw(st.sampled_from(["", "0", "1", "0,1", "1,0"])),
            "other": str(draw(st.integers(0, 40))),
            "filter": draw(PRINTABLE),
        },
        defaults={"dims": "2", "layers": "", "other": "7", "filter": "", "also": ""},
    )


@given(selections())
def test_an_address_restores_the_selection_that_wrote_it(selection: Selection) -> None:
    assert opened(selection.address()) == (selection, [])


@given(
    st.dictionaries(
        st.sampled_from([*KEYS, *CHOICES]) | st.text(max_size=5), st.text(max_size=12), max_size=6
    )
)
def test_any_text_gives_a_valid_selection_and_a_note_if_it_was_not_used(
    values: dict[str, str],
) -> None:
    values.pop("page", None)
    selection, notes = read(values, LIMITS, PAGES)
    assert selection.token in LIMITS.tokens_of(selection.prompt)
    assert opened(selection.address()) == (selection, [])
    kept = selection.values()
    unused = [name for name in values if name not in kept]
    replaced = [
        name
        for name, text in values.items()
        if name in kept and name != "run" and _parts(text) != _parts(kept[name])
    ]
    # A token counts once where a list names it twice, or beside itself.
    assert len(unused) <= len(notes) <= len(unused) + len(replaced)


def _parts(text: str) -> list[Any]:
    """Return the numbers that a text means, so that 007 and 7 are the same."""
    parts = [part.strip() for part in text.split(",")]
    return [int(p) if p.isascii() and p.isdigit() and len(p) <= 9 else p for p in parts if p]


@given(st.text(max_size=1500))
def test_no_address_raises(query: str) -> None:
    selection, _ = opened(query)
    assert 0 <= selection.iteration <= LIMITS.iterations


@pytest.mark.parametrize(
    ("address", "note"),
    [
        ("?token=99", "token='99' cannot be shown: prompt 0 has token 0 to 7. Showing 7."),
        (
            "?prompt=1&token=2",
            "token='2' cannot be shown: prompt 1 has token 8 to 10. Showing 10.",
        ),
        ("?prompt=-1", "prompt='-1' cannot be shown: this run has prompt 0 to 2. Showing 0."),
        (
            "?iteration=1e9",
            "iteration='1e9' cannot be shown: this run has iteration 0 to 40. Showing 40.",
        ),
        ("?head=mean_", "head='mean_' cannot be shown: expected mean or 0 to 3. Showing mean."),
        ("?layer=2", "layer='2' cannot be shown: expected state or 0 to 1. Showing state."),
        ("?also=3,x", "also='3,x' cannot be shown: expected at most 11 tokens from 0 to 23."),
        ("?dims=4", "dims='4' cannot be shown: expected 2 or 3. Showing 2."),
        ("?layers=0,5", "layers='0,5' cannot be shown: expected some of 0 and 1. Showing 0."),
        ("?other=41", "other='41' cannot be shown: expected a whole number from 0 to 40."),
        ("?filter=" + "x" * 31, "expected at most 30 printable characters."),
        ("?nonsense=1", "'nonsense' is not a part of the view and was ignored."),
        ("/nowhere", "page='nowhere' cannot be shown: the pages are overview and restarts."),
        ("?x=" + "1" * 5000, "The address has 5002 characters after the '?'"),
    ],
)
def test_a_value_that_cannot_be_shown_is_named(address: str, note: str) -> None:
    _, notes = opened(address)
    assert len(notes) == 1
    assert note in notes[0]


def test_more_tokens_than_can_be_told_apart_are_cut() -> None:
    many = ",".join(str(token) for token in range(20))
    selection, notes = opened(f"?token=23&also={many}")
    assert len(selection.tokens) == MOST_TOKENS
    assert "expected at most 11 tokens" in notes[0]


def test_a_token_decides_the_prompt_and_a_prompt_its_last_token() -> None:
    assert opened("?token=9")[0].prompt == 1
    current = opened("?token=9&layer=1&dims=3")[0].values()
    moved, notes = read(changed(current, {"prompt": "2"}), LIMITS, PAGES)
    assert (moved.prompt, moved.token, moved.layer, moved["dims"], notes) == (2, 23, 1, "3", [])
    moved, notes = read(changed(current, {"token": "3"}), LIMITS, PAGES)
    assert (moved.prompt, moved.token, notes) == (0, 3, [])


def test_another_run_begins_anew_with_the_same_choices() -> None:
    current = opened("/restarts?token=9&also=3&layer=1&dims=3&iteration=7&theme=dark")[0].values()
    after = changed(current, {"run": "other"})
    assert after == {
        "page": "restarts",
        "run": "other",
        "theme": "dark",
        "dims": "3",
        "layers": "",
        "other": "7",
        "filter": "",
    }


def test_only_what_a_run_keeps_can_be_selected() -> None:
    kept = Limits(
        run="demo",
        first_tokens=(0, 2),
        restarts=1,
        iterations=40,
        kept_iterations=(8, 16, 24, 32, 40),
        layers=(1, 5),
        attention_layers=(1, 5),
        heads=2,
    )
    selection, notes = read({"iteration": "16", "layer": "5"}, kept, PAGES)
    assert (selection.iteration, selection.layer, selection.attention_layer) == (16, 5, 5)
    assert notes == []
    selection, notes = read({"iteration": "0", "layer": "2"}, kept, PAGES)
    assert (selection.iteration, selection.layer, selection.attention_layer) == (40, None, 5)
    assert "has iteration 8, 16, 24, 32 and 40. Showing 40." in " ".join(notes)
    assert "expected state or 1 and 5. Showing state." in " ".join(notes)
