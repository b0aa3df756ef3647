"""How far states may move before the answer changes: exactly, or by search behind a coda."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from looplens.models import LoopedTransformer

_LARGEST = 64.0  # times the way that is left; an answer that survives this is not searched further
_HALVINGS = 12
_BYTES = 2**26  # of differences between rows of the head
_GRADIENT_AT = (0.0, 0.5, 1.0)  # of the way that is left: where the gradient is taken


@torch.no_grad()
def exact_radius(
    model: LoopedTransformer, state: Float[Tensor, "pos d_model"], best: Int[Tensor, " pos"]
) -> Float[Tensor, " pos"]:
    """Distance of each state to the nearest one with another answer, for a readout without layers.

    RMS norms divide by a positive number, which changes no order of the logits, and a soft cap is
    increasing: what is left is linear in the state.
    """
    rows = (model.embed if model.cfg.tie_embeddings else model.unembed).weight
    said, where = _linear_head(model, rows[best]), state.double()
    nearest = torch.full((len(state),), torch.inf, dtype=torch.float64, device=state.device)
    # A difference for every position and token of the vocabulary is more than fits at once.
    for part in rows.split(max(1, _BYTES // (8 * state.numel()))):
        apart = said[:, None] - _linear_head(model, part)[None]  # pos vocabulary d_model
        length = apart.norm(dim=-1)
        ahead = torch.einsum("pvd,pd->pv", apart, where)
        # The answer itself, and tokens with the same row, are never ahead of it.
        found = torch.where(length > 0, ahead / length, torch.inf).amin(-1)
        nearest = torch.minimum(nearest, found)
    return nearest.clamp(min=0)


def _linear_head(
    model: LoopedTransformer, rows: Float[Tensor, "rows d_model"]
) -> Float[Tensor, "rows d_model"]:
    """Rows of the head with all that is linear in front of it multiplied in, in float64."""
    cfg, rows = model.cfg, rows.double()
    for norm in (cfg.final_norm, cfg.coda_norm):
        rows = rows * model.ln_final.weight.double() if norm else rows
    return rows @ model.readout_map.weight.double() if cfg.readout_map else rows


def searched_factor(
    model: LoopedTransformer,
    states: Float[Tensor, "iteration_and_initial pos d_model"],
    best: Int[Tensor, " pos"],
    remaining: np.ndarray,
    iterations: int,
    *,
    directions: int,
    seed: int,
) -> np.ndarray:
    """Smallest multiple of the way that is left at which a direction changes each answer.

    Returns
    -------
    ndarray, shape (pos,)
        At most 64, which stands for "none was found"; NaN where the way that is left is.
    """
    end = states[-1]
    found = np.full(len(end), np.nan)

    def same(token: int, move: Tensor) -> bool:
        with model.clock.forward(iterations), model.clock.at(iterations), torch.no_grad():
            return bool(model.readout((end + move)[None])[0, token].argmax() == best[token])

    draw = torch.Generator().manual_seed(seed)
    for token in map(int, np.flatnonzero(np.isfinite(remaining))):
        reach, answer = float(remaining[token]), int(best[token])
        moves = [end - states[-2]]
        moves += [torch.randn(end.shape, generator=draw).to(end) for _ in range(directions)]
        for part in _GRADIENT_AT:  # the margin bends: its gradient again on the way
            there = end + part * reach * _unit(moves[-1], token) if part else end
            moves.append(_against(model, there, token, answer, iterations))
        found[token] = _LARGEST
        for move in (reach * _unit(move, token) for move in moves):
            low, high = 0.0, float(found[token])
            if same(token, high * move):
                continue
            for _ in range(_HALVINGS):
                middle = 0.5 * (low + high)
                low, high = (middle, high) if same(token, middle * move) else (low, middle)
            found[token] = high
    return found


def _against(
    model: LoopedTransformer, state: Tensor, token: int, best: int, iterations: int
) -> Tensor:
    """Return the direction of all positions in which the margin of a token shrinks fastest."""
    with torch.enable_grad(), model.clock.forward(iterations), model.clock.at(iterations):
        state = state.detach().requires_grad_()
        logits = model.readout(state[None])[0, token]
        others = logits.clone()
        others[best] = -torch.inf
        (gradient,) = torch.autograd.grad(logits[best] - others.max(), state)
    return -gradient


def _unit(move: Tensor, token: int) -> Tensor:
    """Return a move of the positions up to a token, of length 1 all together."""
    kept = torch.zeros_like(move)
    kept[: token + 1] = move[: token + 1]
    return kept / kept.norm().clamp(min=torch.finfo(move.dtype).tiny)
