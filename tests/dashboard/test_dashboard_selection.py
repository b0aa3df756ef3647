"""The way between a selection and an address, for every selection and for every text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from looplens_dashboard.selection import KEYS, Limits, Selection, change, parse, read

LIMITS = Limits(
    first_tokens=(0, 8, 11, 24),
    restarts=3,
    iterations=40,
    state_layers=(0, 1),
    attention_layers=(0, 1),
    heads=4,
    figures=("geometry", "stages"),
)


@st.composite
def selections(draw: st.DrawFn) -> Selection:
    prompt = draw(st.integers(0, 2))
    return Selection(
        prompt=prompt,
        token=draw(st.sampled_from(LIMITS.tokens_of(prompt))),
        restart=draw(st.integers(0, 2)),
        layer=draw(st.none() | st.integers(0, 1)),
        attention_layer=draw(st.integers(0, 1)),
        head=draw(st.none() | st.integers(0, 3)),
        iteration=draw(st.integers(0, 40)),
        colour=draw(st.sampled_from(["regime", "settling"])),
        dims=draw(st.sampled_from([2, 3])),
        theme=draw(st.sampled_from(["light", "dark"])),
        figure=draw(st.sampled_from(LIMITS.figures)),
    )


@given(selections())
def test_an_address_restores_the_selection_that_wrote_it(selection: Selection) -> None:
    assert parse(selection.query(), LIMITS) == (selection, [])


@given(st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=5), st.text(max_size=12)))
def test_any_text_gives_a_valid_selection_and_a_note_if_it_was_not_used(
    values: dict[str, str],
) -> None:
    selection, notes = read(values, LIMITS)
    assert selection.token in LIMITS.tokens_of(selection.prompt)
    assert parse(selection.query(), LIMITS) == (selection, [])
    used = {**selection.values(), **{name: text.strip() for name, text in values.items()}}
    replaced = [
        name
        for name in values
        if name not in KEYS or _number(used[name]) != _number(selection.values()[name])
    ]
    assert len(notes) == len(replaced)


def _number(text: str) -> int | str:
    """Return the number that a text means, so that 007 and 7 are the same."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 9 else text


@given(st.text(max_size=1500))
def test_no_query_string_raises(query: str) -> None:
    selection, _ = parse(query, LIMITS)
    assert 0 <= selection.iteration <= LIMITS.iterations


@pytest.mark.parametrize(
    ("query", "note"),
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
        ("?dims=4", "dims='4' cannot be shown: expected 2 or 3. Showing 2."),
        ("?zoom=1", "'zoom' is not a part of the view and was ignored."),
        ("?x=" + "1" * 2000, "The address has 2002 characters after the '?'"),
    ],
)
def test_a_value_that_cannot_be_shown_is_named(query: str, note: str) -> None:
    _, notes = parse(query, LIMITS)
    assert len(notes) == 1
    assert notes[0].startswith(note)


def test_a_token_decides_the_prompt_and_a_prompt_its_last_token() -> None:
    assert parse("?token=9", LIMITS)[0].prompt == 1
    current = parse("?token=9&layer=1&dims=3", LIMITS)[0].values()
    moved, notes = change(current, {"prompt": "2"}, LIMITS)
    assert (moved.prompt, moved.token, moved.layer, moved.dims, notes) == (2, 23, 1, 3, [])
    moved, notes = change(current, {"token": "3"}, LIMITS)
    assert (moved.prompt, moved.token, notes) == (0, 3, [])


def test_only_what_a_run_keeps_can_be_selected() -> None:
    kept = Limits(
        first_tokens=(0, 2),
        restarts=1,
        iterations=40,
        kept_iterations=(8, 16, 24, 32, 40),
        state_layers=(1, 5),
        attention_layers=(1, 5),
        heads=2,
    )
    selection, notes = read({"iteration": "16", "layer": "5"}, kept)
    assert (selection.iteration, selection.layer, selection.attention_layer) == (16, 5, 1)
    assert notes == []
    selection, notes = read({"iteration": "0", "layer": "2", "attention_layer": "0"}, kept)
    assert (selection.iteration, selection.layer, selection.attention_layer) == (40, None, 1)
    assert "has iteration 8, 16, 24, 32, 40. Showing 40." in " ".join(notes)
    assert "expected state or 1, 5. Showing state." in " ".join(notes)
