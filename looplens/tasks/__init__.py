"""Synthetic tasks of the papers as seeded generators with exact answers. Needs numpy only."""

from looplens.tasks.affine import Affine
from looplens.tasks.base import Batch, Task
from looplens.tasks.phop import PHop
from looplens.tasks.registry import TASKS, get_task
from looplens.tasks.trained_on import prompts_trained_on

__all__ = ["TASKS", "Affine", "Batch", "PHop", "Task", "get_task", "prompts_trained_on"]
