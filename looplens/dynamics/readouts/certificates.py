"""Whether more iterations could still change an answer: the way that is left against the margin.

If the states can travel at most a distance R from here on, and every state within mu of this one
gives the same answer, then R < mu says that the answer stays for ever. R follows from steps that
shrink; mu from the readout: exactly where that is a norm and a matrix, by search where layers lie
in between.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from looplens.dynamics.readouts._answer_radius import exact_radius, searched_factor
from looplens.errors import InputError
from looplens.models import InitialState, LoopedTransformer
from looplens.models.inputs import whole_number
from looplens.recording import trace

CERTIFIED, HOLDS, MAY_CHANGE, NOT_SHRINKING = "certified", "holds", "may change", "not shrinking"
RATIOS = 8  # of successive steps, the largest of which is the rate
FLOOR_STEPS = 4  # roundings of the dtype that a step at rest may have


def certificate(
    model: LoopedTransformer,
    prompt: Any,
    *,
    iterations: int | None = None,
    initial_state: str | int | InitialState | Tensor | None = None,
    directions: int = 8,
    seed: int = 0,
) -> xr.Dataset:
    r"""Judge for every token of a prompt whether its answer can still change.

    A token looks at those before it, so what moves by itself is the state of the tokens up to it,
    z, all positions in one vector. With :math:`\delta = |z_T - z_{T-1}|` its last step and
    :math:`\rho` the largest ratio of successive steps among the last eight above the rounding floor
    :math:`f`, steps that go on shrinking so fast leave

    .. math:: R = \frac{\rho\,\delta + f}{1 - \rho}

    of the way. A readout without layers decides by :math:`\arg\max_v w_v \cdot x` with x the state
    up to a positive factor, so the nearest state with another answer has the distance

    .. math:: \mu = \min_v \frac{(w_{best} - w_v) \cdot s_T}{|w_{best} - w_v|}

    (norm weights and a readout map are part of w). Where a coda mixes positions, there is no such
    number: z is moved by c R along the gradient of the margin, along the last step and along random
    directions, and the smallest c that changes the answer is searched.

    Parameters
    ----------
    model : LoopedTransformer
        A native model.
    prompt : str, sequence of int or tensor
        One prompt.
    iterations : int, optional
        T; by default the model's recommended depth.
    initial_state : optional
        See :meth:`LoopedTransformer.initial_state`.
    directions : int
        Random directions of the search behind a coda.
    seed : int
        Of these.

    Returns
    -------
    Dataset
        Over ``token``: ``status`` (``certified``: R < mu, exactly; ``holds``: no direction that was
        tried changes the answer within R, which is no proof; ``may change``; ``not shrinking``: the
        steps bound nothing), ``remaining`` (R), ``radius`` (mu; NaN behind a coda), ``safety``
        (mu / R, or c; at most 64), ``rate``, ``last_step`` (of z), ``prediction``.

    Raises
    ------
    InputError
        If the model is not a native one, the prompt is a batch, or there are fewer than 4
        iterations.

    Notes
    -----
    The rate is measured and not proved: a certificate says "if the steps go on shrinking like
    this". Near a saddle they can do so for long, and then leave.

    References
    ----------
    .. [1] Viakhirev et al., arXiv:2608.18222, proposition 1 (R_t < mu(z_t); as summarised
       elsewhere, paper text not read). The geometric tail and the radii are ours.
    """
    if not isinstance(model, LoopedTransformer):
        raise InputError(
            "A certificate needs a native model (looplens.load_model), whose readout is known; got "
            f"{type(model).__name__}."
        )
    count = model.check_iterations(iterations)
    if count < 4:
        raise InputError(f"A rate needs at least 4 iterations; got {count}. Give iterations=.")
    directions = whole_number(directions, "directions", least=0)
    traced = trace(model, prompt, count, initial_state=initial_state)
    if traced.token_ids.shape[0] != 1:
        raise InputError(f"One prompt at a time, got a batch of {traced.token_ids.shape[0]}.")
    states = traced.states[:, 0]  # iteration_and_initial pos d_model
    rate, last_step, remaining = way_left(states.double().cpu().numpy(), model.dtype)
    bounded = np.isfinite(remaining)
    with torch.no_grad():
        best = traced.logits[-1, 0].argmax(-1)
    if model.cfg.n_coda:
        radius = np.full(len(remaining), np.nan)
        factor = searched_factor(
            model, states, best, remaining, count, directions=directions, seed=seed
        )
        sure = HOLDS
        safety = np.where(bounded, factor, np.nan)
    else:
        radius = exact_radius(model, states[-1], best).cpu().numpy()
        with np.errstate(divide="ignore"):
            safety = np.where(bounded, radius / remaining, np.nan)
        sure = CERTIFIED
    status = np.where(bounded, np.where(safety > 1, sure, MAY_CHANGE), NOT_SHRINKING)
    rows = {
        "status": (status.astype(object), "whether the answer can still change", "1"),
        "remaining": (remaining, "way that is left to the tokens up to this one", "state units"),
        "radius": (radius, "distance to the nearest state with another answer", "state units"),
        "safety": (safety, "how many times the way that is left the answer survives", "1"),
        "rate": (rate, "largest ratio of successive steps at the end", "1"),
        "last_step": (last_step, "size of their last step", "state units"),
        "prediction": (best.cpu().numpy(), "the answer, a token id", "1"),
    }
    data = {
        name: xr.Variable(("token",), values, {"long_name": text, "units": units})
        for name, (values, text, units) in rows.items()
    }
    return xr.Dataset(
        data,
        coords={"token": np.arange(len(status))},
        attrs={"iterations": count, "exact": int(not model.cfg.n_coda)},
    )


def way_left(
    states: Float[np.ndarray, "iteration_and_initial pos d_model"], dtype: torch.dtype
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return rate, last step and the way that is left of each token and all before it.

    The rate is the largest ratio of successive steps among the last eight pairs above the floor.
    Without shrinking, or with too few steps above the floor to tell, the way left is NaN.
    """
    step = _up_to(np.linalg.norm(np.diff(states, axis=0), axis=-1))  # iteration pos
    floor = FLOOR_STEPS * torch.finfo(dtype).eps * _up_to(np.linalg.norm(states[-1], axis=-1))
    rate, remaining = np.full(len(floor), np.nan), np.full(len(floor), np.nan)
    for token, path in enumerate(step.T):
        moving = path > 3 * floor[token]
        last = int(np.flatnonzero(moving)[-1]) if moving.any() else -1
        # What stood still and then moved again has no rate, and so has what moves too briefly.
        if last >= 2 and moving[: last + 1].all():
            rate[token] = (path[1 : last + 1] / path[:last])[-RATIOS:].max()
        if rate[token] < 1:
            tail = rate[token] * path[-1] + floor[token]
            remaining[token] = tail / (1 - rate[token])
    return rate, step[-1], remaining


def _up_to(sizes: np.ndarray) -> np.ndarray:
    """Size of the vector of all positions up to each one, from the sizes of its parts."""
    return np.sqrt((sizes**2).cumsum(-1))
