"""Which tasks there are. A new one is one file with a :class:`Task` and one line here."""

from __future__ import annotations

from looplens.errors import named
from looplens.tasks.affine import Affine
from looplens.tasks.base import Task
from looplens.tasks.phop import PHop

TASKS: dict[str, Task] = {task.name: task for task in (Affine(), PHop())}


def get_task(name: str) -> Task:
    """Return a task by its name.

    Raises
    ------
    InputError
        When there is no such task.
    """
    return named(name, TASKS, "task")
