"""The recipes of the bundled models. A new one is one entry of ``RECIPES``.

Huginn-style models (a random start, the input injected in every pass, a random number of passes)
settle at fixed points that do not depend on the start. The Ouro-style contrast (no injection, always
four passes) is right at the depth it was trained at and drifts beyond it.
"""

from __future__ import annotations

from looplens.errors import InputError, near_matches
from looplens.models import LoopedConfig
from looplens.tasks import get_task
from looplens.training.depth import DepthSampling
from looplens.training.recipe import Recipe, Stage
