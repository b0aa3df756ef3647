"""What an examination of a loop found, as numbers, as signs and as text."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from looplens.models.health import signs
from looplens.models.health.signs import Sign
from looplens.models.health.watch import Watch
from looplens.models.weight_cosine import LOOPED, WeightCosine

_MOST_ROWS = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class Health:
    """Numbers of a loop by iteration, and what they say.

    Series are means over the tokens of the batch. What was not measured is None, and ``notes`` says
    why.

    Attributes
    ----------
    name : str
        The model.
    iterations : int
        Passes that ran; 0 for a model without a loop.
    sequences, positions : int
        Size of the batch.
    token_correlation, state_norm : ndarray, shape (iterations + 1,), or None
        Mean cosine between positions of a sequence, and length of the state; entry 0 is the start.
    relative_step, radial_share : ndarray, shape (iterations,), or None
        Length of the step over that of the state, and its share along the state.
    sensitivity : ndarray, shape (iterations,), or None
        What is left, after each iteration, of a small random change of the start.
    loss_one_iteration, loss : float or None
        Cross-entropy in nats after 1 iteration and after all.
    readout_kl : float or None
        KL(p_T || p_1) of the readouts, in nats.
    block : int
        Layers of a block in ``block_cosine``; 0 without.
    block_cosine : dict
        Mean cosine between weights one block apart, for each group of weights.
    block_cosine_by_size : dict
        Its mean over groups for other sizes of a block.
    signs : tuple of Sign
        Each with value, threshold, meaning and source.
    notes : tuple of str
        What was not measured, and why.
    """

    name: str
    iterations: int
    sequences: int
    positions: int
    token_correlation: np.ndarray | None
    state_norm: np.ndarray | None
    relative_step: np.ndarray | None
    radial_share: np.ndarray | None
    sensitivity: np.ndarray | None
    loss_one_iteration: float | None
    loss: float | None
    readout_kl: float | None
    block: int
    block_cosine: dict[str, float]
    block_cosine_by_size: dict[int, float]
    signs: tuple[Sign, ...]
    notes: tuple[str, ...]

    @property
    def raised(self) -> tuple[Sign, ...]:
        """The signs that are raised."""
        return tuple(sign for sign in self.signs if sign.raised)

    @property
    def healthy(self) -> bool:
        """Whether no sign is raised, among those that could be measured."""
        return not self.raised

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON values; what is not finite is None."""

        def plain(value: Any) -> Any:
            if isinstance(value, np.ndarray):
                return [plain(item) for item in value.tolist()]
            if isinstance(value, float):
                return value if math.isfinite(value) else None
            if isinstance(value, dict):
                return {str(key): plain(item) for key, item in value.items()}
            return value

        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        fields["signs"] = [sign.to_dict() for sign in self.signs]
        fields["notes"] = list(self.notes)
        return {"healthy": self.healthy, **{key: plain(value) for key, value in fields.items()}}

    def __str__(self) -> str:
        lines = [f"{self.name}: {self._verdict()}"]
        if self.iterations:
            lines.append(
                f"{self.iterations} iterations, {self.sequences} sequences of {self.positions}"
            )
        lines += [str(sign) for sign in self.signs]
        lines += self._table()
        if self.block_cosine:
            mean = float(np.mean(list(self.block_cosine.values())))
            each = ", ".join(f"{group} {value:.3g}" for group, value in self.block_cosine.items())
            lines.append(
                f"weights {self.block} layers apart: cosine {mean:.3g} (looped from {LOOPED:g} on "
                f"[Saunshi et al., arXiv:2502.17416, figure 5]): {each}"
            )
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])

    def _verdict(self) -> str:
        if not self.signs:
            return "no loop to examine"
        return ", ".join(sign.name for sign in self.raised) or "no bad sign"

    def _table(self) -> list[str]:
        """Write the series at a few iterations, the first and the last among them."""
        if not self.iterations:
            return []
        shown = np.unique(np.geomspace(1, self.iterations, _MOST_ROWS).round().astype(int))
        columns = [
            ("token correlation", self.token_correlation, 0),
            ("norm", self.state_norm, 0),
            ("relative step", self.relative_step, 1),
            ("radial share", self.radial_share, 1),
            ("sensitivity", self.sensitivity, 1),
        ]
        present = [(title, values, first) for title, values, first in columns if values is not None]
        lines = ["  ".join(["iteration", *(f"{title:>17}" for title, *_ in present)])]
        for t in (0, *shown.tolist()):
            row = [
                f"{values[t - first]:>17.4g}" if t >= first else " " * 17
                for _, values, first in present
            ]
            lines.append("  ".join([f"{t:>9}", *row]))
        return [line.rstrip() for line in lines]


def judge(
    *,
    name: str,
    watch: Watch,
    weights: WeightCosine | None,
    block: int,
    notes: tuple[str, ...],
    loss_one_iteration: float | None = None,
    loss: float | None = None,
    readout_kl: float | None = None,
) -> Health:
    """Hold the numbers against their thresholds."""
    steps = watch.series("relative_step")
    norms, sensitivity = watch.series("state_norm"), watch.series("sensitivity")
    found: list[Sign] = []
    if norms is not None and steps is not None:
        last = len(steps)
        half = max(1, last // 2)
        growth = (norms[last] / norms[half]) ** (1 / (last - half)) if last > half else math.nan
        radial = watch.series("radial_share")
        late = radial[half:] if radial is not None else np.array([])
        correlation = watch.series("token_correlation")
        found.append(signs.collapse(math.nan if correlation is None else float(correlation[-1])))
        if loss is not None and loss_one_iteration is not None:
            found.append(signs.unused_by_loss(abs(loss_one_iteration - loss)))
        elif readout_kl is not None:
            found.append(signs.unused_by_readout(readout_kl))
        found.append(signs.ignored(math.nan if sensitivity is None else float(sensitivity[0])))
        found.append(signs.growing(float(growth)))
        share = float(np.nanmean(late)) if np.isfinite(late).any() else math.nan
        found.append(signs.diluting(share))
        if not np.isfinite(norms).all():
            first = int(np.flatnonzero(~np.isfinite(norms))[0])
            notes = (*notes, f"states are not finite from iteration {first} on")
    return Health(
        name=name,
        iterations=0 if steps is None else len(steps),
        sequences=watch.sequences,
        positions=watch.positions,
        token_correlation=watch.series("token_correlation"),
        state_norm=norms,
        relative_step=steps,
        radial_share=watch.series("radial_share"),
        sensitivity=sensitivity,
        loss_one_iteration=loss_one_iteration,
        loss=loss,
        readout_kl=readout_kl,
        block=block,
        block_cosine={} if weights is None else weights.one_block_apart(block),
        block_cosine_by_size={} if weights is None else weights.by_block(),
        signs=tuple(found),
        notes=notes,
    )
