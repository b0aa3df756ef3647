"""Find the tokens that two runs share, by what they are: text, id and place in the prompt."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from looplens.errors import InputError

if TYPE_CHECKING:
    from looplens.store import StoredRun

_IDENTITY = ("token_id", "text", "position")


@dataclass(frozen=True, kw_only=True, slots=True)
class Alignment:
    """The tokens that two runs share.

    Attributes
    ----------
    tokens_a, tokens_b : ndarray of int, shape (pair,)
        Global token numbers of the same token in either run; ascending in `tokens_a`.
    prompt : ndarray of int, shape (pair,)
        Which of the shared prompts the token is of, 0, 1, ...
    prompts_a, prompts_b : ndarray of int, shape (shared prompt,)
        Numbers of the shared prompts in either run.
    difference : str
        Where the runs first differ, in words; empty where all their tokens are the same.
    """

    tokens_a: NDArray[np.int_]
    tokens_b: NDArray[np.int_]
    prompt: NDArray[np.int_]
    prompts_a: NDArray[np.int_]
    prompts_b: NDArray[np.int_]
    difference: str

    def only(self, known_a: NDArray[np.bool_], known_b: NDArray[np.bool_]) -> Alignment:
        """Keep the pairs of which both tokens are known; (token,) of either run."""
        kept = known_a[self.tokens_a] & known_b[self.tokens_b]
        return dataclasses.replace(
            self,
            tokens_a=self.tokens_a[kept],
            tokens_b=self.tokens_b[kept],
            prompt=self.prompt[kept],
        )

    def thinned(self, most: int) -> Alignment:
        """Keep every n-th prompt, so that about so many tokens are left; at least one prompt.

        Raises
        ------
        InputError
            If the number is below 1.
        """
        if most < 1:
            raise InputError(f"most_tokens must be at least 1, or None for all, got {most}.")
        step = -(-len(self.prompt) // most)
        if step == 1:
            return self
        count = len(self.prompts_a)
        prompts = np.arange(step // 2 if step <= count else 0, count, step)
        kept = np.isin(self.prompt, prompts)
        return dataclasses.replace(
            self,
            tokens_a=self.tokens_a[kept],
            tokens_b=self.tokens_b[kept],
            prompt=np.searchsorted(prompts, self.prompt[kept]),
            prompts_a=self.prompts_a[prompts],
            prompts_b=self.prompts_b[prompts],
        )

    def by_row(self) -> Alignment:
        """Return the same pairs for arrays that hold these tokens alone, in this order."""
        rows = np.arange(len(self.prompt))
        return dataclasses.replace(self, tokens_a=rows, tokens_b=rows)


def align(run_a: StoredRun, run_b: StoredRun) -> Alignment:
    """Pair the tokens of two runs.

    Prompts are the same when all their recorded tokens have the same ids, texts and positions, or,
    where other tokens of a prompt were kept, when the prompts have one text and one length and the
    tokens that both kept are the same. A prompt that occurs several times is paired in order.

    Parameters
    ----------
    run_a, run_b : StoredRun
        The runs.

    Raises
    ------
    InputError
        If no token is in both; the message names the first difference.
    """
    prompts_a, prompts_b = _prompts(run_a), _prompts(run_b)
    difference = first_difference(run_a, run_b)
    if not difference:
        pairs = [(number, number) for number in range(run_a.n_prompts)]
    else:
        pairs = _same(prompts_a, prompts_b)
        left_a = set(range(run_a.n_prompts)) - {one for one, _ in pairs}
        left_b = set(range(run_b.n_prompts)) - {other for _, other in pairs}
        pairs += _overlapping(run_a, run_b, prompts_a, prompts_b, left_a, left_b)
        pairs.sort()
    tokens_a, tokens_b, prompt = [], [], []
    for number, (one, other) in enumerate(pairs):
        first_a, first_b = run_a.token_range(one).start, run_b.token_range(other).start
        places = {position: place for place, (_, _, position) in enumerate(prompts_b[other])}
        for place, (_, _, position) in enumerate(prompts_a[one]):
            if position in places:
                tokens_a.append(first_a + place)
                tokens_b.append(first_b + places[position])
                prompt.append(number)
    if not tokens_a:
        raise InputError(
            "The runs have no prompt in common, so nothing can be compared token by token. "
            f"{difference} Record both with the same prompts and the same tokenizer."
        )
    every = np.array(pairs)
    return Alignment(
        tokens_a=np.array(tokens_a),
        tokens_b=np.array(tokens_b),
        prompt=np.array(prompt),
        prompts_a=every[:, 0],
        prompts_b=every[:, 1],
        difference=difference,
    )


_Token = tuple[int, str, int]


def _prompts(run: StoredRun) -> list[list[_Token]]:
    """Return for each prompt its tokens as (id, text, position)."""
    ids, texts, positions = (run.tokens[name].values.tolist() for name in _IDENTITY)
    tokens = list(zip(ids, texts, positions, strict=True))
    return [tokens[run.token_range(prompt)] for prompt in range(run.n_prompts)]


def _same(prompts_a: list[list[_Token]], prompts_b: list[list[_Token]]) -> list[tuple[int, int]]:
    """Pair prompts with exactly the same tokens, in order."""
    waiting: dict[tuple[_Token, ...], list[int]] = defaultdict(list)
    for number, tokens in enumerate(prompts_b):
        waiting[tuple(tokens)].append(number)
    return [
        (number, waiting[tuple(tokens)].pop(0))
        for number, tokens in enumerate(prompts_a)
        if waiting.get(tuple(tokens))
    ]


def _overlapping(
    run_a: StoredRun,
    run_b: StoredRun,
    prompts_a: list[list[_Token]],
    prompts_b: list[list[_Token]],
    left_a: set[int],
    left_b: set[int],
) -> list[tuple[int, int]]:
    """Pair prompts of one text and length of which different tokens were kept."""
    waiting: dict[tuple[str, int], list[int]] = defaultdict(list)
    for number in sorted(left_b):
        waiting[text_and_length(run_b, number)].append(number)
    pairs = []
    for number in sorted(left_a):
        at = {position: (token, text) for token, text, position in prompts_a[number]}
        for other in waiting.get(text_and_length(run_a, number), []):
            shared = [
                at[position] == (token, text)
                for token, text, position in prompts_b[other]
                if position in at
            ]
            if shared and all(shared):
                pairs.append((number, other))
                waiting[text_and_length(run_a, number)].remove(other)
                break
    return pairs


def text_and_length(run: StoredRun, prompt: int) -> tuple[str, int]:
    """Return what a prompt is known by where other tokens of it were kept."""
    table = run.prompts
    return str(table["text"].values[prompt]), int(table["length"].values[prompt])


def first_difference(run_a: StoredRun, run_b: StoredRun) -> str:
    """Say where the tokens of two runs first differ; an empty text where they are the same."""
    prompts_a, prompts_b = _prompts(run_a), _prompts(run_b)
    for number, (one, other) in enumerate(zip(prompts_a, prompts_b, strict=False)):
        for (id_a, text_a, at_a), (id_b, text_b, at_b) in zip(one, other, strict=False):
            if (id_a, text_a, at_a) != (id_b, text_b, at_b):
                where = f"position {at_a}" if at_a == at_b else f"position {at_a} against {at_b}"
                return (
                    f"They first differ in prompt {number}, {where}: token {id_a} ({text_a!r}) "
                    f"against {id_b} ({text_b!r})."
                )
        if len(one) != len(other):
            return (
                f"They first differ in prompt {number}, of which {len(one)} tokens are recorded "
                f"against {len(other)}."
            )
    if len(prompts_a) != len(prompts_b):
        return f"One has {len(prompts_a)} prompts, the other {len(prompts_b)}."
    return ""
