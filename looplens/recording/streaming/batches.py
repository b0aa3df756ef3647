"""Which prompts run together in a forward, and for which block.

The answer depends on the run alone and never on who asks: a block is computed in the same batches
by whichever process records it, first or after an interruption, so that its bytes are the same. A
prompt that crosses the edge of a block runs alone, because both sides need it. This module knows
numbers only.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

from looplens.store.format.blocks import BlockPrompts


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """Prompts of one length that share a forward.

    Attributes
    ----------
    prompts : tuple of int
        Their indices.
    attention : bool
        Whether attention patterns of these prompts are kept. It decides how the model computes
        attention, so it holds even where another block has the patterns.
    blocks : tuple of int
        Blocks to record that the prompts have tokens in.
    """

    prompts: tuple[int, ...]
    attention: bool
    blocks: tuple[int, ...]


def batches(
    parts: Sequence[BlockPrompts],
    todo: Sequence[int],
    lengths: Sequence[int],
    attention: Collection[int],
    fitting: Callable[[int, bool], int],
) -> Iterator[tuple[int, list[Batch]]]:
    """Yield each block with the forwards after which it is complete.

    Parameters
    ----------
    parts : sequence of BlockPrompts
        The prompts of every block of the run.
    todo : sequence of int
        Blocks to record, ascending.
    lengths : sequence of int
        Tokens of each prompt as the model sees them.
    attention : collection of int
        Prompts whose patterns are kept.
    fitting : callable
        How many prompts fit a forward: of (tokens, whether patterns are kept).

    Yields
    ------
    block : int
        A block of ``todo``, in order.
    forwards : list of Batch
        What has to run after the forwards of the blocks before.
    """
    ran: int | None = None  # the crossing prompt that an earlier block has seen to already
    for place, block in enumerate(todo):
        part = parts[block]

        def alone(prompt: int, place: int = place) -> Batch:
            touched = itertools.takewhile(lambda n: _touches(parts[n], prompt), todo[place:])
            return Batch(prompts=(prompt,), attention=prompt in attention, blocks=tuple(touched))

        found = []
        if part.entering is not None and part.entering != ran:
            found.append(alone(part.entering))
            ran = part.entering
        groups: dict[tuple[int, bool], list[int]] = {}
        for prompt in part.own:
            if prompt != part.crossing:
                groups.setdefault((lengths[prompt], prompt in attention), []).append(prompt)
        for (length, maps), members in groups.items():
            step = fitting(length, maps)
            found += [
                Batch(prompts=tuple(members[i : i + step]), attention=maps, blocks=(block,))
                for i in range(0, len(members), step)
            ]
        if part.crossing is not None:  # last, since it takes room in the next block's buffers
            found.append(alone(part.crossing))
            ran = part.crossing
        yield block, found


def _touches(part: BlockPrompts, prompt: int) -> bool:
    return prompt in part.own or prompt == part.entering
