"""Ouro's exit gate: from one logit an iteration to a distribution over exits, and ways to read it.

Pure functions over gate logits of shape (iteration, batch, pos), index 0 being iteration 1; exit
steps count from 1, like iterations. They know nothing of models: ``model.gate(state)`` or
``trace.gate_logits`` gives the logits.

References
----------
.. [1] Zhu et al., "Scaling Latent Reasoning via Looped Language Models", arXiv:2510.25741,
   section 3.2 (gate, survival, exit distribution, Q-exit).
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from looplens.errors import InputError

GateLogits = Float[Tensor, "iteration batch pos"]


def exit_probability(gate_logits: GateLogits) -> GateLogits:
    """Return ``lambda_t``, the probability of leaving at iteration t for those still inside."""
    return torch.sigmoid(_wide(gate_logits))


def survival(gate_logits: GateLogits) -> GateLogits:
    """Return ``S_t = prod_{j <= t} (1 - lambda_j)``, the probability of going on after t."""
    return _log_survival(gate_logits).exp()


def exit_distribution(gate_logits: GateLogits) -> GateLogits:
    """Return the probability of leaving at each iteration.

    ``p_t = lambda_t S_{t-1}`` before the last iteration, and ``p_T = S_{T-1}``: whatever is left
    leaves there, whatever the last gate says. Sums to 1 over the first axis.

    Parameters
    ----------
    gate_logits : Float[Tensor, "iteration batch pos"]
        Gate outputs before the sigmoid; further axes are carried along.

    Returns
    -------
    Float[Tensor, "iteration batch pos"]
        At least float32.

    References
    ----------
    arXiv:2510.25741, section 3.2.
    """
    gate = _wide(gate_logits)
    inside = torch.cat((torch.ones_like(gate[:1]), survival(gate)[:-1]))  # S_{t-1}
    return torch.cat((torch.sigmoid(gate[:-1]) * inside[:-1], inside[-1:]))


def threshold_exit(gate_logits: GateLogits, q: float) -> Int[Tensor, "batch pos"]:
    """Return the first iteration whose cumulative exit probability reaches ``q`` (Q-exit).

    ``min {t : 1 - S_t >= q}``, and T where there is none before. Survival is kept as a logarithm
    in float64, so ``q = 1`` means all iterations however sure the gate is, as documented;
    :func:`published_exit` tells what the published arithmetic makes of it.

    Parameters
    ----------
    gate_logits : Float[Tensor, "iteration batch pos"]
        Gate outputs before the sigmoid.
    q : float
        Cumulative probability between 0 and 1.

    Returns
    -------
    Int[Tensor, "batch pos"]
        Iterations, counted from 1.

    Raises
    ------
    InputError
        If ``q`` is outside 0..1.
    """
    check_quantile(q)
    left = _log_survival(gate_logits.double())
    return first_true(reaches(left, q))


def published_exit(
    gate_logits: GateLogits,
    threshold: float | None = 1.0,
    *,
    dtype: torch.dtype | None = None,
) -> Int[Tensor, "batch pos"]:
    """Return the iteration that the published class reads out by default.

    Its configuration says ``early_exit_threshold: 1.0``, meant as "all iterations". The cumulative
    test runs all the same, in the dtype of the model: once rounding makes the cumulative sum 1,
    the token leaves. That happens in bfloat16 from gate logits of about 4 to 8 on, in float32
    from about 8 to 20.

    Parameters
    ----------
    gate_logits : Float[Tensor, "iteration batch pos"]
        Gate outputs before the sigmoid.
    threshold : float, optional
        ``early_exit_threshold``; ``None`` switches the test off.
    dtype : torch.dtype, optional
        What the published model would run in; by default the dtype of ``gate_logits``.

    Returns
    -------
    Int[Tensor, "batch pos"]
        Iterations, counted from 1.

    Notes
    -----
    The operations and their order are those of the published ``forward``, since every rounding
    matters here. All iterations are computed and cached in any case: the exit only selects which
    state is read out. A weighted exit is ignored while a threshold is set.
    """
    gate = gate_logits.to(dtype or gate_logits.dtype)
    if threshold is None:
        return torch.full(gate.shape[1:], len(gate), device=gate.device)
    remaining = torch.ones_like(gate[0])
    pdf = []
    for t, g in enumerate(gate, start=1):
        halting = torch.sigmoid(g)
        if t == len(gate):
            pdf.append(remaining)
        else:
            pdf.append(halting * remaining)
            remaining = remaining * (1.0 - halting)
    cumulative = torch.cumsum(torch.stack(pdf, dim=-1), dim=-1)
    return first_true((cumulative >= threshold).movedim(-1, 0))


def expected_logits(
    logits: Float[Tensor, "iteration batch pos d_vocab"], gate_logits: GateLogits
) -> Float[Tensor, "batch pos d_vocab"]:
    """Return the logits averaged over iterations with the exit distribution (weighted exit).

    The published class returns these when labels are given, and then only: its logits with labels
    differ from those without.
    """
    _check_iterations(logits, gate_logits)
    weight = exit_distribution(gate_logits).to(logits.dtype)
    return torch.einsum("tbp,tbpv->bpv", weight, logits)


def logits_at(
    logits: Float[Tensor, "iteration batch pos d_vocab"], step: Int[Tensor, "batch pos"]
) -> Float[Tensor, "batch pos d_vocab"]:
    """Return every token's logits after its own exit step (counted from 1).

    Raises
    ------
    InputError
        If a step is outside 1..T.
    """
    low, high = int(step.min()), int(step.max())
    if low < 1 or high > len(logits):
        raise InputError(f"exit steps must lie in 1..{len(logits)}, got {low}..{high}")
    index = (step.long() - 1)[None, ..., None].expand(1, *logits.shape[1:])
    return logits.gather(0, index)[0]


# ---------------------------------------------------------------- shared with the online rule


def reaches(log_survival: Tensor, q: float) -> Tensor:
    """Tell where ``1 - S >= q``, from ``log S``."""
    # 1 - S cannot be compared directly: S below 1e-16 would read as an exit at q = 1.
    if q == 1:
        return log_survival == -torch.inf
    return -torch.expm1(log_survival) >= q


def first_true(mask: Tensor) -> Int[Tensor, ...]:
    """Return the place of the first true along the first axis, from 1; its length if none is."""
    found = mask.any(0)
    first = mask.to(torch.uint8).argmax(0) + 1
    return torch.where(found, first, torch.full_like(first, len(mask)))


def check_quantile(q: float) -> None:
    """Raise InputError unless ``0 <= q <= 1``."""
    if not 0 <= q <= 1:
        raise InputError(f"the exit threshold q must lie between 0 and 1, got {q}")


def _log_survival(gate_logits: Tensor) -> Tensor:
    # log(1 - sigmoid(g)) = logsigmoid(-g), which does not round to zero.
    return F.logsigmoid(-_wide(gate_logits)).cumsum(0)


def _wide(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


def _check_iterations(logits: Tensor, gate_logits: Tensor) -> None:
    if logits.shape[:3] != gate_logits.shape:
        raise InputError(
            f"logits of shape {tuple(logits.shape)} and gate logits of shape "
            f"{tuple(gate_logits.shape)} must agree in (iteration, batch, pos)"
        )
