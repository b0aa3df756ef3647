"""Which tokens a lens follows: the target, the final prediction, and those that are asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from looplens.dynamics.readouts._lens_input import LensInput
from looplens.errors import InputError

if TYPE_CHECKING:
    from looplens.store import StoredRun

Follow = Mapping[str, int | Sequence[int]]


def follow_by_prompt(
    run: StoredRun, prompts: Sequence[int], follow: Follow
) -> Iterator[dict[str, np.ndarray]]:
    """Yield the ids to follow in each prompt: one, or one a token."""
    if not isinstance(follow, Mapping):
        raise InputError(
            f"follow must map names to token ids, such as {{'intermediate': 7}}; got {follow!r}."
        )
    lengths = [len(range(run.n_tokens)[run.token_range(prompt)]) for prompt in prompts]
    total, start = sum(lengths), 0
    for name, ids in follow.items():
        values = np.asarray(ids)
        if values.dtype.kind not in "iu" or values.shape not in ((), (total,)):
            raise InputError(
                f"follow[{name!r}] must be one token id, or {total} of them, one a position; got "
                f"{ids!r}."
            )
    for length in lengths:
        here = slice(start, start + length)
        arrays = {name: np.asarray(ids) for name, ids in follow.items()}
        yield {name: ids[here] if ids.ndim else ids for name, ids in arrays.items()}
        start += length


def followed_ids(
    run: StoredRun, given: LensInput, final: Tensor, follow: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Return the ids to follow, (token,) each, by name."""
    count, vocabulary = len(given.token_ids), final.shape[-1]
    targets = run.tokens["target"].values[given.tokens].astype(np.int64)
    # Asked of the whole run, so that all prompts follow the same.
    found = {"target": targets} if (run.tokens["target"].values >= 0).any() else {}
    said = final.argmax(-1).where(final.isfinite().all(-1), -1)  # not finite: nothing is said
    found["final"] = said.cpu().numpy()
    for name, values in follow.items():
        if name in found:
            raise InputError(f"follow={name!r} is followed already; choose another name.")
        if (values >= vocabulary).any() or (values < -1).any():
            raise InputError(
                f"follow[{name!r}] must hold ids from 0 to {vocabulary - 1}, or -1; got "
                f"{values.tolist()}."
            )
        found[name] = np.broadcast_to(values, (count,)).astype(np.int64)
    return found
