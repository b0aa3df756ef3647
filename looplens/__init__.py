"""looplens: see what a looped language model does while it thinks.

The public names load on first use, so that ``import looplens`` stays quick and a machine that only
looks at runs needs neither torch nor transformer_lens.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_SUBMODULES = (
    "analysis",
    "dynamics",
    "errors",
    "loops",
    "models",
    "plots",
    "prompts",
    "recording",
    "reports",
    "store",
    "tasks",
    "testing",
    "thinking",
    "training",
)
_NAMES = {
    "Prompt": "looplens.prompts",
    "Run": "looplens.run",
    "open_run": "looplens.run",
    "LoopedConfig": "looplens.models",
    "LoopedTransformer": "looplens.models",
    "bundled_models": "looplens.models",
    "load_model": "looplens.models",
    "save_model": "looplens.models",
    "Generation": "looplens.thinking",
    "generate": "looplens.thinking",
    "health": "looplens.models.health",
    "Intervention": "looplens.recording",
    "Loop": "looplens.loops",
    "LoopSpec": "looplens.loops",
    "wrap": "looplens.models.wrapping",
    "Trace": "looplens.recording",
    "record": "looplens.recording",
    "trace": "looplens.recording",
    "verify": "looplens.store",
    "VerifyReport": "looplens.store",
    "adversarial_restart": "looplens.dynamics",
    "certificate": "looplens.dynamics",
    "kv_sharing": "looplens.dynamics",
    "lens": "looplens.dynamics",
}

if TYPE_CHECKING:
    from looplens.dynamics import adversarial_restart as adversarial_restart
    from looplens.models import LoopedConfig as LoopedConfig
    from looplens.models import LoopedTransformer as LoopedTransformer
    from looplens.models import bundled_models as bundled_models
    from looplens.models import load_model as load_model
    from looplens.models import save_model as save_model
    from looplens.prompts import Prompt as Prompt
    from looplens.recording import Trace as Trace
    from looplens.recording import record as record
    from looplens.recording import trace as trace
    from looplens.run import Run as Run
    from looplens.run import open_run as open_run
    from looplens.store import VerifyReport as VerifyReport
    from looplens.store import verify as verify

__all__ = sorted([*_NAMES, *_SUBMODULES, "__version__"])


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        value = getattr(importlib.import_module(_NAMES[name]), name)
        globals()[name] = value
        return value
    if name in _SUBMODULES:
        return importlib.import_module(f"looplens.{name}")
    raise AttributeError(f"module 'looplens' has no attribute {name!r}")


def __dir__() -> list[str]:
    return list(__all__)
