"""Whether the limits of a run depend on the prompt or on the initial state, by position."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from looplens.analysis.algebra.trajectories import tail_points
from looplens.analysis.analyzers._analyzer import (
    Analyzer,
    Source,
    Summary,
    finite_or_none,
    labelled,
    needs_iterations,
)
from looplens.analysis.measures.input_dependence import input_dependence_of
from looplens.analysis.running.engine import Block

if TYPE_CHECKING:
    from looplens.store import StoredRun

_MOST_BYTES = 2**28  # of all limits in memory
_FEWEST_DIRECTIONS = 64


def needs(run: StoredRun) -> str | None:
    """Ask for at least two restarts, and two prompts."""
    if run.restarts < 2 or run.n_prompts < 2:
        return (
            "Input dependence compares the scatter between prompts with that between restarts, and "
            f"this run has {run.n_prompts} prompt(s) and {run.restarts} restart(s). Record at "
            "least two of each."
        )
    return needs_iterations(run)


def plan(source: Source) -> np.ndarray | None:
    """Draw directions to look along, where the limits of all tokens would not fit in memory.

    Gaussian directions keep the expectation of every variance.
    """
    run = source.run
    fitting = max(_FEWEST_DIRECTIONS, _MOST_BYTES // (4 * max(run.n_tokens, 1)))
    if run.d_model <= fitting:
        return None
    drawn = np.random.default_rng(0).standard_normal((run.d_model, fitting))
    return (drawn / np.sqrt(fitting)).astype(np.float32)


def keep(source: Source, stored: xr.Dataset) -> None:
    """Keep nothing of a stored result: the limits that it came from are not stored."""


def measure(block: Block, plan: np.ndarray | None) -> dict[str, np.ndarray]:
    """Average the limits of every token over restarts, and take their scatter."""
    restarts, tokens = block.shape
    assert block.states is not None
    width = block.states.shape[-1]
    flat = np.full((restarts * tokens, width), np.nan)
    for part in block.state:
        flat[part.rows] = part.limit * part.scale[:, None]
    limits = flat.reshape(restarts, tokens, width)
    mean = limits.mean(0)
    away = limits - mean
    scatter = np.vecdot(away, away).sum(0) / (restarts - 1)
    if plan is not None:
        mean = mean.astype(np.float32) @ plan[:width]
    return {"mean": mean.astype(np.float32), "scatter": scatter}


def build(source: Source, plan: np.ndarray | None, whole: dict[str, np.ndarray]) -> xr.Dataset:
    """Compare the variances at every position, over inputs that differ."""
    run = source.run
    chosen = np.flatnonzero(different_inputs(run) & source.coverage.known)
    found = input_dependence_of(
        whole["mean"][chosen],
        whole["scatter"][chosen],
        run.tokens["position"].values[chosen].astype(np.int64),
        run.restarts,
    )
    dims = ("position",)
    in_norms = "in squared norms"
    data: dict[str, Any] = {
        "between": labelled(dims, found.between, f"variance of limits between inputs, {in_norms}"),
        "within": labelled(dims, found.within, f"variance over restarts of an input, {in_norms}"),
        "dependence_score": labelled(dims, found.score, "between / within"),
        "dependence_share": labelled(dims, found.share, "between / (between + within)"),
        "inputs": labelled(dims, found.inputs, "different inputs at the position", ""),
        "run_score": labelled((), found.run_score, "between / within, pooled over positions"),
        "run_share": labelled((), found.run_share, "share between inputs, pooled over positions"),
    }
    attributes = {
        "limit": f"mean of the last {tail_points(run.iterations + 1)} states",
        "directions": "all" if plan is None else plan.shape[1],
    }
    return xr.Dataset(data, coords={"position": found.position}, attrs=attributes)


def different_inputs(run: StoredRun) -> np.ndarray:
    """Mark one token of each set that saw the same input: the same prefix, at the same position.

    A causal model gives equal prefixes equal states, which are no evidence about inputs. Where a
    run keeps some positions only, prefixes are not known, and only prompts of the same text count
    as equal.
    """
    first = np.ones(run.n_tokens, dtype=bool)
    ids, position = run.tokens["token_id"].values, run.tokens["position"].values
    texts = run.prompts["text"].values
    seen: set[tuple[bytes, int]] = set()
    for prompt in range(run.n_prompts):
        tokens = run.token_range(prompt)
        places = position[tokens]
        whole = np.array_equal(places, np.arange(len(places)))
        if not whole and not texts[prompt]:
            continue  # nothing is known of it
        digest = b"" if whole else str(texts[prompt]).encode()
        for token in range(tokens.start, tokens.stop):
            if whole:
                digest = hashlib.blake2b(digest + ids[token].tobytes(), digest_size=16).digest()
            key = digest, int(position[token])
            first[token] = key not in seen
            seen.add(key)
    return first


def summarize(dataset: xr.Dataset, run: StoredRun) -> Summary:
    """Return the values pooled over positions, and the extremes.

    ``share`` and ``score`` (None where restarts agree exactly) are ``run_share`` and ``run_score``;
    ``min_share`` is that of the position that depends least on the input, ``min_share_position``
    which one that is; ``n_positions`` have at least two different inputs.
    """
    share = dataset["dependence_share"].values
    known = np.flatnonzero(np.isfinite(share))
    least = known[share[known].argmin()] if known.size else None
    return {
        "share": float(dataset["run_share"]),
        "score": finite_or_none(float(dataset["run_score"])),
        "min_share": float("nan") if least is None else float(share[least]),
        "min_share_position": None if least is None else int(dataset["position"].values[least]),
        "n_positions": int((dataset["inputs"].values > 1).sum()),
    }


ANALYZER = Analyzer(
    name="input_dependence",
    version=2,
    title="Input dependence of the limits",
    needs=needs,
    plan=plan,
    measure=measure,
    build=build,
    summarize=summarize,
    token_axis=0,
    keep=keep,
)
