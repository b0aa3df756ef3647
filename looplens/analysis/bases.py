"""What the components of a projection are fitted to: the run, prompts, some tokens, or their tails.

Reads states and fits to at most so many that it takes a fraction of a second. Which bases there are
and what is projected on them is the caller's affair.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from looplens.analysis.algebra.gram import Floats
from looplens.analysis.measures.pca import pca
from looplens.errors import AnalysisError, InputError

if TYPE_CHECKING:
    from looplens.store import StoredRun

_WORK = 2e8  # products of numbers in one fit: some 15 ms, and reading takes as long


@dataclass(frozen=True, kw_only=True, slots=True)
class FittedBasis:
    """Components that were asked for.

    ``directions`` (component, d_model), the ``shares`` (component,) of the variance that they
    explain, the ``origin`` that is subtracted first, and what ``told`` says of the fit in the
    attributes of a result.
    """

    directions: Floats
    shares: Floats
    origin: Floats
    told: dict[str, Any]


def index(name: str, value: Any, size: int) -> int:
    """Return a number of one of `size` things; raise `InputError` where there is none."""
    try:
        number = operator.index(value)
    except TypeError:
        raise InputError(f"{name} must be a whole number, got {value!r}.") from None
    if not 0 <= number < size:
        raise InputError(f"{name} {number} is not in this run, which has {size}, from 0 on.")
    return number


def read_states(
    run: StoredRun,
    tokens: Sequence[int],
    places: Sequence[int | None],
    restart: int,
    iterations: np.ndarray,
) -> np.ndarray:
    """Read states (layer, token, iteration, d_model); NaN at the start, which no layer has."""
    found = []
    for place in places:
        if place is None:
            read = run.state(restart=restart, tokens=np.asarray(tokens))
        else:
            read = run.site("resid_post", restart=restart, tokens=np.asarray(tokens), layer=place)
        values = read.transpose("token", "iteration", ...).values
        kept = np.isin(read["iteration"].values, iterations)
        whole = np.full((len(tokens), len(iterations), values.shape[-1]), np.nan, values.dtype)
        whole[:, len(iterations) - int(kept.sum()) :] = values[:, kept]
        found.append(whole)
    return np.stack(found)


def of_run(run: StoredRun, places: Sequence[int | None], components: Sequence[int]) -> FittedBasis:
    """Return the stored basis, in the dimensions of the stored states."""
    from looplens.analysis.suite import get

    results, prefix, of = get(run, "pca"), "", "loop states"
    states = int(results["components"].attrs.get("states", 0))
    if len(places) == 1 and places[0] is not None:
        results, prefix = results.sel(layer=places[0]), "layer_"
        of = f"states after layer {places[0]}"
    kept = [index("component", value, results.sizes["component"]) for value in components]
    directions = results[prefix + "components"].isel(component=kept).values.astype(np.float64)
    mean = results[prefix + "mean"].values.astype(np.float64)
    if (reduction := run.reduction) is not None:
        directions = directions @ reduction.basis.T
        mean = (mean - reduction.mean) @ reduction.basis.T
    shares = results[prefix + "explained_variance_ratio"].isel(component=kept).values
    of_states = run.n_tokens * run.restarts * len(run.kept_iterations)
    told = {"states": states, "of_states": of_states, "fitted_to": f"{of} of the run"}
    return FittedBasis(directions=directions, shares=shares, origin=mean, told=told)


def _most(width: int) -> int:
    """Return how many states of so many dimensions a fit may have."""
    many = int(_WORK // width**2)
    return many if many >= width else max(16, int(math.sqrt(_WORK / width)))


def of_prompts(
    run: StoredRun, tokens: Sequence[int], places: Sequence[int | None], restart: int
) -> tuple[np.ndarray, int]:
    """Read states (n, d_model) of evenly spaced tokens of the prompts; how many states they have.

    Whole trajectories are read, so that early and late iterations weigh the same.
    """
    prompts = np.unique(run.tokens["prompt"].values[list(tokens)])
    members = np.concatenate([_numbers(run.token_range(int(prompt))) for prompt in prompts])
    each = len(run.kept_iterations) * len(places)
    fitting = min(len(members), max(1, _most(run.width) // each))
    taken = members[np.unique(np.linspace(0, len(members) - 1, fitting).round().astype(int))]
    states = read_states(run, taken.tolist(), places, restart, np.asarray(run.kept_iterations))
    return sampled(states)[0], len(members) * each


def _numbers(tokens: slice) -> np.ndarray:
    return np.arange(tokens.start, tokens.stop)


def sampled(states: np.ndarray) -> tuple[np.ndarray, int]:
    """Return at most so many states (n, d_model) as a fit may have; and of how many.

    What is not finite is left out. The sample is drawn, always in the same way: every second state
    of an orbit of period two would be one point.
    """
    flat = states.reshape(-1, states.shape[-1])
    flat = flat[np.isfinite(flat).all(-1)]
    available, most = len(flat), _most(flat.shape[-1])
    if available > most:
        flat = flat[np.sort(np.random.default_rng(0).permutation(available)[:most])]
    return flat, available


def fitted(
    states: np.ndarray,
    available: int,
    components: Sequence[int],
    origin: np.ndarray | None = None,
) -> FittedBasis:
    """Fit components to states (n, d_model), which are those about `origin` where it is given."""
    if len(states) < 2:
        raise AnalysisError(
            f"A basis needs at least two finite states, and there are {len(states)}. Choose the "
            "basis of the run, or record more iterations."
        )
    wanted = max(index("component", value, states.shape[-1]) for value in components) + 1
    found = pca(states, n_components=wanted)
    centred = states - found.mean
    about = found.mean if origin is None else origin[np.isfinite(origin).all(-1)]
    norm = math.sqrt(float(np.square(about).sum()) / (about.size // states.shape[-1]))
    spread = math.sqrt(float(np.square(centred).sum()) / len(states))
    sample = "" if len(states) == available else f"{len(states)} of "
    told = {
        "states": len(states),
        "of_states": available,
        "fitted_to": f"{sample}{available} states",
        "spread": spread / norm if norm else float("inf"),
    }
    kept = list(components)
    return FittedBasis(
        directions=found.components[kept],
        shares=found.explained_variance_ratio[kept],
        origin=found.mean if origin is None else origin,
        told=told,
    )
