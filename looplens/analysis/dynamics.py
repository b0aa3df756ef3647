"""What the dynamics lab stored in a run, in a few numbers; they need no model.

What the experiments are is known in :mod:`looplens.dynamics`. Here a result is whatever lies in
``/analysis/dynamics``, with numbers, words and truths of single tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from looplens.analysis.regimes.verdict import REGIMES
from looplens.errors import CorruptRunError

if TYPE_CHECKING:
    from looplens.analysis.analyzers._analyzer import Scalar, Summary
    from looplens.store import StoredRun

DYNAMICS = "dynamics"
TITLE = "Dynamics lab"
RATE_TOLERANCE = 0.05
"""Relative difference up to which a predicted rate agrees with a measured one."""

WORDS: dict[tuple[str, str], tuple[str, ...]] = {
    ("fixed_points", "status"): ("stable", "unstable", "degenerate", "outside", "none"),
    ("spectra", "regime"): REGIMES,
    ("causes", "regime"): REGIMES,
    ("causes", "cause"): ("own", "driven", "both", "together", "comes to rest", "unexplained"),
    ("lyapunov", "regime"): ("settle", "marginal", "drift", "unknown"),
    ("recovery", "outcome"): ("back", "other_phase", "returning", "away", "not_finite"),
    ("swap_states", "ends"): ("own", "other", "both", "neither"),
    ("swap_states", "says"): ("own", "other", "both", "neither"),
}
"""By result and variable: the words that it can hold; a share of 0 is known of those too."""

_MOST_WORDS = 12
_LONGEST_WORD = 24


def dynamics_results(run: StoredRun) -> dict[str, xr.Dataset]:
    """Return the stored results of the lab, by name without the group; damaged ones are left out.

    Only results of this very recording, with at least one token, count.
    """
    found = {}
    for name in run.analyses:
        group, _, inner = name.partition("/")
        if group != DYNAMICS or not inner:
            continue
        try:
            result = run.analysis(name)
        except CorruptRunError:
            continue
        if result is None or result.attrs.get("input_hash") != run.input_hash():
            continue
        if result.sizes.get("token"):
            found[inner] = result
    return found


def dynamics_summary(run: StoredRun) -> Summary:
    """Return numbers of each stored result of the lab, over the tokens that it is of.

    Returns
    -------
    dict
        ``{result: {name: value}}`` with ``n_tokens``; of every number of a token ``<name>_median``
        and ``<name>_max`` over tokens where it is known; ``<name>_share`` of the tokens for which
        something is true, and ``<name>_<word>_share`` of those that have a word (of all words of
        the variable, where a token has several). ``spectra`` has ``rate_agreement_share`` too, see
        :func:`rates_agree`, and ``lyapunov`` the ``leading_exponent``.
    """
    found: Summary = {}
    for name, result in dynamics_results(run).items():
        numbers = _numbers(name, result)
        if name == "spectra" and len(agree := rates_agree(result)):
            numbers["rate_agreement_share"] = float(agree.mean())
        if name == "lyapunov":
            leading = result["exponents"].isel(exponent=0).values
            numbers |= _median_and_max("leading_exponent", leading)
        found[name] = numbers
    return found


def rates_agree(spectra: xr.Dataset, tolerance: float = RATE_TOLERANCE) -> xr.DataArray:
    """Return for tokens that settle whether eigenvalues predict the rate that is measured.

    Parameters
    ----------
    spectra : Dataset
        As :func:`looplens.dynamics.spectra` returns it.
    tolerance : float
        Largest relative difference.

    Returns
    -------
    DataArray
        Over those tokens of the regime ``fixed_point`` of which both rates are known.
    """
    predicted, measured = spectra["predicted_rate"], spectra["measured_rate"]
    known = (spectra["regime"] == "fixed_point") & np.isfinite(predicted) & np.isfinite(measured)
    agree = abs(predicted - measured) <= tolerance * measured
    return agree.isel(token=known.values)


def by_regime(results: Mapping[str, xr.Dataset]) -> dict[str, dict[str, float]]:
    """Return what the standard experiments say of tokens of each regime of the recording.

    Parameters
    ----------
    results : mapping of str to Dataset
        As :func:`dynamics_results` returns them; the regimes are those in ``spectra``.

    Returns
    -------
    dict
        By regime: ``tokens``; how many have a first fixed point that is ``stable`` or
        ``unstable``; how many rest or move by a ``cause``; medians of ``radius`` (spectra) and
        ``exponent`` (the largest of ``lyapunov``). NaN where an experiment was not done.
    """
    if "spectra" not in results:
        return {}
    regimes = results["spectra"]["regime"].to_series()
    found: dict[str, dict[str, float]] = {}
    for regime, tokens in regimes.groupby(regimes).groups.items():
        row = {"tokens": float(len(tokens))}
        for name, variable in (("fixed_points", "status"), ("causes", "cause")):
            if name in results:
                words = results[name][variable].to_series()
                counts = words[words.index.isin(tokens)].value_counts()
                row |= {str(word): float(count) for word, count in counts.items()}
        row["radius"] = _median(results["spectra"]["radius"], tokens)
        if "lyapunov" in results:
            row["exponent"] = _median(results["lyapunov"]["exponents"].isel(exponent=0), tokens)
        found[str(regime)] = row
    return found


def _median(values: xr.DataArray, tokens: object) -> float:
    mine = values.values[np.isin(values["token"].values, np.asarray(tokens))]
    known = mine[np.isfinite(mine)]
    return float(np.median(known)) if known.size else float("nan")


def _numbers(result: str, values: xr.Dataset) -> dict[str, Scalar]:
    found: dict[str, Scalar] = {"n_tokens": int(values.sizes["token"])}
    for key, variable in values.data_vars.items():
        name, kind = str(key), variable.dtype.kind
        if variable.dims[:1] != ("token",):
            continue
        if kind in "OUT":
            found |= _shares(name, variable.values, WORDS.get((result, name), ()))
        elif variable.ndim > 1:
            continue
        elif kind == "b":
            found[f"{name}_share"] = float(variable.values.mean())
        elif kind == "f" or (kind in "iu" and _is_amount(name, variable)):
            found |= _median_and_max(name, variable.values)
    return found


def _is_amount(name: str, variable: xr.DataArray) -> bool:
    """Tell a count or an iteration from the number of a token, a point and the like."""
    return name.startswith("n_") or "iteration" in variable.attrs.get("units", "")


def _median_and_max(name: str, values: np.ndarray) -> dict[str, Scalar]:
    """Return the two of what is known; None where nothing is."""
    known = values[np.isfinite(values)]
    return {
        f"{name}_median": float(np.median(known)) if known.size else None,
        f"{name}_max": float(known.max()) if known.size else None,
    }


def _shares(name: str, values: np.ndarray, can_be: tuple[str, ...]) -> dict[str, Scalar]:
    """Return the share of each word: of tokens, or of all words where a token has several."""
    words = [str(value) for value in values.ravel()]
    total = len(words) if values.ndim == 1 else sum(map(bool, words))
    seen = sorted(filter(None, set(words)))
    if not total or len(seen) > _MOST_WORDS or max(map(len, seen), default=0) > _LONGEST_WORD:
        return {}
    return {
        f"{name}_{_key(word)}_share": words.count(word) / total
        for word in dict.fromkeys((*can_be, *seen))
    }


def _key(word: str) -> str:
    """Write a word as a part of a name that a condition can use."""
    return "".join(letter if letter.isalnum() else "_" for letter in word)
