"""The stages of a looped model beside those of a feed-forward model.

A feed-forward model is a loop that runs once: recorded with ``iterations=1``, its layers are the
layers of the core. So both runs hold the same analysis, and only the profiles are compared here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from looplens.analysis.algebra.inputs import whole_number
from looplens.analysis.analyzers._analyzer import labelled
from looplens.analysis.analyzers.stages import mean_profiles
from looplens.analysis.measures.stages import STAGES, profile_correlation
from looplens.analysis.suite import get
from looplens.errors import AnalysisError, InputError

if TYPE_CHECKING:
    from looplens.store import StoredRun


def compare_stages(
    run: StoredRun, feed_forward: StoredRun, *, loops: int | None = None
) -> xr.Dataset:
    """Compare the stages of inference of a looped model with those of a feed-forward model.

    Loop t, layer l of a core of k layers lies at depth ``(t - 1) k + l``. Two questions are asked
    of every loop, each a correlation over its layers:

    * ``like_whole``: does it go through the stages that the feed-forward model goes through from
      its first layer to its last? Its profile is stretched over all of the loop's layers.
    * ``like_part``: does it do what the feed-forward model does at the same depth?

    Parameters
    ----------
    run : StoredRun
        The looped model.
    feed_forward : StoredRun
        The feed-forward model, recorded with ``iterations=1`` on the same prompts.
    loops : int, optional
        How many loops of `run` to take; by default as many as make it as deep as the feed-forward
        model, or all where that is not possible.

    Returns
    -------
    Dataset
        ``looped`` (stage, iteration, layer) and ``feed_forward`` (stage, depth), means over
        prompts and restarts; ``like_whole`` and ``like_part`` (stage, iteration), NaN with fewer
        than three layers in the loop; ``difference`` (stage), mean absolute difference at the same
        relative depth; the coordinate ``looped_depth`` (iteration, layer). The attributes
        ``depth`` and ``feed_forward_depth`` are equal where the comparison is one of equal depth;
        otherwise depths are compared as shares of the whole. ``prompts`` counts the prompts.

    Raises
    ------
    InputError
        If `feed_forward` holds more than one iteration, or `loops` more than the run.
    AnalysisError
        If a run does not hold the data for its stages, or they share no prompt.

    References
    ----------
    The question is that of Blayney et al. 2026, arXiv:2604.11791; the two correlations are ours.
    """
    ours, theirs = get(run, "stages"), get(feed_forward, "stages")
    if theirs.sizes["iteration"] != 1 or feed_forward.iterations != 1:
        raise InputError(
            f"feed_forward must be a model that runs once: {feed_forward.path} holds "
            f"{feed_forward.iterations} iterations. Record it with iterations=1, with all layers "
            "in the core, and pass the looped run first."
        )
    pairs = _shared_prompts(run, ours, feed_forward, theirs)
    ours = ours.sel(prompt=[one for one, _ in pairs])
    theirs = theirs.sel(prompt=[other for _, other in pairs])
    ours = ours.sel(iteration=slice(None, _loops(run, feed_forward, loops)))
    ours, theirs = _known_in_both(ours, theirs)
    looped = mean_profiles(ours)
    reference = mean_profiles(theirs).isel(iteration=0)

    count, layers = run.n_layers, np.asarray(looped["layer"].values)
    iterations = np.asarray(looped["iteration"].values)
    depth = count * int(iterations[-1])
    place = (iterations[:, None] - 1) * count + layers
    known = (np.asarray(reference["layer"].values) + 0.5) / feed_forward.n_layers
    part = _at(reference.values, known, (place + 0.5) / depth)
    whole = _at(reference.values, known, (layers + 0.5) / count)[:, None]
    values = looped.values
    axes, loop_axes = ("stage", "iteration"), ("stage", "iteration", "layer")
    return xr.Dataset(
        {
            "looped": labelled(loop_axes, values, "stage of the looped model", "as the stage"),
            "feed_forward": labelled(
                ("stage", "depth"), reference.values, "stage of the other", "as the stage"
            ),
            "like_whole": labelled(
                axes,
                profile_correlation(values, whole),
                "correlation over layers with the whole feed-forward model",
            ),
            "like_part": labelled(
                axes,
                profile_correlation(values, part),
                "correlation over layers with the feed-forward model at the same depth",
            ),
            "difference": labelled(
                ("stage",),
                np.abs(values - part).mean((1, 2)),
                "mean absolute difference at the same depth",
                "as the stage",
            ),
        },
        coords={
            "stage": looped["stage"].values,
            "iteration": iterations,
            "layer": layers,
            "depth": reference["layer"].values,
            "looped_depth": (("iteration", "layer"), place),
        },
        attrs={
            "depth": depth,
            "feed_forward_depth": feed_forward.n_layers,
            "prompts": len(pairs),
        },
    )


def _loops(run: StoredRun, feed_forward: StoredRun, loops: int | None) -> int:
    if loops is not None:
        if whole_number(loops, "loops", least=1) > run.iterations:
            raise InputError(f"loops={loops}, but {run.path} holds {run.iterations} iterations.")
        return loops
    fitting, rest = divmod(feed_forward.n_layers, run.n_layers)
    return fitting if not rest and 1 <= fitting <= run.iterations else run.iterations


def _at(profile: np.ndarray, known: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Read profiles (stage, depth) at relative depths, between layers on a straight line."""
    return np.stack([np.interp(wanted, known, stage) for stage in profile])


def _known_in_both(ours: xr.Dataset, theirs: xr.Dataset) -> tuple[xr.Dataset, xr.Dataset]:
    """Leave out of each stage the prompts that either run does not know: means are of the same."""
    found = ours.copy(), theirs.copy()
    for name in STAGES:
        known = np.ones(ours.sizes["prompt"], dtype=bool)
        for one in found:
            known &= one[name].notnull().any(("restart", "layer", "iteration")).values
        for one in found:
            one[name] = one[name].where(xr.DataArray(known, dims="prompt"))
    return found


def _shared_prompts(
    run: StoredRun, ours: xr.Dataset, other: StoredRun, theirs: xr.Dataset
) -> list[tuple[int, int]]:
    """Pair prompts with the same tokens."""
    others = {_ids(other, int(number)): int(number) for number in theirs["prompt"].values}
    own = {_ids(run, int(number)): int(number) for number in ours["prompt"].values}
    pairs = [(number, others[ids]) for ids, number in own.items() if ids in others]
    if not pairs:
        raise AnalysisError(
            f"{run.path} and {other.path} have no prompt in common among those whose stages were "
            "measured. Record both on the same prompts, with attention of the same ones."
        )
    return pairs


def _ids(run: StoredRun, prompt: int) -> tuple[int, ...]:
    tokens = run.token_range(prompt)
    columns = (run.tokens[name].values[tokens].tolist() for name in ("position", "token_id"))
    length = int(run.prompts["length"].values[prompt])
    return (length, *(value for column in columns for value in column))
