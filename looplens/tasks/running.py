"""Tasks with an answer at every step of a sequence: a sequence holds all difficulties at once."""

from __future__ import annotations

import numpy as np

from looplens.errors import InputError
from looplens.tasks.base import Batch, Task


class RunningTask(Task):
    """A task whose difficulty counts the steps up to a position, from 1 to the length.

    Without ``difficulty`` every step of a sequence has a target, whatever its length.
    """

    def sample(
        self,
        rng: np.random.Generator,
        batch: int,
        *,
        length: int | None = None,
        difficulty: int | tuple[int, int] | None = None,
    ) -> Batch:
        """Draw labelled sequences; without ``difficulty`` every step has a target.

        The arguments are those of :meth:`looplens.tasks.base.Task.sample`.

        Raises
        ------
        InputError
            When the length or the difficulty is out of range.
        """
        steps = self.default_length if length is None else length
        wanted = (1, max(steps, 1)) if difficulty is None else difficulty
        lowest = wanted if isinstance(wanted, int) else wanted[0]
        if lowest > steps >= 1:
            raise InputError(
                f"No position of a sequence of {steps} {self.length_unit} has difficulty {lowest}; "
                f"ask for length={lowest} or more."
            )
        return super().sample(rng, batch, length=steps, difficulty=wanted)
