"""Paths of some tokens in a plane or a space of principal components, and what that leaves out.

The basis of the run is the stored one of the analysis ``pca``. The bases of a prompt, of some
tokens and of their tails are fitted to the states that are read for it, at most so many that the
fit takes a fraction of a second. Nothing of this is stored.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from looplens.analysis import bases
from looplens.analysis.algebra.gram import Floats
from looplens.analysis.algebra.trajectories import tail_points
from looplens.analysis.analyzers._analyzer import labelled, rounding_dtype
from looplens.analysis.regimes.thresholds import resting_spread, rounding_step
from looplens.errors import AnalysisError, InputError, near_matches

if TYPE_CHECKING:
    from looplens.store import StoredRun

BASES = ("run", "prompt", "token", "tail")
LOOP_STATE = -1
"""Number of the loop state on the axis ``layer``."""

_LEAST_TAIL = 3  # states: two have a straight line between them and nothing else


def projection(
    run: StoredRun,
    tokens: int | Iterable[int],
    *,
    basis: str = "run",
    layers: int | Sequence[int | None] | None = None,
    restart: int = 0,
    components: Sequence[int] = (0, 1),
) -> xr.Dataset:
    """Project the states of some tokens on principal components.

    Parameters
    ----------
    run : StoredRun
        The run.
    tokens : int or iterable of int
        Global token numbers.
    basis : {"run", "prompt", "token", "tail"}
        What the components are fitted to: all tokens and restarts of the run (the stored analysis
        ``pca``); the prompts of the tokens; the tokens themselves; or the last quarter of their
        iterations, at least three. The last three are of this restart, without the start. In the
        basis of the tail every path is seen from the mean of its own tail, so that the motion that
        is left is what the components are of, and not how far apart the tokens lie.
    layers : int, None, or several of them
        States after these core layers; None is the loop state. Several share one basis, which is
        fitted to all of them; that of the run is then the one of the loop state.
    restart : int
        Which draw of the initial state.
    components : sequence of int
        Which components span the plane or space, from 0.

    Returns
    -------
    Dataset
        ``projection`` (layer, token, iteration, component), NaN where there is no state;
        ``off_plane`` (layer, token, iteration), the share of the squared distance from the origin
        of the basis that lies outside of these components, and ``step_off_plane``, the same of the
        step to that state; ``explained_variance_ratio`` (component) of the states that the basis
        was fitted to; ``in_fit`` (iteration), whether states of the tokens there can be among them.
        The loop state is layer -1. Attributes: ``basis``, ``states`` that it was fitted to, how
        many there were (``of_states``), ``fitted_to`` in words, and ``spread``, their
        root-mean-square distance from the origin over its norm (not of the run's basis); of tails,
        ``rests``: whether that may be rounding.

    Raises
    ------
    InputError
        If something of the selection is not in the run.
    AnalysisError
        If the run does not hold the layers, or too few states that are finite.

    Notes
    -----
    Signs are those of `looplens.analysis.pca`: the loading of largest magnitude is positive. What a
    reduced run did not keep counts nowhere.
    """
    chosen, places = _tokens(run, tokens), _places(run, layers)
    if basis not in BASES:
        raise InputError(
            f"basis must be one of {', '.join(BASES)}; got {basis!r}."
            f"{near_matches(str(basis), BASES)}"
        )
    restart = bases.index("restart", restart, run.restarts)
    iterations = _iterations(run, places)
    # states: [layer, token, iteration, d_model]
    states = bases.read_states(run, chosen, places, restart, iterations)
    in_fit = iterations >= 1
    if basis == "run":
        found = bases.of_run(run, places, components)
    elif basis == "prompt":
        found = bases.fitted(*bases.of_prompts(run, chosen, places, restart), components)
    elif basis == "token":
        found = bases.fitted(*bases.sampled(states[:, :, in_fit]), components)
    else:
        in_fit[: -max(_LEAST_TAIL, tail_points(int(in_fit.sum())))] = False
        tails = states[:, :, in_fit].astype(np.float64)
        origin = tails.mean(axis=2, keepdims=True)  # [layer, token, 1, d_model]
        found = bases.fitted(*bases.sampled(tails - origin), components, origin)
        most = resting_spread(rounding_step(rounding_dtype(run)))
        found.told["rests"] = bool(found.told["spread"] <= most)
    centred = states.astype(np.float64) - found.origin
    coordinates = centred @ found.directions.T
    axes = ("layer", "token", "iteration")
    missing = np.full((*states.shape[:2], 1), np.nan)
    away = _outside(centred, coordinates)
    step = _outside(np.diff(centred, axis=2), np.diff(coordinates, axis=2))
    return xr.Dataset(
        {
            "projection": labelled(
                (*axes, "component"), coordinates, "state in the components", "state units"
            ),
            "off_plane": labelled(
                axes, away, "share of the squared distance from the origin that is not shown"
            ),
            "step_off_plane": labelled(
                axes,
                np.concatenate([missing, step], axis=2),
                "share of the squared step to the state that is not shown",
            ),
            "explained_variance_ratio": labelled(
                ("component",), found.shares, "share of the variance of the fitted states"
            ),
            "in_fit": labelled(("iteration",), in_fit, "whether states there can be in the fit"),
        },
        coords={
            "layer": [LOOP_STATE if place is None else place for place in places],
            "token": chosen,
            "iteration": iterations,
            "component": np.asarray(components),
        },
        attrs={"basis": basis, **found.told},
    )


def _tokens(run: StoredRun, tokens: int | Iterable[int]) -> list[int]:
    several = list(tokens) if isinstance(tokens, Iterable) else [tokens]
    if not several:
        raise InputError("tokens is empty: name at least one global token number.")
    return [bases.index("token", token, run.n_tokens) for token in several]


def _places(run: StoredRun, layers: int | Sequence[int | None] | None) -> list[int | None]:
    """Return the layers asked for, the loop state as None, each once and in the order given."""
    several = list(layers) if isinstance(layers, Iterable) else [layers]
    if not several:
        raise InputError("layers is empty: name core layers, or None for the loop state.")
    numbers = [
        value if value is None else bases.index("layer", value, run.n_layers) for value in several
    ]
    held = run.recorded_layers if "resid_post" in run.site_names else ()
    for number in numbers:
        if number is not None and number not in held:
            raise AnalysisError(
                f"This run holds no states after layer {number}. Record it with "
                f"sites=('resid_post',), layers=[{number}], or leave layers out to see the loop "
                "state."
            )
    return list(dict.fromkeys(numbers))


def _iterations(run: StoredRun, places: Sequence[int | None]) -> np.ndarray:
    """Return the iterations of the states; the loop state has one more, the start."""
    start = [0] if None in places and run.all_iterations else []
    return np.array([*start, *run.kept_iterations])


def _outside(vectors: Floats, coordinates: Floats) -> Floats:
    """Share of the squares of vectors (..., d_model) that their coordinates (..., n) leave out."""
    whole = np.vecdot(vectors, vectors)
    shown = np.vecdot(coordinates, coordinates)
    share = 1 - np.divide(shown, whole, out=np.full(whole.shape, np.nan), where=whole > 0)
    return np.clip(share, 0.0, 1.0)
