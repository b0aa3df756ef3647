"""From numbers to words: which value of which number is a bad sign, and says who.

The thresholds are ours where the source gives a limit (a correlation of 1, equal losses) and no
number; every sign carries its own, so that a report can show it.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Literal

_HUGINN = "Geiping et al., arXiv:2502.05171, section 4.3 (failed runs)"
_NORM = "Sharma and Vu, arXiv:2606.24898"

TOKEN_CORRELATION = 0.95
LOSS_DIFFERENCE = 0.01
READOUT_KL = 1e-3
SENSITIVITY = 1e-3
NORM_GROWTH = 1.05
RADIAL_SHARE = 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class Sign:
    """One number held against its threshold.

    Attributes
    ----------
    name : str
        What would be wrong.
    quantity : str
        The number, in words with its unit.
    value : float
        NaN where it could not be measured.
    threshold : float
        From where on the sign is raised.
    side : {"above", "below"}
        On which side of the threshold.
    meaning : str
        What a raised sign says.
    source : str
        Where the failure was described.
    """

    name: str
    quantity: str
    value: float
    threshold: float
    side: Literal["above", "below"]
    meaning: str
    source: str

    @property
    def raised(self) -> bool:
        """Whether the value is on the bad side; False where it could not be measured."""
        return self.value > self.threshold if self.side == "above" else self.value < self.threshold

    def to_dict(self) -> dict[str, Any]:
        """Return the fields and the verdict; a value that was not measured is None."""
        value = self.value if math.isfinite(self.value) else None
        return {**dataclasses.asdict(self), "value": value, "raised": self.raised}

    def __str__(self) -> str:
        state = "--" if math.isnan(self.value) else "BAD" if self.raised else "ok"
        limit = f"raised {self.side} {self.threshold:g}"
        line = f"{state:4}{self.name}: {self.quantity} {self.value:.3g} ({limit})"
        return f"{line}\n      {self.meaning} [{self.source}]" if self.raised else line


def collapse(correlation: float) -> Sign:
    """Tell whether all positions hold the same state."""
    return Sign(
        name="tokens collapse",
        quantity="mean cosine between positions after the last iteration",
        value=correlation,
        threshold=TOKEN_CORRELATION,
        side="above",
        meaning="every position of a sequence holds nearly the same state",
        source=_HUGINN,
    )


def unused_by_loss(difference: float) -> Sign:
    """Tell whether the loss is the same after 1 iteration."""
    return Sign(
        name="iterations unused",
        quantity="loss after 1 iteration and after all differ by (nats)",
        value=difference,
        threshold=LOSS_DIFFERENCE,
        side="below",
        meaning="the answer is as good after one iteration: the loop is not used",
        source=_HUGINN,
    )


def unused_by_readout(kl: float) -> Sign:
    """Tell whether the prediction is the same after 1 iteration."""
    return Sign(
        name="iterations unused",
        quantity="KL from the readout after all iterations to that after 1 (nats)",
        value=kl,
        threshold=READOUT_KL,
        side="below",
        meaning="the answer is the same after one iteration: the loop is not used",
        source=_HUGINN,
    )


def ignored(sensitivity: float) -> Sign:
    """Tell whether an iteration depends on the state that it is given."""
    return Sign(
        name="state ignored",
        quantity="share of a small change of the start that is left after 1 iteration",
        value=sensitivity,
        threshold=SENSITIVITY,
        side="below",
        meaning="an iteration gives the same whatever state it is given",
        source=_HUGINN,
    )


def growing(growth: float) -> Sign:
    """Tell whether the norm of the state keeps growing."""
    return Sign(
        name="norm grows",
        quantity="growth of the norm per iteration, second half",
        value=growth,
        threshold=NORM_GROWTH,
        side="above",
        meaning="longer runs leave the range that the model knows, and rounding grows along",
        source=_NORM,
    )


def diluting(share: float) -> Sign:
    """Tell whether steps change the length of the state rather than its direction."""
    return Sign(
        name="steps are radial",
        quantity="radial share of the step, second half",
        value=share,
        threshold=RADIAL_SHARE,
        side="above",
        meaning="the state changes length more than direction: a cosine that goes to 1, or a "
        "readout that stands still, is no fixed point here",
        source=_NORM,
    )
