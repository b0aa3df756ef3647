"""Where the state is after every layer of a pass that begins and ends at the fixed point.

A loop at rest is at rest as a cycle: inside a pass the state goes from layer to layer and comes
back. Each of its points is the fixed point of the pass that is begun behind that layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from looplens.dynamics.eigen.resting import resting
from looplens.dynamics.maps.labelled import STATE, Progress, labelled, variable
from looplens.dynamics.maps.loop_step import LoopStep
from looplens.dynamics.maps.recorded import recorded
from looplens.models.protocol import LoopedModel


def cycle_points(
    model: Any,
    source: Any,
    *,
    prompt: int = 0,
    restart: int = 0,
    tokens: int | Sequence[int] | None = None,
    iteration: int | None = None,
    dtype: torch.dtype | None = None,
    progress: Progress = None,
) -> xr.Dataset:
    """Return the state after every layer at the fixed point of the sequence.

    Parameters
    ----------
    model, source, prompt, restart, tokens, iteration, dtype, progress
        As in :func:`fixed_points`; the whole prompt is solved up to the last token.

    Returns
    -------
    Dataset
        Over ``token`` and ``place``: ``in`` (what the first layer is given: behind the injection),
        ``layer 0`` and so on, and ``state`` (at the end of the pass, where a norm of the loop makes
        that another place than behind the last layer).
        ``cycle_point`` is NaN where the token, or one that it sees, has no verified fixed point.
        ``limit_distance``: from where the same pass goes from the recorded state, relative to the
        norm: at rounding where the recording has settled there, so the points are the limits of
        the layers. ``closure``: |R(s) - s| / |s| of the pass. ``separation``: distance to the place
        before, relative to the norm (of ``in``, to the last).

    Raises
    ------
    InputError
        If the model is not the one of the recording, its loop has no step or passes through no
        hook points, or a choice is out of range.
    AnalysisError
        If the run does not hold what is needed, or states are not finite.

    References
    ----------
    Distinct fixed points of the layers of Huginn's loop: seen in an audit, as summarised in notes
    (text not read).
    """
    found = recorded(model, source, prompt=prompt, restart=restart, dtype=dtype)
    chosen = found.positions(tokens)
    here = found.at(iteration)
    hooks = _places(found.step.looped)
    going, _ = _pass(found.step, here, list(hooks))
    rest = resting(
        found.step, here, causal=found.causal, upto=max(chosen), stop=True, progress=progress
    )
    seen = np.logical_and.accumulate(rest.verified) if found.causal else rest.verified
    points, again = _pass(found.step, rest.states, list(hooks))
    places = list(hooks.values())
    if len(places) > 1 and torch.equal(points[:, -1], points[:, -2]):
        places = places[:-1]  # no norm at the end of the pass: it ends with the last layer
    points, going = points[:, : len(places)], going[:, : len(places)]
    size = points.norm(dim=-1).clamp(min=torch.finfo(points.dtype).tiny)
    known = seen[chosen]

    def of(values: Tensor, long_name: str, units: str = "of the norm") -> xr.Variable:
        """Return an array of the chosen tokens, NaN where there is no fixed point."""
        array = values[chosen].cpu().numpy()
        array = np.where(known.reshape(-1, *[1] * (array.ndim - 1)), array, np.nan)
        return variable(("token", "place", "d_model")[: array.ndim], array, long_name, units)

    apart = (points - points.roll(1, dims=1)).norm(dim=-1) / size
    closure = (again - rest.states).norm(dim=-1) / rest.states.norm(dim=-1)
    lacking = [number for number, own in zip(found.numbers(chosen), known, strict=True) if not own]
    why = f"tokens {', '.join(map(str, lacking))}: they, or some that they see, have no fixed point"
    return labelled(
        found,
        chosen,
        {
            "cycle_point": of(points, "state at the place, at the fixed point", STATE),
            "limit_distance": of(
                (going - points).norm(dim=-1) / size,
                "distance from where the pass goes from the recorded state",
            ),
            "separation": of(apart, "distance from the place before"),
            "closure": of(closure, "|R(s) - s| of the pass"),
            "verified": variable(
                "token", known, "whether it and all that it sees are at verified fixed points"
            ),
        },
        method="one pass from the fixed points of all tokens",
        coords={"place": np.array(places, dtype=object)},
        notes=[why] if lacking else [],
        iteration=found.iteration(iteration),
    )


def _places(looped: LoopedModel) -> dict[str, str]:
    """Return the hook points of a pass, in order, and what they are called."""
    layers = range(looped.n_layers)
    wanted = {
        looped.hook_name("resid_pre", 0): "in",
        **{looped.hook_name("resid_post", layer): f"layer {layer}" for layer in layers},
        "hook_state": "state",
    }
    there = set(looped.hook_names())
    return {name: place for name, place in wanted.items() if name in there}


@torch.no_grad()
def _pass(
    step: LoopStep, states: Float[Tensor, "pos d_model"], names: list[str]
) -> tuple[Float[Tensor, "pos place d_model"], Float[Tensor, "pos d_model"]]:
    """Return the state at every place of one pass, and at its end."""
    seen: dict[str, Tensor] = {}

    def keep(value: Tensor, hook: Any, name: str) -> None:
        seen[name] = value[0].clone()

    hooks = [(name, lambda value, hook, name=name: keep(value, hook, name)) for name in names]
    end = step.with_hooks(hooks)(states[None])[0]
    return torch.stack([seen[name] for name in names], dim=1), end
