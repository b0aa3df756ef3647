"""The attention maps of all iterations, sent once, so that moving the scrubber asks nothing.

They travel as 16-bit numbers: a weight shown while scrubbing is exact to the 65534th part of the
largest one. Where there are too many, every n-th iteration is sent, with n odd: every second one
would show an orbit of two iterations as a fixed point. ``assets/attention.js`` reads them.
"""

from __future__ import annotations

import base64
from typing import Any

import numpy as np

from looplens import analysis
from looplens.analysis.attention_views import MOST_SHOWN
from looplens_dashboard.selection import Selection
from looplens_dashboard.view import View

MOST_SENT = 1_200_000
"""Weights that are sent for one panel."""

MOST_READ = 8_000_000
"""Weights that are read for one panel."""

MISSING = 65535


def attention_frames(
    view: View,
    selection: Selection,
    *,
    head: int | str | None,
    against: int | None = None,
) -> dict[str, Any]:
    """Return the maps of a layer in the form that the browser reads.

    Parameters
    ----------
    view, selection
        What is shown.
    head : int, {"mean"} or None
        One head, their mean, or all of them.
    against : int, optional
        An iteration that is sent in any case.

    Returns
    -------
    dict
        ``key``: which maps these are; ``weights``: base64 of little-endian 16-bit numbers
        (iteration, head, query, key), where 65535 is a missing weight and 65534 is ``scale``, of
        ``causal`` maps without the keys after the query; ``iterations``: the number of each map;
        ``heads``, ``cells``, ``joined`` (tokens a cell);
        ``tokens``: global number of the token at each position, -1 where it was not kept;
        ``against``; ``note`` where some iterations are left out.
    """
    run, layer = view.run, selection.attention_layer
    length = int(run.prompts["length"].values[selection.prompt])
    of_heads = view.limits.heads if head is None else 1
    kept = list(run.kept_iterations)
    sent = len(kept) * min(of_heads * length**2, MOST_SHOWN)
    read = len(kept) * view.limits.heads * length**2
    step = max(-(-sent // MOST_SENT), -(-read // MOST_READ))
    step += 1 - step % 2
    # Counted from the end, so that the last iteration, which is shown first, is always there.
    chosen = {*kept[(len(kept) - 1) % step :: step], *([] if against is None else [against])}
    maps = analysis.attention_maps(
        run,
        selection.prompt,
        sorted(chosen),
        layer=layer,
        head=head,
        restart=selection.restart,
        most=MOST_SHOWN,
    )
    weights = maps["weight"].values
    cells = weights.shape[-1]
    causal = bool(np.isnan(weights[..., np.triu(np.ones((cells, cells), dtype=bool), 1)]).all())
    if causal:
        weights = weights[..., np.tril(np.ones((cells, cells), dtype=bool))]
    finite = np.isfinite(weights)
    scale = float(weights[finite].max()) if finite.any() else 1.0
    coded = np.full(weights.shape, MISSING, dtype="<u2")
    coded[finite] = np.round(weights[finite] / (scale or 1.0) * (MISSING - 1)).astype("<u2")
    tokens = np.full(length, -1)
    own = run.token_range(selection.prompt)
    tokens[view.positions[own]] = np.arange(own.start, own.stop)
    note = f"1 of {step} iterations while scrubbing" if step > 1 else None
    return {
        "key": frames_key(selection, head),
        "weights": base64.b64encode(coded.tobytes()).decode("ascii"),
        "iterations": sorted(chosen),
        "heads": of_heads,
        "cells": cells,
        "causal": causal,
        "joined": int(maps.attrs["tokens_per_cell"]),
        "scale": scale,
        "tokens": tokens.tolist(),
        "against": against,
        **({"note": note} if note else {}),
    }


def frames_key(selection: Selection, head: int | str | None) -> str:
    """Return a text that is the same for a figure and its frames."""
    parts = (selection.run, selection.prompt, selection.restart, selection.attention_layer, head)
    return "/".join(map(str, parts))
