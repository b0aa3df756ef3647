"""How many iterations a training step runs: a fixed number, or a seeded log-normal-Poisson draw.

Every draw comes from the generator that is passed in; this module holds no state and knows nothing
of models or batches.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from looplens.errors import InputError


@dataclass(frozen=True, kw_only=True, slots=True)
class DepthSampling:
    """The distribution of the number of iterations in a training step.

    Attributes
    ----------
    kind : {"fixed", "log_normal_poisson"}
        ``fixed`` always gives ``mean``. ``log_normal_poisson`` gives ``Poisson(exp(tau)) + 1`` with
        ``tau ~ Normal(log(mean) - sigma^2 / 2, sigma)``: heavy-tailed, so that a model sees few
        and many iterations, and its expectation is ``mean + 1``.
    mean : int
        Iterations, at least 1.
    sigma : float
        Standard deviation of ``tau``.

    References
    ----------
    Geiping et al., "Scaling up Test-Time Compute with Latent Reasoning", arXiv 2502.05171,
    section 3.3 (mean 32, sigma 1/2).
    """

    kind: Literal["fixed", "log_normal_poisson"] = "log_normal_poisson"
    mean: int = 8
    sigma: float = 0.5

    def __post_init__(self) -> None:
        if self.kind not in ("fixed", "log_normal_poisson"):
            raise InputError(
                f"Depth sampling is 'fixed' or 'log_normal_poisson'; got {self.kind!r}."
            )
        if self.mean < 1 or self.sigma < 0:
            raise InputError(
                f"Depth sampling needs mean >= 1 and sigma >= 0; got mean={self.mean}, "
                f"sigma={self.sigma}."
            )

    def draw(self, rng: np.random.Generator) -> int:
        """Draw one number of iterations, at least 1."""
        if self.kind == "fixed":
            return self.mean
        tau = rng.normal(np.log(self.mean) - self.sigma**2 / 2, self.sigma)
        return int(rng.poisson(np.exp(tau))) + 1

    def __str__(self) -> str:
        if self.kind == "fixed":
            return f"always {self.mean}"
        return f"log-normal-Poisson, mean {self.mean} + 1, sigma {self.sigma:g}"
