"""Push one token after the other and see whether the loop pulls it back, and how fast."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from looplens.dynamics.maps.labelled import Progress, labelled, variable
from looplens.dynamics.maps.recorded import Recorded, recorded
from looplens.dynamics.pushing.distance import relative
from looplens.dynamics.pushing.pushes import for_tokens, passes_of, placed
from looplens.dynamics.pushing.reading import logits_at
from looplens.dynamics.pushing.returning import (
    OUTCOMES,
    floor_of,
    outcomes,
    reference,
    return_rate,
    window,
)
from looplens.dynamics.pushing.variants import Loop, side_by_side
from looplens.models.inputs import whole_number
from looplens.recording.changing.interventions import Intervention
from looplens.recording.streaming.readout import divergence

DEFAULT = Intervention.noise("hook_state", 0.1)


@torch.no_grad()
def recovery(
    model: Any,
    source: Any,
    *,
    prompt: int = 0,
    restart: int = 0,
    tokens: int | Sequence[int] | None = None,
    push: Intervention = DEFAULT,
    iteration: int | None = None,
    hold: bool = False,
    iterations: int = 64,
    dtype: torch.dtype | None = None,
    progress: Progress = None,
) -> xr.Dataset:
    r"""Push a token and follow the distance to where it would have been.

    Every token is pushed in a run of its own, beside one that is left alone and goes through the
    same arithmetic. With s the unpushed and s' the pushed states, of the pushed token and the
    others,

    .. math:: d_t = \frac{|s'_t - s_t|}{|s_t|}

    Parameters
    ----------
    model : LoopedTransformer or LoopedModel
        The model.
    source : Run, str, sequence of int or tensor
        A run of it, or one prompt.
    prompt, restart : int
        Of a run.
    tokens : int or sequence of int, optional
        Positions of the prompt to push, each alone; by default all.
    push : Intervention
        What is done, without ``tokens``: patch (``replace``, ``clamp``), ablate, steer (``add``) or
        noise at any site. By default noise of a tenth of the state.
    iteration : int, optional
        The pass that is pushed, by default the last one recorded. Where the state before it was
        not kept, the loop is run on to it. Not where the address of the push names passes.
    hold : bool
        Push in every later pass too.
    iterations : int
        Passes to run after the push; there may be more of them than were recorded.
    dtype : torch.dtype, optional
        See :func:`recorded`.
    progress : callable, optional
        Called with the tokens done and all of them.

    Returns
    -------
    Dataset
        Over ``token`` (the pushed one) and ``iteration`` (from the push on): ``distance``,
        ``others`` (the largest distance of another token), ``kl`` (of the readout at the token from
        the unpushed one, nat; not for models without readout). Over ``token``: ``outcome`` (see
        :data:`OUTCOMES`), ``rate`` with ``rate_error`` and ``rate_end`` (factor per pass by which
        the distance changes, fitted above the floor; NaN where fewer than three passes are, and
        where the push is repeated), ``final_distance``, ``final_others``, ``answer_changes``,
        ``floor``.

    Raises
    ------
    InputError, SiteError, AnalysisError
        As :func:`recorded`, :func:`placed` and :func:`looplens.recording.hooks_for`.

    Notes
    -----
    The fit is that of distances between restarts [1]_; the last distance counts as zero below the
    floor of the regimes. A verdict is about these passes, this direction and this size: see
    :func:`basin_radius` for sizes.

    References
    ----------
    .. [1] Rules 2 and 5 of a public self-audit of measurements on the model of Geiping et al. 2025,
       arXiv:2502.05171; see ``looplens.analysis.measures.gap_decay``.

    Examples
    --------
    >>> import looplens as ll
    >>> from looplens.dynamics import recovery
    >>> model = ll.load_model("affine-huginn-mini")
    >>> found = recovery(model, "3+4*2", tokens=-1, iteration=16, iterations=24)
    >>> str(found["outcome"].values[0])
    'back'
    """
    passes = whole_number(iterations, "iterations", least=4)
    found = recorded(model, source, prompt=prompt, restart=restart, dtype=dtype)
    positions = found.positions(tokens)
    push = placed(push, iteration, hold, found)
    acts = passes_of(push, found, passes)
    begin, loop = acts[0] - 1, Loop(found.step)
    end = acts[0] + passes
    curves = _Curves(found, positions, end - begin)
    start = loop.reached(found, begin)
    run = side_by_side(loop, start, begin, end, for_tokens(push, positions))
    for rows, t, states, unchanged in run:
        curves.see(rows, t - begin - 1, t, end, states, unchanged)
        if progress is not None and t == end:
            progress(rows.stop, len(positions))
    return _dataset(found, positions, push, acts, end, curves)


class _Curves:
    """What is kept of the rows, pass by pass."""

    def __init__(self, found: Recorded, positions: Sequence[int], passes: int) -> None:
        rows, width = len(positions), found.step.looped.d_model
        self.step = found.step
        self.positions = torch.tensor(positions, device=found.states.device)
        self.away, self.norm, self.distance, self.others, self.kl, self.changes = (
            np.full((rows, passes), np.nan) for _ in range(6)
        )
        self.late = reference(passes)
        self.first_late = passes - self.late
        self.pushed = torch.zeros(self.late, rows, width, dtype=found.states.dtype)
        self.unpushed = torch.zeros_like(self.pushed)

    def see(
        self, rows: slice, column: int, t: int, end: int, states: Tensor, unchanged: Tensor
    ) -> None:
        """Measure one pass of a batch."""
        here = self.positions[rows]
        row = torch.arange(len(here), device=here.device)
        gap = relative(states - unchanged, unchanged)  # row pos
        norm = unchanged[here].double().norm(dim=-1)
        mine = (states[row, here] - unchanged[here]).double().norm(dim=-1)
        self.away[rows, column], self.norm[rows, column] = mine.cpu(), norm.cpu()
        self.distance[rows, column] = gap[row, here].cpu()
        if gap.shape[1] > 1:
            gap[row, here] = 0
            self.others[rows, column] = gap.amax(-1).cpu()
        if self.step.looped.has_readout:
            said = logits_at(self.step, states, here[:, None], t, end)[:, 0].log_softmax(-1)
            alone = logits_at(self.step, unchanged[None], here[None], t, end)[0].log_softmax(-1)
            self.kl[rows, column] = divergence(alone, said).cpu()
            self.changes[rows, column] = (alone.argmax(-1) != said.argmax(-1)).double().cpu()
        if column >= self.first_late:
            self.pushed[column - self.first_late, rows] = states[row, here].cpu()
            self.unpushed[column - self.first_late, rows] = unchanged[here].cpu()


def _dataset(
    found: Recorded,
    positions: list[int],
    push: Intervention,
    acts: Sequence[int],
    end: int,
    curves: _Curves,
) -> xr.Dataset:
    begin = acts[0] - 1
    floor = floor_of(found.states.dtype)
    distance = curves.distance
    ends = outcomes(curves.pushed, curves.unpushed, floor, window(end - begin))
    fit = return_rate(curves.away, floor * curves.norm[:, -1])
    once = len(acts) == 1
    slope = np.where(once, fit.slope, np.nan)
    curve, number = ("token", "iteration"), ("token",)
    data = {
        "distance": variable(curve, distance, "distance of the pushed token over its norm"),
        "others": variable(curve, curves.others, "largest such distance of another token"),
        "outcome": variable(number, ends, "where the pushed token is at the end"),
        "rate": variable(number, np.exp(slope), "factor by which the distance changes in a pass"),
        "rate_error": variable(number, np.exp(slope) * fit.error, "standard error of rate"),
        "rate_end": variable(
            number, np.where(once, begin + 1 + fit.end, np.nan), "last pass of the fit", "iteration"
        ),
        "final_distance": variable(number, distance[:, -1], "distance after the last pass"),
        "final_others": variable(number, curves.others[:, -1], "others after the last pass"),
        "floor": variable(number, np.full(len(positions), floor), "distance that may be rounding"),
    }
    if found.step.looped.has_readout:
        data["kl"] = variable(
            curve, curves.kl, "KL of the readout at the token from the unpushed one", "nat"
        )
        data["answer_changes"] = variable(
            number, curves.changes[:, -1], "whether the best token after the last pass is another"
        )
    return labelled(
        found,
        positions,
        data,
        coords={"iteration": np.arange(begin + 1, end + 1)},
        method="every token pushed alone, beside an unpushed row of the same batch",
        push=push.describe(),
        iteration=begin + 1,
        hold=not once and acts[-1] == end,
        iterations=end - begin - 1,
        outcomes=OUTCOMES,
    )
