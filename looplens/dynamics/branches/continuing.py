"""What becomes of a model's fixed points as a gain on a part of its loop changes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr

from looplens.dynamics.branches.following import settings_of
from looplens.dynamics.branches.gains import Gain, Knob
from looplens.dynamics.branches.late import Late, run_sequence, run_tokens
from looplens.dynamics.branches.of_prompt import OWN, alone, of_sequence, of_tokens
from looplens.dynamics.branches.results import Followed, variables_of
from looplens.dynamics.maps.labelled import Progress, labelled
from looplens.dynamics.maps.loop_maps import Scope, check_scope
from looplens.dynamics.maps.recorded import recorded
from looplens.errors import InputError
from looplens.models.inputs import whole_number


def continuation(
    model: Any,
    source: Any,
    *,
    prompt: int = 0,
    restart: int = 0,
    tokens: int | Sequence[int] | None = None,
    gain: str | Gain = "state",
    gains: tuple[float, float] = (0.0, 3.0),
    scope: Scope = "sequence",
    iteration: int | None = None,
    iterations: int | None = None,
    k: int = 6,
    max_step: float | None = None,
    max_points: int = 200,
    max_folds: int | None = 2,
    runs: int = 31,
    run_iterations: int = 384,
    late: int = 128,
    krylov: int = 60,
    dtype: torch.dtype | None = None,
    progress: Progress = None,
) -> xr.Dataset:
    r"""Turn a knob on the loop: follow fixed points, find where they bifurcate, run the loop there.

    The part that `gain` names is multiplied by g in every iteration. From the fixed point at
    g = 1 the branch of fixed points is followed through the range of `gains` in both directions,
    round folds and where it is unstable, see :func:`follow`; and for a grid of gains the loop is
    run from the recorded state, and the regime of its late states is judged.

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
    gain : str or Gain
        The knob: ``state``, ``injection``, a layer such as ``core.0``, a site address, or a
        :class:`Gain` for some heads or tokens.
    gains : (float, float)
        Range, with 1 in it.
    scope : {"sequence", "token"}
        ``sequence``: all tokens of the prompt move and are followed together, as they do when the
        model is run with that gain. In a causal model the eigenvalues of a token are those of its
        own block. ``token``: each token by itself, the others held at their recorded states.
    iteration : int, optional
        Of the recorded state; the last by default.
    iterations : int, optional
        Of a prompt that is run now.
    k : int
        Leading eigenvalues of each token; a crossing of one beyond them is not seen.
    max_step, max_points, max_folds, krylov
        See :func:`follow`.
    runs : int
        Gains at which the loop is run, evenly over the range; 0 for none.
    run_iterations, late : int
        Iterations of a run, and how many of the last states are judged and kept.
    dtype : torch.dtype, optional
        Of the computation: the model's, and at least float32, by default.
    progress : callable, optional
        Called with tokens done and in all.

    Returns
    -------
    Dataset
        Over ``token``; along ``point`` the branch: ``gain``, ``place`` (along the direction that is
        drawn), ``eigenvalue_real``, ``eigenvalue_imag``, ``spectral_radius``, ``outside``; along
        ``bifurcation`` those of the token and of what it sees: ``bifurcation_kind``,
        ``bifurcation_gain``, ``bifurcation_token`` and so on. ``onset_above``, ``onset_below``: the
        first gains at which the token itself stops being stable (one that is unstable: becomes so);
        ``first_above``, ``first_below``: at which it or one before it stops being stable. Along
        ``run`` the runs: ``run_gain``, ``run_regime``, ``run_period``, ``run_place``. ``status`` is
        ``followed``, ``no fixed point`` (none was verified at g = 1), ``degenerate`` (it does not
        continue there), or ``no context`` (an earlier token has none).

    Raises
    ------
    InputError
        If the model is not the one of the recording, its loop has no step, a choice is out of
        range, or the knob changes nothing.
    SiteError
        If the knob names no site of an iteration.
    AnalysisError
        If the run does not hold what is needed, or states are not finite.

    References
    ----------
    Keller 1977 (pseudo-arclength). Kim 2026, arXiv:2608.26556, for looped transformers: folds and
    Neimark-Sacker bifurcations of resting states, found by continuation in the size of an input.
    """
    check_scope(scope)
    knob_of = Gain.of(gain)
    settings = settings_of(gains, OWN, k, max_step, max_points, max_folds, krylov)
    count = whole_number(runs, "runs", least=0)
    steps = whole_number(run_iterations, "run_iterations", least=1)
    keep = whole_number(late, "late", least=1)
    if keep > steps:
        raise InputError(f"late={keep} states cannot be kept of run_iterations={steps}")
    found = recorded(
        model, source, prompt=prompt, restart=restart, iterations=iterations, dtype=dtype
    )
    chosen = found.positions(tokens)
    knob = Knob(found.step, knob_of)
    here = found.at(iteration)
    grid = np.linspace(settings.low, settings.high, count)
    if scope == "sequence":
        followed, attention = of_sequence(found, knob, here, chosen, settings, progress)
    else:
        followed, attention = of_tokens(found, knob, here, chosen, settings)
    taken: Late | None = None
    if count and scope == "sequence":
        whole = knob.before(max(chosen) + 1) if found.causal else knob
        start = here[: whole.step.shape[0]]
        taken = run_sequence(whole, start, chosen, grid, steps, keep)
    elif count:
        family = alone(knob, here, chosen)
        taken = run_tokens(family, here[chosen], grid, steps, keep, progress)
    if progress is not None:
        progress(len(chosen), len(chosen))
    said: dict[str, Any] = {f"knob_{name}": word for name, word in knob_of.describe().items()}
    if attention:
        said["attention"] = attention
    at_start = here[chosen].cpu().numpy()
    return labelled(
        found,
        chosen,
        variables_of(followed, at_start, taken, grid, settings.k),
        method="pseudo-arclength continuation with Newton-Krylov",
        notes=_notes(scope, found.causal, followed),
        **said,
        gains=[settings.low, settings.high],
        own_gain=OWN,
        scope=scope,
        k=settings.k,
        max_step=settings.max_step,
        max_points=settings.max_points,
        max_folds=settings.max_folds,
        krylov=settings.krylov,
        run_iterations=steps,
        late=keep,
        iteration=found.iteration(iteration),
    )


def _notes(scope: str, causal: bool, followed: list[Followed]) -> list[str]:
    notes = []
    if scope == "sequence" and causal:
        notes.append(
            "eigenvalues are those of a token's own block: it also moves where an earlier one does"
        )
    if scope == "sequence" and not causal:
        notes.append("eigenvalues are those of the whole sequence, the same for every token")
    if scope == "token":
        notes.append("the other tokens are held at their recorded states at every gain")
    ends = {why for one in followed if one.branch is not None for why in one.branch.ended}
    notes += sorted(f"a branch ends: {why}" for why in ends - {"end of the range"})
    return notes
