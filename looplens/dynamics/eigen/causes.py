"""Why a token goes on moving: by itself, or because a token before it does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr

from looplens.dynamics.eigen.cycles import Cycle, shorter_cycle
from looplens.dynamics.eigen.looking import Look, look
from looplens.dynamics.eigen.releasing import released
from looplens.dynamics.eigen.running import amplitude, still_moves
from looplens.dynamics.eigen.spectrum import leading
from looplens.dynamics.maps.labelled import Progress
from looplens.dynamics.maps.loop_maps import TokenMap
from looplens.models.inputs import whole_number

OWN, DRIVEN, BOTH, TOGETHER = "own", "driven", "both", "together"
RESTS, UNEXPLAINED = "comes to rest", "unexplained"
LEAST_DRIVE = 0.01  # of its own motion, from which on a drive from outside counts


def causes(
    model: Any,
    source: Any,
    *,
    prompt: int = 0,
    restart: int = 0,
    tokens: int | Sequence[int] | None = None,
    iterations: int | None = None,
    settle: int = 2048,
    longest_cycle: int = 64,
    starts: int = 64,
    seed: int = 0,
    dtype: torch.dtype | None = None,
    progress: Progress = None,
) -> xr.Dataset:
    r"""Decide for tokens that move whether they do so by themselves or are driven.

    Two experiments. *Holding*: all tokens before a token are held at their fixed points, stable or
    not. If it goes on moving, it moves by itself; at its fixed point its own block :math:`J_{ii}`
    then has an eigenvalue outside the unit circle. *Releasing*: one such token is let go with all
    others of them held, and one looks which tokens that sets in motion, and how far.

    Parameters
    ----------
    model : LoopedTransformer or LoopedModel
        The model that was recorded, or that is to be run.
    source : Run, str, sequence of int or tensor
        A run, or one prompt.
    prompt, restart : int
        Of a run.
    tokens : int or sequence of int, optional
        Positions of the prompt; by default those that still move when the loop goes on, or are
        orbits in the recording. If there are none, the result has no tokens.
    iterations, settle, longest_cycle, starts, seed, dtype, progress : optional
        See :func:`spectra`.

    Returns
    -------
    Dataset
        Over ``token``: ``cause``, one of

        - ``own``: it moves while what it sees does not, about an unstable fixed point;
        - ``driven``: it comes to rest when those before it are held, and ``driver`` moves it;
        - ``both``: it moves while what it sees does not, and what others do to it would alone move
          it from its fixed point by at least a hundredth of that;
        - ``together``: in a model that is not causal, it rests alone and moves with the others;
        - ``comes to rest``: it settles when the loop goes on;
        - ``unexplained``: it moves by itself, and no unstable fixed point was found under it; or it
          moves, and no token that was released moves it. ``why`` says which.

        ``driver`` (token number; -1 without one) and ``drive`` (amplitude of the token when only
        the driver is released; of a token that moves by itself, how far one iteration would then
        take it from its fixed point); ``amplitude`` (as the loop goes on) and ``amplitude_alone``
        (with those before held); ``at_fixed_point``, ``radius``, ``eigenvalue_real``,
        ``eigenvalue_imag`` of its own block at its fixed point, ``predicted_period`` of that,
        ``distance`` of the fixed point from the mean of the motion; ``cycle_period``,
        ``detected_period``, ``regime``; ``why`` in words. Of a token that moves by itself with
        those before it at rest, and returns after an even number above 2 or not at all:
        ``shorter_period`` of a verified cycle under that motion, half of it or 2, and its leading
        Floquet multiplier (``shorter_multiplier_real``, ``shorter_multiplier_imag``). Amplitudes
        are root mean squares about the mean, over that of the norm.

    Raises
    ------
    InputError, AnalysisError
        See :func:`spectra`.

    References
    ----------
    That own and driven orbits differ, and that an own one has an unstable fixed point under it, was
    measured in this project. Flips and rotations of loops at the unit circle: notes on
    arXiv:2608.26556.
    """
    seen = look(
        model,
        source,
        prompt=prompt,
        restart=restart,
        tokens=tokens,
        iterations=iterations,
        settle=settle,
        longest_cycle=longest_cycle,
        starts=whole_number(starts, "starts", least=0),
        seed=seed,
        dtype=dtype,
        progress=progress,
    )
    moves = still_moves(seen.path)
    mine = np.array(seen.positions)
    if tokens is None:
        chosen = moves[mine] | (seen.detected["regime"] == "orbit")
        seen = seen.only(np.flatnonzero(chosen))
        mine = mine[chosen]
    rest = seen.rest
    movers = np.flatnonzero(rest.alone[: seen.upto + 1] > 0)
    pushed, drive = released(seen, movers)
    natural = amplitude(seen.path)
    block = _blocks(seen, mine)
    radius = np.abs(block)
    words, why, driver, driven = [], [], [], []
    for row, token in enumerate(mine):
        before = movers < token if seen.found.causal else movers != token
        # A mover is held while others are released: what it would feel stands for its motion.
        reached = drive if rest.alone[token] > 0 else pushed
        strength = np.where(before, reached[:, token], 0.0)
        best = int(strength.argmax()) if strength.any() else -1
        driver.append(int(movers[best]) if best >= 0 else -1)
        driven.append(float(strength[best]) if best >= 0 else 0.0)
        word, reason = _judged(seen, token, bool(moves[token]), radius[row], driver[-1], driven[-1])
        words.append(word)
        why.append(reason)
    shorter = [_shorter(seen, token, word) for token, word in zip(mine, words, strict=True)]
    why = [f"{a}; {b.message}" if b else a for a, b in zip(why, shorter, strict=True)]
    none = complex(np.nan, np.nan)
    multiplier = np.array([cycle.multiplier if cycle else none for cycle in shorter], dtype=complex)
    mean = seen.path.mean(0)
    apart = ((rest.states - mean).norm(dim=-1) / mean.norm(dim=-1)).cpu().numpy()[mine]
    known = rest.verified[mine]
    numbers = np.array(seen.found.numbers(range(seen.found.n_pos)))
    # Of a mover, a drive too small to count is none.
    counts = np.isin(words, (DRIVEN, BOTH))
    driver_numbers = np.where(counts, numbers[driver] if len(driver) else -1, -1)
    with np.errstate(divide="ignore"):
        period = np.where(known, 2 * np.pi / np.abs(np.angle(block)), np.nan)
    one = ("token",)
    data: dict[str, Any] = {
        "cause": (one, np.array(words, dtype=object), "why the token moves", ""),
        "why": (one, np.array(why, dtype=object), "what decides that", ""),
        "driver": (one, driver_numbers.astype(np.int64), "token that moves it most", ""),
        "drive": (one, np.array(driven), "motion when only the driver is released", "1"),
        "amplitude": (one, natural[mine], "amplitude as the loop goes on", "1"),
        "amplitude_alone": (
            one,
            rest.alone[mine],
            "amplitude with those before held at their fixed points",
            "1",
        ),
        "at_fixed_point": (one, known, "whether the block is taken at a verified fixed point", "1"),
        "radius": (one, radius, "modulus of the leading eigenvalue of its own block", "1"),
        "eigenvalue_real": (one, block.real, "leading eigenvalue, real part", "1"),
        "eigenvalue_imag": (one, block.imag, "leading eigenvalue, imaginary part", "1"),
        "distance": (
            one,
            np.where(known, apart, np.nan),
            "from the mean of the motion to the fixed point, over the norm",
            "1",
        ),
        "predicted_period": (one, period, "turn of the leading eigenvalue", "iterations"),
        "cycle_period": (
            one,
            seen.period[mine],
            "iterations after which the loop, going on, is back; 1 at rest",
            "iterations",
        ),
        "detected_period": (
            one,
            seen.detected["period"],
            "turn of the recorded orbit",
            "iterations",
        ),
        "shorter_period": (
            one,
            np.array([cycle.period if cycle else np.nan for cycle in shorter]),
            "iterations of a cycle under the motion",
            "iterations",
        ),
        "shorter_multiplier_real": (one, multiplier.real, "its multiplier, real part", "1"),
        "shorter_multiplier_imag": (one, multiplier.imag, "its multiplier, imaginary part", "1"),
        "regime": (one, seen.detected["regime"], "regime of the recording", ""),
    }
    return seen.dataset(
        data,
        method="tokens before held at their fixed points; movers released one at a time",
        least_drive=LEAST_DRIVE,
        settle=settle,
        longest_cycle=longest_cycle,
        starts=starts,
        seed=seed,
    )


def _blocks(seen: Look, mine: np.ndarray) -> np.ndarray:
    """Return the leading eigenvalue of every token at its fixed point; NaN without one."""
    found = np.full(len(mine), complex(np.nan, np.nan))
    rows = np.flatnonzero(seen.rest.verified[mine])
    if len(rows):
        places = mine[rows].tolist()
        map_ = TokenMap(seen.found.step, seen.rest.states, places)
        some = leading(map_, seen.rest.states[places], 2, stretch=False)
        found[rows] = some.eigenvalues[:, 0]
    return found


def _shorter(seen: Look, token: int, word: str) -> Cycle | None:
    """Return the cycle from which that of a token has doubled."""
    before = seen.period[:token] if seen.found.causal else np.delete(seen.period, token)
    if word != OWN or not seen.rest.context[token] or (before != 1).any():
        return None
    rest, path = seen.rest.states, seen.path[:, token]
    return shorter_cycle(seen.found.step, rest, token, path, seen.period[token])


def _judged(
    seen: Look, token: int, moves: bool, radius: float, driver: int, felt: float
) -> tuple[str, str]:
    """Return the cause of a token's motion and what decides it."""
    rest = seen.rest
    alone = float(rest.alone[token])
    if not moves and not alone > 0:
        return RESTS, "it settles when the loop goes on"
    others = "those before it are" if seen.found.causal else "all others are"
    held = "at their fixed points" if rest.context[token] else "where they are"
    if alone > 0:
        said = f"moves by {alone:.2g} while {others} held {held}"
        unstable = bool(rest.verified[token]) and radius > 1
        if unstable:
            under = f"its fixed point has an eigenvalue of modulus {radius:.4f}"
        elif rest.verified[token]:
            under = f"the fixed point that was found is stable (radius {radius:.4f}): both exist"
        else:
            under = (
                f"no fixed point was found, best residual {rest.residual[token]:.1e} of the norm"
            )
        if felt >= LEAST_DRIVE * alone and driver >= 0:
            # Where nothing is known to rest, a push from there explains nothing.
            word = BOTH if rest.verified[token] else UNEXPLAINED
            return word, f"{said}; {under}; position {driver} pushes it by {felt:.2g}"
        return (OWN if unstable else UNEXPLAINED), f"{said}; {under}"
    if driver >= 0:
        return DRIVEN, f"comes to rest when {others} held; moves when position {driver} is released"
    if not seen.found.causal:
        return TOGETHER, "rests while all others are held, and moves with them"
    return UNEXPLAINED, f"comes to rest when {others} held, and no released token moves it"
