"""Tokens in, blocks out: for who has a run's numbers in order, and not by block.

Holds the tokens of a block until that is whole, and longer where attention patterns of its prompts
are still to come. The recorder knows blocks and does without.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from looplens.errors import InputError, near_matches
from looplens.store.format.layout import Layout
from looplens.store.format.schema import VariableSpec
from looplens.store.writing.column import shape_message

Commit = Callable[[int, Mapping[str, np.ndarray], Mapping[int, np.ndarray]], None]


class BlockSequence:
    """Collects tokens that arrive in order, and hands over each block once it is whole.

    Parameters
    ----------
    layout : Layout
        Sizes of the run.
    patterns_of : list of frozenset of int
        For each block, the prompts whose attention patterns belong to it.
    commit : callable
        Takes the number of a block, its arrays and its patterns.
    """

    def __init__(self, layout: Layout, patterns_of: list[frozenset[int]], commit: Commit) -> None:
        self.layout = layout
        self.position = 0  # tokens received
        variables = layout.variables()
        self._variables = {k: v for k, v in variables.items() if v.token_axis is not None}
        self._of_patterns = {
            i: variables[f"attention/{i}/pattern"] for i in layout.attention_lengths
        }
        self._patterns_of = patterns_of
        self._block_of = {i: block for block, own in enumerate(patterns_of) for i in own}
        self._commit = commit
        self._arrays: dict[int, dict[str, np.ndarray]] = {}
        self._patterns: dict[int, np.ndarray] = {}
        self._seen: set[int] = set()

    def write(self, start: int, stop: int, arrays: Mapping[str, np.ndarray]) -> None:
        """Take tokens ``start:stop``; see `RunWriter.write`."""
        self._check(start, stop, arrays)
        length = self.layout.block_tokens
        for block in range(start // length, (stop - 1) // length + 1):
            first, last = block * length, min((block + 1) * length, self.layout.n_tokens)
            low, high = max(start, first), min(stop, last)
            if (low, high) == (first, last) and self._patterns_of[block] <= self._patterns.keys():
                # All of a block, and nothing to wait for: no copy.
                parts = {
                    key: _tokens(array, self._variables[key], low - start, high - start)
                    for key, array in arrays.items()
                }
                self._hand_over(block, parts)
            else:
                self._collect(block, first, last, slice(low, high), start, arrays)
            self.position = high
            if high == last:
                self._hand_over_if_whole(block)

    def write_pattern(self, prompt: int, pattern: np.ndarray) -> None:
        """Take the attention patterns of a prompt; see `RunWriter.write_attention`."""
        if prompt not in self._of_patterns:
            raise InputError(
                f"Attention of prompt {prompt} was not declared; attention_prompts is "
                f"{tuple(self._of_patterns)}."
            )
        if prompt in self._seen:
            raise InputError(f"Attention of prompt {prompt} was written already.")
        variable = self._of_patterns[prompt]
        if pattern.shape != variable.shape:
            raise InputError(shape_message(variable, variable.shape, pattern.shape))
        self._seen.add(prompt)
        self._patterns[prompt] = np.array(pattern)
        self._hand_over_if_whole(self._block_of[prompt])

    def missing(self) -> list[str]:
        """Say what never arrived."""
        short = []
        if self.position < self.layout.n_tokens:
            short.append(f"{self.position} of {self.layout.n_tokens} tokens were written")
        absent = sorted(set(self._of_patterns) - self._seen)
        return short + [f"attention/{prompt}/pattern is missing" for prompt in absent]

    def _collect(
        self,
        block: int,
        first: int,
        last: int,
        tokens: slice,
        start: int,
        arrays: Mapping[str, np.ndarray],
    ) -> None:
        """Copy tokens into the buffers of a block."""
        if block not in self._arrays:
            self._arrays[block] = {
                key: np.empty(_with_tokens(variable, last - first), dtype=arrays[key].dtype)
                for key, variable in self._variables.items()
            }
        for key, buffer in self._arrays[block].items():
            variable = self._variables[key]
            if not np.can_cast(arrays[key].dtype, buffer.dtype, "same_kind"):
                buffer = self._arrays[block][key] = buffer.astype(arrays[key].dtype)
            part = _tokens(arrays[key], variable, tokens.start - start, tokens.stop - start)
            _tokens(buffer, variable, tokens.start - first, tokens.stop - first)[...] = part

    def _hand_over_if_whole(self, block: int) -> None:
        last = min((block + 1) * self.layout.block_tokens, self.layout.n_tokens)
        if (
            block in self._arrays
            and self.position >= last
            and self._patterns_of[block] <= self._patterns.keys()
        ):
            self._hand_over(block, self._arrays.pop(block))

    def _hand_over(self, block: int, arrays: Mapping[str, np.ndarray]) -> None:
        self._commit(block, arrays, {i: self._patterns.pop(i) for i in self._patterns_of[block]})

    def _check(self, start: int, stop: int, arrays: Mapping[str, np.ndarray]) -> None:
        check_keys(arrays, self._variables)
        if start != self.position or stop <= start:
            raise InputError(
                f"Tokens must arrive in order: the next one is {self.position}, but {start}:{stop} "
                "was given."
            )
        if stop > self.layout.n_tokens:
            raise InputError(
                f"The run has {self.layout.n_tokens} tokens, but {start}:{stop} was given."
            )
        check_shapes(arrays, self._variables, stop - start)


def check_keys(arrays: Mapping[str, np.ndarray], variables: Mapping[str, VariableSpec]) -> None:
    """Check that all arrays with an axis of tokens are given, and no others."""
    known = ", ".join(variables)
    for key in arrays:
        if key not in variables:
            raise InputError(
                f"This run has no array {key!r}; it was declared with {known}."
                + near_matches(key, variables)
            )
    missing = [key for key in variables if key not in arrays]
    if missing:
        raise InputError(
            f"All arrays of the run are written together ({known}), but {', '.join(missing)} "
            "is not given."
        )


def check_shapes(
    arrays: Mapping[str, np.ndarray], variables: Mapping[str, VariableSpec], count: int
) -> None:
    """Check that arrays hold ``count`` tokens, and are whole along every other axis."""
    for key, array in arrays.items():
        expected = _with_tokens(variables[key], count)
        if array.shape != expected:
            raise InputError(shape_message(variables[key], expected, array.shape))


def _with_tokens(variable: VariableSpec, count: int) -> tuple[int, ...]:
    pairs = zip(variable.dims, variable.shape, strict=True)
    return tuple(count if dim == "token" else size for dim, size in pairs)


def _tokens(array: np.ndarray, variable: VariableSpec, start: int, stop: int) -> np.ndarray:
    axis = variable.token_axis or 0
    return array[(slice(None),) * axis + (slice(start, stop),)]
