"""Experiments on the live model that a stored run cannot answer; needs torch.

Each room holds one kind: `maps` the loop as a map with derivatives, `solving` fixed points, `eigen`
spectra, `exponents` Lyapunov exponents, `readouts` lenses and certificates, `restarts` searches for
initial states. What can be computed from a recording alone is in :mod:`looplens.analysis`.
"""

from __future__ import annotations

import importlib
from typing import Any

# Name -> module of this package; loaded on first use.
_NAMES: dict[str, str] = {
    "AdversarialRestart": "restarts.adversarial",
    "FixedPoint": "solving.fixed_point",
    "Lyapunov": "exponents.benettin",
    "Spectrum": "eigen.spectrum",
    "adversarial_restart": "restarts.adversarial",
    "certificate": "readouts.certificates",
    "fixed_point": "solving.fixed_point",
    "kv_sharing": "readouts.sharing",
    "lens": "readouts.lenses",
    "lyapunov": "exponents.benettin",
    "spectrum": "eigen.spectrum",
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
