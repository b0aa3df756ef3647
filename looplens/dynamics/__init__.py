"""Experiments on the live model that a stored run cannot answer; needs torch.

Each room holds one kind: `maps` the loop as a map with derivatives, `solving` fixed points, `eigen`
spectra and causes, `exponents` Lyapunov exponents, `branches` fixed points followed as a gain
changes, `pushing` interventions and what becomes of them, `planes` landscapes and basins on a
plane, `readouts` lenses and certificates, `restarts` searches for initial states, and `laboratory`
the command that does several of these over the tokens of a run. What can be computed from a
recording alone is in :mod:`looplens.analysis`.
"""

from __future__ import annotations

import importlib
from typing import Any

# Name -> module of this package; loaded on first use.
_NAMES: dict[str, str] = {
    "AdversarialRestart": "restarts.adversarial",
    "Bifurcation": "branches.following",
    "Branch": "branches.following",
    "FixedPoint": "solving.fixed_point",
    "Gain": "branches.gains",
    "Lyapunov": "exponents.benettin",
    "SequenceMap": "maps.loop_maps",
    "Spectrum": "eigen.spectrum",
    "TokenMap": "maps.loop_maps",
    "adversarial_restart": "restarts.adversarial",
    "basin_map": "planes.basin_map",
    "basin_radius": "pushing.radius",
    "causal_effect": "pushing.effects",
    "causes": "eigen.causes",
    "certificate": "readouts.certificates",
    "choose": "laboratory.choosing",
    "continuation": "branches.continuing",
    "cycle_points": "solving.cycle_points",
    "damage_cone": "pushing.damage",
    "fixed_point": "solving.fixed_point",
    "fixed_points": "solving.model_points",
    "follow": "branches.following",
    "investigate": "laboratory.investigating",
    "kv_sharing": "readouts.sharing",
    "landscape": "planes.landscape",
    "lens": "readouts.lenses",
    "lyapunov": "exponents.benettin",
    "lyapunov_spectra": "exponents.model_spectra",
    "recorded": "maps.recorded",
    "recovery": "pushing.recovering",
    "spectra": "eigen.spectra",
    "spectrum": "eigen.spectrum",
    "swap_states": "pushing.swapping",
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
