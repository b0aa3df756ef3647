"""Texts of p-hop induction in which p hops exist: the chain is placed first, then the gaps filled.

In independent random letters one hop in four stays where it is (``bb``), so that long chains
mostly end early. Here every hop leads to an earlier place, and its length is spread evenly.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

ALPHABET = 4


def least_letters(hops: int) -> int:
    """Return how many letters a text needs for that many hops from its last letter."""
    return 2 * hops + 2


def draw_chain(rng: np.random.Generator, length: int, hops: int) -> NDArray[np.int64]:
    """Draw letters 0..3 so that ``hops`` hops lead back from the last one, shape (length,).

    The places ``n = i_0 > i_1 > .. > i_p`` of the chain are drawn uniformly, at least two apart.
    Hop k is from ``i_(k-1)`` to ``i_k``: the letter before ``i_k`` is that at ``i_(k-1)``, which
    occurs nowhere in between. Everything else is uniform. Neighbouring letters of the chain
    differ, so the answer to one hop is never the last letter; to more hops it may be any letter.

    Parameters
    ----------
    rng : numpy.random.Generator
        The source of randomness.
    length : int
        Letters in all, at least ``least_letters(hops)``.
    hops : int
        Hops p, at least 1.

    References
    ----------
    Saunshi et al., arXiv 2502.17416, p-hop induction: sampled so that p hops exist, by placing the
    chain and filling without breaking it.
    """
    letters = rng.integers(ALPHABET, size=length)
    # Places at least 2 apart: choose from a shorter row and stretch. All 0-based from here on.
    free = length - 1 - hops
    chosen = np.sort(rng.choice(free - 1, size=hops, replace=False)) + np.arange(hops) + 1
    places = [length - 1, *(int(place) for place in chosen[::-1])]
    letter = int(rng.integers(ALPHABET))
    letters[length - 1] = letter
    previous = letter  # the letter that hop k looks for
    for near, far in pairwise(places):
        reserved = near - 1 if near < length - 1 else near  # holds what the hop before looked for
        gap = slice(far, reserved)
        others = rng.integers(1, ALPHABET, size=reserved - far)
        letters[gap] = (previous + others) % ALPHABET
        letters[far - 1] = previous
        previous = int(letters[far])
    return letters
