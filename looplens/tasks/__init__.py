"""Synthetic tasks of the papers as seeded generators with exact answers. Needs numpy only.

A new task is one file with a :class:`Task` and one line in ``TASKS``.
"""

from __future__ import annotations

from looplens.errors import InputError, near_matches
from looplens.tasks.affine import Affine
from looplens.tasks.base import Batch, Task
from looplens.tasks.phop import PHop

__all__ = ["TASKS", "Affine", "Batch", "PHop", "Task", "get_task"]

TASKS: dict[str, Task] = {task.name: task for task in (Affine(), PHop())}


def get_task(name: str) -> Task:
    """Return a task by its name.

    Raises
    ------
    InputError
        When there is no such task.
    """
    if name not in TASKS:
        raise InputError(
            f"Unknown task {name!r}.{near_matches(name, TASKS)} "
            f"The tasks are: {', '.join(sorted(TASKS))}."
        )
    return TASKS[name]
