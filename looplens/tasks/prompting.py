"""Rows of a labelled batch as prompts that are ready to record.

A prompt stands alone, so it has no pads. What the texts mean is the business of their task.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from looplens.prompts import Prompt
from looplens.tasks.batch import Batch
from looplens.tasks.texts import TaskTexts


def prompts_of(texts: TaskTexts, batch: Batch, metadata: Mapping[str, Any]) -> list[Prompt]:
    """Turn each row of a batch into a prompt with its targets.

    Parameters
    ----------
    texts : TaskTexts
        The vocabulary of the batch.
    batch : Batch
        Labelled rows, perhaps with pads at the right.
    metadata : mapping
        Columns that all prompts get.
    """
    made = []
    for i, row in enumerate(batch.tokens):
        pieces = texts.pieces(row)
        size = len(pieces)
        made.append(
            Prompt(
                token_ids=tuple(row[:size]),
                text=texts.decode(row),
                token_texts=pieces,
                targets=tuple(batch.targets[i, :size]),
                token_metadata={name: tuple(v[i, :size]) for name, v in batch.metadata.items()},
                metadata=dict(metadata),
            )
        )
    return made
