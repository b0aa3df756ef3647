"""Path independence of a whole run in a few hundred numbers, however many tokens it has.

Counts are of all tokens. Curves over the iterations are of at most some thousand of them: slabs of
neighbouring tokens evenly over the run, so that little is read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from looplens.analysis.analyzers._analyzer import labelled, over_known
from looplens.analysis.regimes.classifying import REGIMES
from looplens.errors import AnalysisError, InputError, near_matches

if TYPE_CHECKING:
    from looplens.store import StoredRun

DIFFERS = "differs"
"""Group of the tokens whose regime is not the same from every restart."""

MOST_SAMPLED = 4096
_SLABS = 8
_PER_DECADE = 4
_LEAST_ANGLE = 1e-6  # one minus a cosine: below this, float32 states have the same direction
_QUANTILES = (0.1, 0.5, 0.9)
_CURVES = ("gap", "readout_agreement")


def restart_overview(run: StoredRun) -> xr.Dataset:
    """Count where the restarts of all tokens of a run end.

    Parameters
    ----------
    run : StoredRun
        A run with at least two restarts.

    Returns
    -------
    Dataset
        ``gap_count`` (group, gap_bin) and ``angle_count`` (group, angle_bin): tokens by
        ``final_gap``, and by one minus ``token_aa``, of `path_independence`, in bins whose edges
        are ``gap_edge`` and ``angle_edge``; a value below the first edge is in the first bin. A
        group is the regime that a token has from every restart, or ``"differs"``. ``aa_score``,
        ``same_regime`` (share of the tokens) and, with a readout, ``agreement`` (of predictions at
        the last iteration). The attribute ``tokens`` is how many there are that are known.

    Raises
    ------
    AnalysisError
        If the run holds only one restart, or not what the analyses need.
    """
    from looplens.analysis.suite import get  # the suite is slow to import

    found, verdicts = get(run, "path_independence"), get(run, "classify")
    gap, cosine = found["final_gap"].values, found["token_aa"].values
    known = np.isfinite(gap)
    group = _groups(verdicts)[known]
    names = (*REGIMES, DIFFERS)
    gap_edge, gap_count = _histogram(gap[known], group, len(names))
    directed = np.isfinite(cosine[known])
    angle = np.maximum(1 - cosine[known][directed], _LEAST_ANGLE)
    angle_edge, angle_count = _histogram(angle, group[directed], len(names))
    same = float((group != len(REGIMES)).mean()) if len(group) else np.nan
    data = {
        "gap_count": labelled(("group", "gap_bin"), gap_count, "tokens by final_gap"),
        "gap_edge": labelled(("gap_end",), gap_edge, "ends of the bins of final_gap"),
        "angle_count": labelled(("group", "angle_bin"), angle_count, "tokens by 1 - token_aa"),
        "angle_edge": labelled(("angle_end",), angle_edge, "ends of the bins of 1 - token_aa"),
        "aa_score": labelled((), float(found["aa_score"]), "mean of token_aa over the tokens"),
        "same_regime": labelled((), same, "share of tokens with one regime from every restart"),
    }
    if "agreement" in found:
        data["agreement"] = labelled(
            (), float(found["agreement"]), "share of pairs of restarts that predict the same token"
        )
    names_of = {"group": np.array(names, dtype=object)}
    return xr.Dataset(data, coords=names_of, attrs={"tokens": int(known.sum())})


def restart_curves(run: StoredRun, prompt: int, *, of: str = "gap") -> xr.Dataset:
    """Return how restarts differ over the iterations: of a prompt, and of the whole run.

    Parameters
    ----------
    run : StoredRun
        A run with at least two restarts.
    prompt : int
        Number of the prompt.
    of : {"gap", "readout_agreement"}
        The distance between restarts over their norm, or the share of pairs of restarts that
        predict the same token; variables of `path_independence`.

    Returns
    -------
    Dataset
        ``run`` (quantile, iteration), three quantiles over the tokens of the run, and ``prompt``
        (iteration), the median over those of the prompt; of an agreement the means, ``run``
        (iteration) and ``prompt`` (iteration). Of long runs a sample is read; the attributes
        ``sampled`` and ``tokens`` count its tokens and all.

    Raises
    ------
    InputError
        If `of` is something else.
    AnalysisError
        If the run holds only one restart, or not what the analysis needs.
    """
    from looplens.analysis.suite import get  # the suite is slow to import

    if of not in _CURVES:
        known = " or ".join(map(repr, _CURVES))
        raise InputError(f"of must be {known}, got {of!r}.{near_matches(str(of), _CURVES)}")
    found = get(run, "path_independence")
    if of not in found:
        raise AnalysisError(
            "Agreement of restarts is that of their predictions, and this run has no readout. "
            "Record with readout=True (--readout on the command line)."
        )
    curves = _read(found[of], sampled_slabs(run.n_tokens))
    own = found[of].isel(token=run.token_range(prompt)).values
    words = found[of].attrs["long_name"]
    coords: dict[str, Any] = {"iteration": found["iteration"].values}
    if of == "gap":
        axes: tuple[str, ...] = ("quantile", "iteration")
        of_run, of_prompt = _quantiles(curves, _QUANTILES), _quantiles(own, [0.5])[0]
        statistics = ("quantiles", "median")
        coords["quantile"] = list(_QUANTILES)
    else:
        axes, statistics = ("iteration",), ("mean", "mean")
        of_run, of_prompt = _means(curves), _means(own)
    return xr.Dataset(
        {
            "run": labelled(axes, of_run, f"{words}: {statistics[0]} over tokens of the run"),
            "prompt": labelled(
                ("iteration",), of_prompt, f"{words}: {statistics[1]} over those of the prompt"
            ),
        },
        coords=coords,
        attrs={"tokens": run.n_tokens, "sampled": len(curves)},
    )


def _means(curves: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return means over the known values of curves (row, iteration)."""
    return np.array([over_known(np.mean, column) for column in curves.T])


