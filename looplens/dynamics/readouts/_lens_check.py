"""The self-check of a lens: at the end of the loop it must show what the model itself says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from looplens.dynamics.readouts._lens_input import LensInput
from looplens.errors import AnalysisError

if TYPE_CHECKING:
    from looplens.store import StoredRun


CHECKS = ("exact", "rounding", "not possible")


@dataclass(frozen=True, kw_only=True, slots=True)
class SelfCheck:
    """``exact``, ``rounding`` or ``not possible``, and the largest difference that was found.

    None where there was nothing to compare.
    """

    word: str
    difference: float | None


def self_check(
    run: StoredRun,
    given: LensInput,
    coda: Callable[[Tensor], Tensor],
    final: Tensor,
    tolerance: float,
) -> SelfCheck:
    """Compare the coda lens at the end of the loop with the model, and with the recording.

    The lens of the last stored residual stream must have the logits that the model reads out of the
    stored loop state, and the log-probabilities that were recorded in the forward. Both are exact
    for a model that computes and is stored in float32, except that a matrix product of another
    batch size may round differently.

    Parameters
    ----------
    run : StoredRun
        The run.
    given : LensInput
        The states.
    coda : callable
        The lens.
    final : Tensor, (1, token, vocabulary)
        Logits of the stored loop state.
    tolerance : float
        Largest difference that passes.

    Raises
    ------
    AnalysisError
        If a difference is larger.
    """
    if given.last_stream is None or not final.isfinite().all(-1).any():
        return SelfCheck(word="not possible", difference=None)
    ours = coda(given.last_stream)
    # Differences of log-probabilities: a constant added to all logits says nothing.
    of_state = _largest(ours.log_softmax(-1) - final.log_softmax(-1))
    if not of_state <= tolerance:
        raise AnalysisError(
            "The coda lens after the last layer of the last iteration does not show what the model "
            f"reads out of the loop state (largest difference {of_state:.3g} nats, tolerance "
            f"{tolerance:g}): something lies between the two. Pass to_state=, which leads from the "
            "stream after the last layer to the loop state."
        )
    exact = bool(torch.equal(ours, final))
    of_record = _against_record(run, given, ours[0].log_softmax(-1))
    if not of_record <= tolerance:
        raise AnalysisError(
            "The lens does not show what was recorded at the last iteration (largest difference "
            f"{of_record:.3g} nats, tolerance {tolerance:g}): the model's weights are not those of "
            "the run. Pass the model that was recorded, or a larger tolerance."
        )
    word = "exact" if exact and of_record == 0 else "rounding"
    return SelfCheck(word=word, difference=max(of_state, of_record))


def _against_record(run: StoredRun, given: LensInput, ours: Tensor) -> float:
    if not run.has_readout:
        return 0.0
    stored = run.readout[["topk_ids", "topk_logprobs"]].isel(
        restart=given.restart, token=given.tokens, iteration=-1
    )
    ids = torch.as_tensor(stored["topk_ids"].values.astype("int64"), device=ours.device)
    recorded = torch.as_tensor(stored["topk_logprobs"].values, device=ours.device)
    return _largest(ours.gather(-1, ids) - recorded)


def _largest(difference: Tensor) -> float:
    """Of the tokens that are finite in both."""
    known = difference[difference.isfinite()]
    return float(known.abs().max()) if known.numel() else 0.0
