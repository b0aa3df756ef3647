"""Experiments on the live model that a stored run cannot answer; needs torch.

Each is a file of this room: a search for an initial state that breaks agreement
(`adversarial_restart`), lenses, sharing of keys and values, certificates. What can be computed from
a recording alone is in :mod:`looplens.analysis`.
"""

from __future__ import annotations

import importlib
from typing import Any

# Name -> module of this room; loaded on first use.
_NAMES: dict[str, str] = {
    "AdversarialRestart": "adversarial",
    "adversarial_restart": "adversarial",
    "certificate": "certificates",
    "kv_sharing": "sharing",
    "lens": "lenses",
}

__all__ = sorted(_NAMES)


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        value = getattr(importlib.import_module(f"looplens.dynamics.{_NAMES[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'looplens.dynamics' has no attribute {name!r}")


def __dir__() -> list[str]:
    return list(__all__)
