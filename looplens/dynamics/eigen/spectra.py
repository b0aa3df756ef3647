"""The spectrum of every token's Jacobian, and whether it predicts what was recorded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr

from looplens.dynamics.eigen.blocks import Blocks
from looplens.dynamics.eigen.held_gap import gap_rates
from looplens.dynamics.eigen.looking import look
from looplens.dynamics.eigen.replaying import replayed_rates
from looplens.dynamics.maps.labelled import Progress
from looplens.models.inputs import whole_number


def spectra(
    model: Any,
    source: Any,
    *,
    prompt: int = 0,
    restart: int = 0,
    tokens: int | Sequence[int] | None = None,
    k: int = 6,
    iterations: int | None = None,
    settle: int = 2048,
    longest_cycle: int = 64,
    rate_iterations: int = 200,
    starts: int = 64,
    krylov: int = 120,
    seed: int = 0,
    dtype: torch.dtype | None = None,
    progress: Progress = None,
) -> xr.Dataset:
    r"""Compute leading eigenvalues for tokens, and what follows from them against what was seen.

    The loop is run on from the end of the recording until it returns. Then every token's fixed
    point is solved for, unstable ones too, and the Jacobian block of the token
    :math:`J_{ii} = \partial R_i / \partial s_i` is taken there. In a causal model the Jacobian of
    the sequence is block triangular, so its eigenvalues are those of the blocks, and a token comes
    back no faster than the slowest one among itself and those before it:

    .. math:: r_i = \max_{j \le i} \rho(J_{jj})

    A token that goes around a cycle of p iterations has the Floquet multipliers :math:`\mu` of
    :math:`J_{ii}(s_{p-1}) \cdots J_{ii}(s_0)`, and in :math:`r_i` stands
    :math:`|\mu|^{1/p}` instead. In a model that is not causal, the spectrum of the whole sequence
    takes the place of the maximum.

    Parameters
    ----------
    model : LoopedTransformer or LoopedModel
        The model that was recorded, or that is to be run.
    source : Run, str, sequence of int or tensor
        A run, or one prompt.
    prompt, restart : int
        Of a run.
    tokens : int or sequence of int, optional
        Positions of the prompt; negative ones count back. All by default.
    k : int
        Eigenvalues of a token.
    iterations : int, optional
        Of a prompt that is run now.
    settle : int
        Most iterations that the loop is run on.
    longest_cycle : int
        Longest period of a cycle that is looked for.
    rate_iterations : int
        Iterations of the measured rate; 0 leaves it out. Each costs a pass for every token.
    starts : int
        Random starts for the fixed point of a token that moves.
    krylov : int
        Most products with a Jacobian.
    seed : int
        Of random starts and directions.
    dtype : torch.dtype, optional
        What to compute in: by default float64, and the model's own (at least float32) for a model
        of more than 2^27 parameters.
    progress : callable, optional
        Called with tokens done and in all.

    Returns
    -------
    Dataset
        Over ``token`` and ``eigenvalue``: ``eigenvalue_real``, ``eigenvalue_imag``,
        ``eigen_residual``, ``eigen_converged``; over ``token``: where the Jacobian was taken
        (``at``), ``radius``, ``sigma_max``, ``non_normality``; ``predicted_rate`` with the token
        that sets it (``slowest_token``) against measurements: ``measured_rate`` (of a gap between
        two trajectories that is brought back to its length), ``replayed_rate`` (the slowest mode of
        the recorded motion, run again in this dtype; NaN where it does not come to rest),
        ``recorded_rate`` and ``recorded_gap_rate`` (of the recording as it is, with its transient);
        ``predicted_period`` against ``detected_period`` and ``cycle_period``; ``multiplier_real``,
        ``multiplier_imag`` (token, eigenvalue) of cycles; ``regime``.

    Raises
    ------
    InputError
        If the model is not that of the recording, has no step, or a choice is out of range.
    AnalysisError
        If the run lacks states, or they leave the range of numbers.

    Notes
    -----
    None of the measurements uses a derivative. ``measured_rate`` follows two trajectories from
    where the loop has come to, and brings their gap back to its length after every iteration: no
    transient is left in it, but no recording shows that gap either. ``replayed_rate`` is of one
    trajectory that nothing is done to; its transient is told from what comes after by fitting
    several modes. The two rates of the recording are a single slope each, over the few iterations
    between the first transient and the floor of rounding; in a non-normal system that transient is
    slower, or faster, than what comes after.

    References
    ----------
    .. [1] Saad, Numerical Methods for Large Eigenvalue Problems (2011), section 6.2.
    .. [2] Benettin, Galgani and Strelcyn, Phys. Rev. A 14 (1976).

    That power iteration on real vectors, which published code for loops uses, does not converge
    for complex pairs, and the period 2 pi / arg: this project's notes on arXiv:2605.26733 and
    arXiv:2608.26556.
    """
    k = whole_number(k, "k", least=1)
    krylov = whole_number(krylov, "krylov", least=k)
    rate_iterations = whole_number(rate_iterations, "rate_iterations", least=0)
    seen = look(
        model,
        source,
        prompt=prompt,
        restart=restart,
        tokens=tokens,
        iterations=iterations,
        settle=settle,
        longest_cycle=longest_cycle,
        starts=starts,
        seed=seed,
        dtype=dtype,
        progress=progress,
    )
    found, mine = seen.found, seen.positions
    blocks = Blocks(seen, krylov, seed)
    own = blocks.at_rest(mine, k)
    around = blocks.around_cycles(mine, k)
    predicted, slowest, lead = blocks.predictions()
    measured, error = np.full((2, len(mine)), np.nan)
    if rate_iterations:
        measured, error = gap_rates(
            found.step,
            seen.path[-1],
            mine,
            causal=found.causal,
            iterations=max(rate_iterations, 12),
            seed=seed,
        )
    replayed = replayed_rates(found, mine, seen.period)
    with np.errstate(divide="ignore"):
        period = np.where(lead == 0, np.nan, 2 * np.pi / np.abs(np.angle(lead)))
    one, two, detected = ("token",), ("token", "eigenvalue"), seen.detected
    data: dict[str, Any] = {
        "at": (one, blocks.where(mine), "where the Jacobian was taken", ""),
        "eigenvalue_real": (two, own.eigenvalues.real, "eigenvalue, real part", "1"),
        "eigenvalue_imag": (two, own.eigenvalues.imag, "eigenvalue, imaginary part", "1"),
        "eigen_residual": (two, own.residuals, "|J y - lambda y| of unit Ritz vectors", "1"),
        "eigen_converged": (two, own.converged, "whether an eigenvalue has converged", "1"),
        "radius": (one, own.spectral_radius, "modulus of the leading eigenvalue", "1"),
        "sigma_max": (one, own.sigma_max, "largest singular value of the Jacobian", "1"),
        "non_normality": (one, own.non_normality, "departure from normality, relative", "1"),
        "rest_residual": (
            one,
            seen.rest.residual[mine],
            "|f(s) - s| / |s| at the state that was solved for",
            "1",
        ),
        "predicted_rate": (
            one,
            predicted[mine],
            "factor by which what is near comes closer in an iteration, from eigenvalues",
            "1",
        ),
        "slowest_token": (
            one,
            slowest[mine],
            "token among itself and those before that sets predicted_rate; -1: all together",
            "",
        ),
        "measured_rate": (one, measured, "the same, of two trajectories of the loop", "1"),
        "measured_rate_error": (one, error, "standard error of measured_rate", "1"),
        "replayed_rate": (one, replayed, "slowest mode of the recorded motion, run again", "1"),
        "recorded_rate": (one, detected["rate"], "slope of the steps in the recording", "1"),
        "recorded_gap_rate": (one, detected["gap_rate"], "slope of the gap between restarts", "1"),
        "predicted_period": (
            one,
            period[mine],
            "turn of the first unstable fixed point up to the token; of the slowest without one",
            "iterations",
        ),
        "detected_period": (one, detected["period"], "turn of the recorded orbit", "iterations"),
        "cycle_period": (
            one,
            seen.period[mine],
            "iterations after which the loop, going on, is back; 1 at rest",
            "iterations",
        ),
        "cycle_error": (one, seen.period_error[mine], "largest relative miss of the return", "1"),
        "multiplier_real": (two, around.real, "Floquet multiplier, real part", "1"),
        "multiplier_imag": (two, around.imag, "Floquet multiplier, imaginary part", "1"),
        "regime": (one, detected["regime"], "regime of the recording", ""),
    }
    made = seen.dataset(
        data,
        method="Arnoldi on products with the Jacobian of each token, the others at their points",
        **blocks.said(),
        k=k,
        settle=settle,
        longest_cycle=longest_cycle,
        rate_iterations=rate_iterations,
        starts=starts,
        krylov=krylov,
        seed=seed,
    )
    return made.assign_coords(eigenvalue=np.arange(k))
