"""Synthetic tasks of the papers as seeded generators with exact answers. Needs numpy only."""

from looplens.tasks.addition import Addition
from looplens.tasks.affine import Affine
from looplens.tasks.base import Batch, Task
from looplens.tasks.bios import Bios
from looplens.tasks.describing import describe
from looplens.tasks.group import Group
from looplens.tasks.igsm import IGSM
from looplens.tasks.mano import Mano
from looplens.tasks.multihop import MultiHop
from looplens.tasks.options import options_of
from looplens.tasks.phop import PHop
from looplens.tasks.pointers import Pointers
from looplens.tasks.registry import TASKS, get_task
from looplens.tasks.trained_on import prompts_trained_on
from looplens.tasks.zoo import Zoo

__all__ = [
    "IGSM",
    "TASKS",
    "Addition",
    "Affine",
    "Batch",
    "Bios",
    "Group",
    "Mano",
    "MultiHop",
    "PHop",
    "Pointers",
    "Task",
    "Zoo",
    "describe",
    "get_task",
    "options_of",
    "prompts_trained_on",
]
