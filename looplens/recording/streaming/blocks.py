"""Record some blocks of a run: the forwards that they need, captured, handed over, written.

Memory is that of a few blocks, or of one prompt where that is larger, however many prompts there
are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Int

from looplens.recording.changing.applying import applied
from looplens.recording.preparing import Recording
from looplens.recording.streaming.batches import Batch, batches
from looplens.recording.streaming.capture import capture
from looplens.recording.streaming.pipeline import BlockPipeline
from looplens.recording.streaming.staging import staging_for
from looplens.store import RunWriter
from looplens.store.format.blocks import prompts_of_block

STAGED_BYTES = 192 * 2**20


def record_blocks(
    recording: Recording,
    writer: RunWriter,
    todo: Sequence[int],
    advance: Callable[[int], None] = lambda prompts: None,
) -> None:
    """Record blocks and commit them, one after the other.

    Parameters
    ----------
    recording : Recording
        The run.
    writer : RunWriter
        The hold on it.
    todo : sequence of int
        Blocks that are not committed yet, ascending.
    advance : callable
        Is told how many blocks were just computed.

    Raises
    ------
    StoreError
        If a block is committed or claimed by another process, or the disk refuses.
    SiteError
        If the loop did not fire as it declares.
    """
    if not todo:
        return
    spec, layout = recording.spec, recording.spec.layout
    counts = np.array(spec.recorded_lengths)
    first_token = np.cumsum(counts) - counts
    parts = prompts_of_block(first_token, counts, layout.block_tokens, spec.n_tokens)
    variables = {k: v for k, v in layout.variables().items() if v.token_axis is not None}
    staging = staging_for(
        variables,
        block_tokens=layout.block_tokens,
        n_tokens=spec.n_tokens,
        slots=_slots(first_token, counts, layout.block_tokens, variables, len(todo)),
        device=recording.looped.device,
    )
    maps = frozenset(spec.attention_prompts)
    lengths = [len(prompt) for prompt in spec.prompts]
    waiting: dict[int, np.ndarray] = {}  # patterns of blocks that are not whole yet
    with (
        applied(recording.model, recording.changes),
        torch.no_grad(),
        BlockPipeline(writer, staging) as pipeline,
    ):
        for block, forwards in batches(parts, todo, lengths, maps, recording.fitting):
            writer.claim(block)
            pipeline.make_room([block])
            for batch in forwards:
                pipeline.make_room(batch.blocks)
                tokens, rows = _tokens_of(recording, batch, first_token, layout.block_tokens)
                pattern = capture(
                    recording.looped,
                    [spec.prompts[index] for index in batch.prompts],
                    recording.plan,
                    staging,
                    staging.places(tokens),
                    rows,
                    attention=batch.attention,
                )
                if pattern is not None:
                    found = pattern.numpy()
                    waiting |= {index: found[:, i] for i, index in enumerate(batch.prompts)}
            own = maps.intersection(parts[block].own)
            pipeline.submit(block, {index: waiting.pop(index) for index in sorted(own)})
            waiting.clear()
            advance(1)


def _tokens_of(
    recording: Recording, batch: Batch, first_token: Int[np.ndarray, " prompt"], length: int
) -> tuple[Int[np.ndarray, " kept"], Int[np.ndarray, " kept"]]:
    """Return the tokens of a batch that lie in its blocks, and their rows in the batch."""
    spec, pos = recording.spec, len(recording.prompts[batch.prompts[0]])
    if spec.token_positions is None:
        rows = np.arange(len(batch.prompts) * pos)
        firsts = first_token[list(batch.prompts)]
        tokens = (firsts[:, None] + np.arange(pos)).reshape(-1)
    else:
        kept = [np.array(spec.positions(index), dtype=np.int64) for index in batch.prompts]
        rows = np.concatenate([place * pos + row for place, row in enumerate(kept)])
        tokens = np.concatenate(
            [
                first_token[index] + np.arange(len(row))
                for index, row in zip(batch.prompts, kept, strict=True)
            ]
        )
    inside = np.isin(tokens // length, batch.blocks)
    return tokens[inside], rows[inside]


def _slots(
    first_token: Int[np.ndarray, " prompt"],
    counts: Int[np.ndarray, " prompt"],
    block_tokens: int,
    variables: dict,
    todo: int,
) -> int:
    """Return how many blocks are held: those of one forward, and one that is being written."""
    last = first_token + np.maximum(counts, 1) - 1
    span = int((last // block_tokens - first_token // block_tokens).max()) + 1
    per_block = sum(v.nbytes // v.shape[v.token_axis] for v in variables.values()) * block_tokens
    # Twice as many let a long prompt be written while the next one runs.
    return min(max(span + 1, min(2 * span, STAGED_BYTES // max(1, per_block))), max(todo, span))
