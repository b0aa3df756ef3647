"""What clean activations, patched into a corrupt prompt, do to the answer: layer by pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr

from looplens.dynamics.maps.labelled import Progress, labelled, variable
from looplens.dynamics.maps.recorded import Recorded, recorded
from looplens.dynamics.pushing.donating import DonatedBy, number_of, other_sample
from looplens.dynamics.pushing.patching import MODES, Grid, Judge
from looplens.dynamics.pushing.variants import Loop, batch_rows
from looplens.errors import AnalysisError, InputError
from looplens.models.inputs import whole_number

_SMALL = 1e-3  # difference of logits that is none


@torch.no_grad()
def causal_effect(
    model: Any,
    source: Any,
    *,
    corrupt: DonatedBy = None,
    prompt: int = 0,
    restart: int = 0,
    tokens: int | Sequence[int] | None = None,
    together: bool = False,
    site: str = "resid_post",
    layers: Sequence[int] | None = None,
    patched: Sequence[int] | None = None,
    answer: int = -1,
    answers: tuple[int, int] | None = None,
    iterations: int | None = None,
    dtype: torch.dtype | None = None,
    progress: Progress = None,
) -> xr.Dataset:
    r"""Patch activations of a clean prompt into a corrupt one, and read the answer out.

    A token's activation at one layer is put to its clean value at one pass (``once``), or at that
    pass and every later one (``held``). With the difference of logits D between the clean and the
    corrupt answer at the position of the answer, after the last pass, the share that is recovered
    is

    .. math:: \frac{D_{patched} - D_{corrupt}}{D_{clean} - D_{corrupt}}

    Parameters
    ----------
    model : LoopedTransformer or LoopedModel
        A model with a readout.
    source : Run, str, sequence of int or tensor
        The clean prompt: in a run, or given. Stored activations of a run are used where it holds
        them, and taken from a forward where not.
    corrupt : optional
        The corrupt one: its number in the run, or a prompt. Both need the same number of tokens.
        By default the next one of the run that fits, if possible one with another answer.
    prompt, restart : int
        Of a run.
    tokens : int or sequence of int, optional
        Positions to patch, each alone; by default all.
    together : bool
        Patch them all at once instead. The result is then that of one token, the answer's.
    site : str
        What is patched in a layer: ``resid_post``, ``attn_out``, ``mlp_out``, ``z``, ...
    layers : sequence of int, optional
        Core layers; by default all.
    patched : sequence of int, optional
        Passes; by default those 0, 1, 3, 7, ... after the first and before the last.
    answer : int
        Position whose readout is judged.
    answers : (int, int), optional
        Clean and corrupt answer; by default the best tokens of the two readouts.
    iterations : int, optional
        Passes to run, at most those recorded; by default all of them.
    dtype : torch.dtype, optional
        See :func:`recorded`.
    progress : callable, optional
        Called with the patches done and all of them.

    Returns
    -------
    Dataset
        Over ``token`` (the patched one), ``mode`` (once, held), ``layer`` and ``patched`` (the
        first pass): ``recovered``, ``logit_difference``, ``kl`` (nat, of the patched readout from
        the clean one). Over ``token``, the same for all tokens of the prompt:
        ``clean_difference``, ``corrupt_difference``, ``corrupt_kl``, ``clean_answer``,
        ``corrupt_answer`` (token ids), ``answer_position``, ``corrupt_prompt`` (-1 for one that was
        run for this).
        ``recovered`` is NaN where both prompts have the same answer.

    Raises
    ------
    InputError, SiteError, AnalysisError
        As :func:`recorded`; if the prompts do not fit each other, a choice is out of range, or the
        model has no readout.

    Notes
    -----
    Only the loop is patched: what is fed to every pass stays that of the corrupt prompt, so what a
    patch writes can be overwritten in the next pass. That a patch has to be held in some models,
    and lasts for about two passes in others, is a claim of Wang & Reid [1]_ as summarised in notes;
    the text of the paper was not read.

    References
    ----------
    .. [1] Wang & Reid, arXiv:2609.01924.
    """
    clean = recorded(model, source, prompt=prompt, restart=restart, dtype=dtype)
    if not clean.step.looped.has_readout:
        raise AnalysisError(f"{clean.step.looped.model_name} has no readout to judge a patch by")
    positions = clean.positions(tokens)
    (judged,) = clean.positions(answer)
    bad = other_sample(model, clean, corrupt, dtype, judged)
    last = (
        bad.iterations[-1]
        if iterations is None
        else whole_number(iterations, "iterations", least=1)
    )
    if last not in bad.iterations or last not in clean.iterations:
        raise InputError(
            f"iterations={last}, but both prompts must have been recorded up to it; they are up to "
            f"{clean.iterations[-1]} and {bad.iterations[-1]}"
        )
    grid = Grid(clean, bad, site, layers, patched, last)
    where: list[Any] = [positions] if together else list(positions)
    donor, chosen = grid.donor()
    rows = [(t, v) for t, v in grid.variants(where, donor, chosen)]
    judge = Judge(clean, bad, judged, last, answers)
    loop, found = Loop(bad.step), np.zeros((len(rows), 2))
    # Late patches together: each batch begins where its first one does.
    order = sorted(range(len(rows)), key=lambda row: rows[row][0])
    size = batch_rows(bad.at())
    for first in range(0, len(order), size):
        part = order[first : first + size]
        begin = rows[part[0]][0] - 1
        states = loop.reached(bad, begin).expand(len(part), -1, -1)
        for _, after in loop.passes(states, begin, last, [rows[row][1] for row in part]):
            states = after
        found[part] = judge(states)
        if progress is not None:
            progress(first + len(part), len(order))
    shape = (len(where), len(MODES), len(grid.layers), len(grid.patched))
    return _dataset(
        clean, bad, [judged] if together else positions, grid, judge, found.reshape(*shape, 2)
    ).assign_attrs(
        site=site,
        iterations=last,
        patched_tokens=positions if together else "one at a time",
    )


def _dataset(
    clean: Recorded,
    bad: Recorded,
    positions: list[int],
    grid: Grid,
    judge: Judge,
    found: np.ndarray,
) -> xr.Dataset:
    cell, number = ("token", "mode", "layer", "patched"), ("token",)
    whole = judge.clean_difference - judge.corrupt_difference
    recovered = (found[..., 1] - judge.corrupt_difference) / (
        whole if abs(whole) > _SMALL else np.nan
    )
    same = {
        "clean_difference": (judge.clean_difference, "difference of logits of the clean prompt"),
        "corrupt_difference": (judge.corrupt_difference, "that of the corrupt prompt"),
        "corrupt_kl": (judge.corrupt_kl, "KL of the corrupt readout from the clean one"),
        "clean_answer": (judge.right, "token id of the clean answer"),
        "corrupt_answer": (judge.wrong, "token id of the corrupt answer"),
        "answer_position": (judge.position, "position whose readout is judged"),
        "corrupt_prompt": (number_of(bad), "prompt of the run that is corrupt; -1: run for this"),
    }
    data = {
        "recovered": variable(cell, recovered, "share of the difference of logits recovered"),
        "logit_difference": variable(
            cell, found[..., 1], "logit of the clean over that of the corrupt answer"
        ),
        "kl": variable(cell, found[..., 0], "KL of the readout from the clean one", "nat"),
        **{
            name: variable(
                number,
                np.full(len(positions), value),
                words,
                "nat" if name == "corrupt_kl" else "1",
            )
            for name, (value, words) in same.items()
        },
    }
    coords = {
        "mode": np.array(MODES, dtype=object),
        "layer": np.array(grid.layers),
        "patched": np.array(grid.patched),
    }
    return labelled(
        clean, positions, data, coords=coords, method="clean values clamped into the corrupt run"
    )
