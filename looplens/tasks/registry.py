"""Which tasks there are. A new one is one file with a :class:`Task` and one line here."""

from __future__ import annotations

from functools import lru_cache

from looplens.errors import named
from looplens.tasks.addition import Addition
from looplens.tasks.affine import Affine
from looplens.tasks.base import Task
from looplens.tasks.bios import Bios
from looplens.tasks.group import Group
from looplens.tasks.igsm import IGSM
from looplens.tasks.mano import Mano
from looplens.tasks.multihop import MultiHop
from looplens.tasks.options import with_options
from looplens.tasks.phop import PHop
from looplens.tasks.pointers import Pointers
from looplens.tasks.zoo import Zoo

TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Affine(),
        PHop(),
        Addition(),
        Mano(),
        Group(),
        Pointers(),
        Zoo(),
        IGSM(),
        MultiHop(),
        Bios(),
    )
}


@lru_cache(maxsize=256)
def get_task(name: str) -> Task:
    """Return a task by its name.

    Parameters
    ----------
    name : str
        A name in :data:`TASKS`, and after a colon options: ``addition:digits=2,reverse=true``.

    Raises
    ------
    InputError
        When there is no such task, or it has no such option.
    """
    kind, _, options = name.partition(":")
    task = named(kind, TASKS, "task")
    return with_options(type(task), kind, options) if options else task