def _quantiles(curves: NDArray[np.floating], shares: Sequence[float]) -> NDArray[np.float64]:
    """Return quantiles over the rows of curves (row, iteration) that are known throughout."""
    known = curves[np.isfinite(curves).all(1)]
    if not len(known):
        return np.full((len(shares), curves.shape[1]), np.nan)
    return np.quantile(known, shares, axis=0)


def sampled_slabs(tokens: int, most: int = MOST_SAMPLED) -> list[slice]:
    """Choose slabs of neighbouring tokens evenly over a run, at most so many tokens together."""
    if tokens <= most:
        return [slice(0, tokens)]
    size = most // _SLABS
    starts = np.linspace(0, tokens - size, _SLABS).round().astype(int)
    return [slice(int(start), int(start) + size) for start in starts]


def _read(curves: xr.DataArray, slabs: list[slice]) -> NDArray[np.floating]:
    """Read some tokens only: (token, iteration)."""
    return np.concatenate([curves.isel(token=slab).values for slab in slabs])


def _groups(verdicts: xr.Dataset) -> NDArray[np.intp]:
    """Return the group of every token: place in the regimes, or one more where they differ."""
    first = verdicts["regime"].isel(restart=0).values
    group = np.full(len(first), len(REGIMES))
    same = ~(verdicts["regime_agreement"].values < 1)
    for place, name in enumerate(REGIMES):
        group[same & (first == name)] = place
    return group


def _histogram(
    values: NDArray[np.floating], group: NDArray[np.intp], groups: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Count positive values in bins of a quarter of a decade: edges (bin + 1), counts (group, bin).

    Exact zeros count with the smallest value.
    """
    positive = values[values > 0]
    smallest = float(positive.min()) if positive.size else 1.0
    logs = np.log10(np.where(values > 0, values, smallest)) * _PER_DECADE
    low, high = (np.floor(logs.min()), np.floor(logs.max())) if logs.size else (0.0, 0.0)
    bins = int(high - low) + 1
    place = (np.floor(logs) - low).astype(np.intp)
    counts = np.bincount(group * bins + place, minlength=groups * bins).reshape(groups, bins)
    return 10.0 ** ((low + np.arange(bins + 1)) / _PER_DECADE), counts
