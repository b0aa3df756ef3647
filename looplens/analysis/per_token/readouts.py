"""What the model would say of single tokens after every iteration: candidates, ranks, changes.

Predictions are read as they were recorded. A model that leaves the loop by itself answers what it
left with, so the iterations that did not run show its last prediction.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from looplens.analysis.analyzers._analyzer import labelled
from looplens.analysis.measures.readout import carried
from looplens.errors import AnalysisError, InputError

if TYPE_CHECKING:
    from looplens.store import StoredRun

MOST_CANDIDATES = 8


def token_readout(run: StoredRun, token: int, restart: int = 0) -> xr.Dataset:
    """Return the predictions of one token after every iteration.

    Parameters
    ----------
    run : StoredRun
        A run with readouts.
    token, restart : int
        Which trajectory.

    Returns
    -------
    Dataset
        (iteration, rank): ``token_id``, ``text`` and ``probability`` of the most probable tokens,
        the best one first. (iteration): ``entropy`` and ``kl_to_previous`` in nats. Where the token
        has a target also ``target_probability`` and ``target_rank`` (from 0), and the attributes
        ``target`` (its id) and ``target_text``.

    Raises
    ------
    AnalysisError
        If the run has no readout.
    InputError
        If it has no such token or restart.
    """
    part = _part(run, [token], restart).isel(token=0)
    ids = part["topk_ids"].transpose("iteration", "rank").values
    left = _carry(ids[:, 0])
    texts = texts_of(run, ids[left])
    data = {
        "token_id": labelled(("iteration", "rank"), ids[left], "token", ""),
        "text": labelled(("iteration", "rank"), texts, "text of the token", ""),
        "probability": labelled(
            ("iteration", "rank"),
            np.exp(part["topk_logprobs"].transpose("iteration", "rank").values[left]),
            "probability of the token",
        ),
    }
    for name in ("entropy", "kl_to_previous"):
        data[name] = labelled(
            ("iteration",), part[name].values[left], name.replace("_", " "), "nat"
        )
    attributes: dict[str, Any] = {}
    target = int(run.tokens["target"].values[token])
    if target >= 0:
        attributes = {"target": target, "target_text": str(texts_of(run, np.array([target]))[0])}
        for name, values, long_name in (
            (
                "target_probability",
                np.exp(part["target_logprob"].values),
                "probability of the target",
            ),
            ("target_rank", part["target_rank"].values, "rank of the target, from 0"),
        ):
            data[name] = labelled(("iteration",), values[left], long_name)
    return xr.Dataset(
        data,
        coords={"iteration": part["iteration"].values, "rank": np.arange(ids.shape[-1])},
        attrs=attributes,
    )


def candidates(
    run: StoredRun, token: int, restart: int = 0, *, most: int = MOST_CANDIDATES
) -> xr.Dataset:
    """Return how probable the candidates for a prediction are after every iteration.

    Candidates are the target, where there is one, and the tokens that reach the highest
    probability after any iteration; of equal ones the earlier to reach it.

    Parameters
    ----------
    run : StoredRun
        A run with readouts.
    token, restart : int
        Which trajectory.
    most : int
        How many candidates, at the most.

    Returns
    -------
    Dataset
        ``probability`` and ``rank`` (candidate, iteration), ranks from 0; NaN where a candidate is
        not among the tokens that were recorded. ``token_id``, ``text`` and ``is_target``
        (candidate), the target first, then by highest probability. The attribute ``left_out`` says
        how many more tokens were among the recorded ones.

    Raises
    ------
    AnalysisError, InputError
        As for `token_readout`.
    """
    if most < 1:
        raise InputError(f"most must be at least 1, got {most!r}.")
    found = token_readout(run, token, restart)
    ids, probability = found["token_id"].values, found["probability"].values
    shown, place = np.unique(ids, return_inverse=True)
    highest = np.full(len(shown), -1.0)
    np.maximum.at(highest, place.ravel(), np.nan_to_num(probability, nan=-1.0).ravel())
    reached = np.full(len(shown), len(ids))
    at_best = np.nan_to_num(probability, nan=-1.0) >= highest[place.reshape(ids.shape)]
    rows = np.broadcast_to(np.arange(len(ids))[:, None], ids.shape)
    np.minimum.at(reached, place.ravel()[at_best.ravel()], rows.ravel()[at_best.ravel()])
    order = [int(shown[i]) for i in np.lexsort((reached, -highest)) if shown[i] >= 0]
    target = found.attrs.get("target")
    if target is not None:
        order = [target, *(number for number in order if number != target)]
    chosen = np.array(order[:most])
    hit = ids[None] == chosen[:, None, None]  # candidate iteration rank
    there = hit.any(-1)
    rank = np.where(there, hit.argmax(-1), np.nan)
    value = np.where(there, np.where(hit, probability[None], 0).sum(-1), np.nan)
    if target is not None:  # known wherever it ranks
        rank[0] = found["target_rank"].values
        value[0] = found["target_probability"].values
    dims = ("candidate", "iteration")
    return xr.Dataset(
        {
            "probability": labelled(dims, value, "probability of the candidate"),
            "rank": labelled(dims, rank, "rank of the candidate, from 0"),
            "token_id": labelled(("candidate",), chosen, "token", ""),
            "text": labelled(("candidate",), texts_of(run, chosen), "text of the token", ""),
            "is_target": labelled(("candidate",), chosen == target, "whether it is the target", ""),
        },
        coords={"iteration": found["iteration"].values},
        attrs={"left_out": len(order) - len(chosen), "recorded": ids.shape[1]},
    )


def prediction_changes(
    run: StoredRun, tokens: slice | Iterable[int], restart: int = 0
) -> xr.Dataset:
    """Return where the predictions of some tokens change, and whether they are right.

    Parameters
    ----------
    run : StoredRun
        A run with readouts.
    tokens : slice or iterable of int
        Global token numbers.
    restart : int
        Which restart.

    Returns
    -------
    Dataset
        (token, iteration): ``token_id`` and ``text`` of the best token, ``-1`` and empty where
        there is none; ``changed``, whether it is another one than at the kept iteration before;
        ``right``, 1 where it is the target, 0 where it is not, NaN without a target. ``changes``
        (iteration): how many of the tokens change there.

    Raises
    ------
    AnalysisError, InputError
        As for `token_readout`.
    """
    numbers = np.arange(run.n_tokens)[tokens if isinstance(tokens, slice) else list(tokens)]
    part = _part(run, numbers, restart)
    raw = part["topk_ids"].isel(rank=0).transpose("token", "iteration").values
    entropy = part["entropy"].transpose("token", "iteration").values
    best = np.where(np.isfinite(carried(entropy, raw)), carried(raw, raw), -1)
    changed = np.zeros(best.shape, dtype=bool)
    changed[:, 1:] = (best[:, 1:] != best[:, :-1]) & (best[:, 1:] >= 0) & (best[:, :-1] >= 0)
    target = run.tokens["target"].values[numbers][:, None]
    right = np.where((target >= 0) & (best >= 0), best == target, np.nan)
    dims = ("token", "iteration")
    return xr.Dataset(
        {
            "token_id": labelled(dims, best, "most probable token", ""),
            "text": labelled(dims, texts_of(run, best), "text of the most probable token", ""),
            "changed": labelled(dims, changed, "whether the prediction is another one than before"),
            "right": labelled(dims, right, "whether the prediction is the target"),
            "changes": labelled(("iteration",), changed.sum(0), "predictions that change", ""),
        },
        coords={"token": numbers, "iteration": part["iteration"].values},
    )


def texts_of(run: StoredRun, ids: NDArray[Any]) -> NDArray[np.object_]:
    """Return texts of token ids, in their shape; ``id 7`` without one, empty for a negative id."""
    known = run.vocabulary
    distinct, place = np.unique(ids, return_inverse=True)
    words = ["" if i < 0 else known.get(i, f"id {i}") for i in distinct.tolist()]
    return np.array(words, dtype=object)[place].reshape(ids.shape)


def _part(run: StoredRun, tokens: Any, restart: int) -> xr.Dataset:
    """Return the readout of some tokens, checked."""
    if not run.has_readout:
        raise AnalysisError(
            "This run holds no readout, so what the model would say after each iteration is not "
            "known. Record it again with readout=True (--readout on the command line)."
        )
    if not 0 <= restart < run.restarts:
        raise InputError(f"There is no restart {restart}: this run has {run.restarts}, from 0 on.")
    wrong = [token for token in tokens if not 0 <= token < run.n_tokens]
    if wrong:
        raise InputError(f"There is no token {wrong[0]}: this run has {run.n_tokens}, from 0 on.")
    return run.readout.isel(restart=restart, token=list(tokens))


def _carry(best: NDArray[Any]) -> NDArray[np.intp]:
    """Return for every iteration the one whose prediction holds there."""
    return carried(np.arange(len(best)), best)
