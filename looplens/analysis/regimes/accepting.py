"""Whether what a periodic model leaves is little enough, or noise."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from looplens.analysis.algebra.gram import TINY, Floats
from looplens.analysis.regimes.periodic import PeriodicFit
from looplens.analysis.regimes.phases import PhaseFit
from looplens.analysis.regimes.thresholds import RegimeThresholds

EQUALLY_GOOD = 1e-3  # models that leave less than this share are equally good


def is_white(
    fit: PeriodicFit | PhaseFit, limits: RegimeThresholds, size: tuple[int, int]
) -> NDArray[np.bool_]:
    """Whether what a model leaves looks like white noise of full dimension."""
    return (fit.whiteness < limits.white_limit(*size)) & (
        fit.isotropy > limits.isotropic_limit(*size)
    )


def cost_of(
    fit: PeriodicFit, limits: RegimeThresholds, size: tuple[int, int], *, stiff: bool = True
) -> Floats:
    """Return what a model leaves, not penalised for parameters; infinite if not accepted.

    Beside a transient only a stiff model is: several harmonics follow chaos that is nearly periodic
    for a while, and leave what looks like the end of a transient.
    """
    second = 2 * fit.residual / (1 + 1 / np.maximum(fit.residual_trend, TINY))
    fading = stiff & (fit.residual_trend < limits.fading) & (second < 3 * limits.periodic_residual)
    # Noise does not keep to the directions of the motion; a third, since strong ones count most.
    aside = fit.along < limits.periodic_residual / 3
    accepted = (
        (fit.residual < limits.periodic_residual)
        | ((fit.residual < limits.fading_residual) & fading)
        | ((fit.residual < limits.decaying_residual) & is_white(fit, limits, size) & aside)
    )
    return np.where(accepted, np.maximum(fit.residual, EQUALLY_GOOD), np.inf)
