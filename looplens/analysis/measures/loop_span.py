"""Which layers of an ordinary model to loop: between the knees of the angular distance.

It takes the residual stream at the last token after every layer (an array) and knows nothing of
models; :func:`looplens.models.residuals.last_token_residuals` collects such arrays.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from looplens.analysis.algebra.gram import Floats
from looplens.analysis.measures.kneedle import Knee, kneedle
from looplens.errors import AnalysisError, InputError


@dataclass(frozen=True, kw_only=True, slots=True)
class LoopSpan:
    """What `choose_loop_span` finds in a model of ``n`` layers.

    Attributes
    ----------
    distance : ndarray, shape (n,)
        Angular distance that each layer adds, from 0 to 1, mean over prompts.
    standard_error : ndarray, shape (n,)
        Of that mean over prompts; NaN for one prompt.
    prompts : int
        How many prompts there were.
    forward, backward : Knee
        Knee of ``distance``, and of ``distance`` read from the last layer to the first.
    encoder_end : int or None
        Last layer of the encoder: the knee forward.
    decoder_start : int or None
        First layer of the decoder: the knee backward, as a layer number.
    reason : str
        Why there is no span; empty where there is one.
    """

    distance: Floats
    standard_error: Floats
    prompts: int
    forward: Knee
    backward: Knee
    encoder_end: int | None
    decoder_start: int | None
    reason: str

    @property
    def n_layers(self) -> int:
        """Number of layers."""
        return len(self.distance)

    @property
    def start(self) -> int:
        """First layer to loop.

        Raises
        ------
        AnalysisError
            If there is no span.
        """
        return self._span()[0]

    @property
    def stop(self) -> int:
        """First layer after the loop; raises as `start` does."""
        return self._span()[1]

    def _span(self) -> tuple[int, int]:
        if self.reason or self.encoder_end is None or self.decoder_start is None:
            raise AnalysisError(f"There is no span to loop: {self.reason}.")
        return self.encoder_end + 1, self.decoder_start

    def __str__(self) -> str:
        if self.reason:
            return f"no span to loop: {self.reason}"
        sizes = (self.start, self.stop - self.start, self.n_layers - self.stop)
        return (
            f"encoder {sizes[0]}, loop {sizes[1]} (layers {self.start} to {self.stop - 1}), "
            f"decoder {sizes[2]}"
        )


def angular_distance(hidden: ArrayLike) -> Floats:
    r"""Return the angle between successive states, as a share of a half turn.

    .. math:: d_l = \frac{1}{\pi} \arccos \frac{x_l \cdot x_{l+1}}{|x_l| |x_{l+1}|}

    Parameters
    ----------
    hidden : array_like, shape (..., layer + 1, d_model)
        States; entry 0 enters layer 0.

    Returns
    -------
    ndarray, shape (..., layer)
        From 0 (same direction) to 1 (opposite). NaN where a state is zero or not finite.

    Raises
    ------
    InputError
        For fewer than two states.

    Notes
    -----
    The angle is taken as ``2 atan2(|u - v|, |u + v|)`` of the unit vectors: the arc cosine of a
    number close to 1 keeps half of the digits only, and late layers turn by small angles.

    References
    ----------
    Koishekenov et al. 2025, "Encode, Think, Decode", arXiv:2510.07358.
    """
    states = np.asarray(hidden, dtype=np.float64)
    if states.ndim < 2 or states.shape[-2] < 2 or not states.shape[-1]:
        raise InputError(
            "angular_distance needs states (..., layer + 1, d_model), at least two of them; got an "
            f"array of shape {states.shape}"
        )
    with np.errstate(invalid="ignore", divide="ignore"):
        unit = states / np.linalg.norm(states, axis=-1, keepdims=True)
        one, two = unit[..., :-1, :], unit[..., 1:, :]
        apart = np.linalg.norm(one - two, axis=-1)
        together = np.linalg.norm(one + two, axis=-1)
        return 2 * np.arctan2(apart, together) / np.pi


def choose_loop_span(hidden_states: ArrayLike, *, sensitivity: float = 1.0) -> LoopSpan:
    """Choose the layers to loop as Encode-Think-Decode does.

    Early layers turn the residual stream much, middle ones little, the last ones much again. The
    knee of the curve of angular distances ends the encoder, the knee of the reversed curve starts
    the decoder, and what lies between is looped.

    Parameters
    ----------
    hidden_states : array_like, shape (prompt, layer + 1, d_model)
        The residual stream at the last token of every prompt: entry 0 enters the first layer, entry
        ``l + 1`` leaves layer ``l``, none of them after the final norm.
    sensitivity : float
        Of :func:`kneedle`; the authors' value is not known.

    Returns
    -------
    LoopSpan
        ``loop_layers(model, span.start, span.stop, ...)`` takes it. Where a knee is missing or
        nothing lies between the two, ``reason`` says so and ``start`` raises.

    Raises
    ------
    InputError
        If the array has other axes, fewer than 3 layers, or states that are zero or not finite.

    Notes
    -----
    The knee layers belong to the encoder and to the decoder: for OLMo-2-1B (16 layers) the authors
    report 7-4-5, encoder 0 to 6, loop 7 to 10, decoder 11 to 15, from 10 000 texts. That a knee is
    counted so is our reading; their code is not public.

    References
    ----------
    Koishekenov et al. 2025, "Encode, Think, Decode", arXiv:2510.07358.
    """
    states = np.asarray(hidden_states)
    if states.ndim != 3 or states.shape[0] < 1 or states.shape[1] < 4:
        raise InputError(
            "choose_loop_span needs states (prompt, layer + 1, d_model) of at least 3 layers; got "
            f"an array of shape {states.shape}"
        )
    each = angular_distance(states)  # [prompt, layer]
    if not np.isfinite(each).all():
        prompt, layer = np.argwhere(~np.isfinite(each))[0]
        raise InputError(
            f"the state before or after layer {layer} of prompt {prompt} is zero or not finite"
        )
    prompts, layers = each.shape
    distance = each.mean(0)
    error = each.std(0, ddof=1) / prompts**0.5 if prompts > 1 else np.full(layers, np.nan)
    forward = kneedle(distance, sensitivity=sensitivity)
    backward = kneedle(distance[::-1], sensitivity=sensitivity)
    encoder_end = forward.index
    decoder_start = None if backward.index is None else layers - 1 - backward.index
    return LoopSpan(
        distance=distance,
        standard_error=error,
        prompts=prompts,
        forward=forward,
        backward=backward,
        encoder_end=encoder_end,
        decoder_start=decoder_start,
        reason=_why_not(encoder_end, decoder_start, sensitivity),
    )


def _why_not(encoder_end: int | None, decoder_start: int | None, sensitivity: float) -> str:
    """Say what stands in the way of a span, or nothing."""
    missing = [
        name
        for name, knee in (("encoder", encoder_end), ("decoder", decoder_start))
        if knee is None
    ]
    advice = "look at distance (plots.loop_span draws it) and choose layers by hand"
    if missing:
        return (
            f"the angular distance has no knee at the {' and no knee at the '.join(missing)} with "
            f"sensitivity {sensitivity:g}; {advice}, or lower the sensitivity"
        )
    if encoder_end is not None and decoder_start is not None and encoder_end + 1 >= decoder_start:
        return (
            f"the encoder ends at layer {encoder_end} and the decoder starts at layer "
            f"{decoder_start}, which leaves no layer between them; {advice}"
        )
    return ""
