"""Which tokens a token moves: it is let go while the others that move by themselves are held."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float

from looplens.dynamics.eigen.looking import Look
from looplens.dynamics.eigen.running import amplitude, run_on, still_moves

_RELEASE = 256  # iterations that follow the release of one token
_WINDOW = 128  # of these, the last that are looked at
_BYTES = 2**28  # of states that are kept of all releases together


@torch.no_grad()
def released(
    seen: Look, movers: np.ndarray
) -> tuple[Float[np.ndarray, "mover pos"], Float[np.ndarray, "mover pos"]]:
    """Release one mover at a time, the others held at rest.

    Returns
    -------
    pushed : Float[ndarray, "mover pos"]
        Amplitude of every token.
    drive : Float[ndarray, "mover pos"]
        Root mean square of how much further an iteration takes the tokens than with all at rest,
        over their norms: of those that are held, what they feel.
    """
    n_pos = seen.found.n_pos
    pushed, drive = np.zeros((2, len(movers), n_pos))
    rest, start = seen.rest.states, seen.path[-1]
    calm = seen.found.step(rest[None])[0]  # not where it was, where no fixed point was found
    size = max(1, _BYTES // (2 * _WINDOW * rest.numel() * rest.element_size()))
    for first in range(0, len(movers), size):
        part = movers[first : first + size]
        held = torch.zeros(len(part), n_pos, dtype=torch.bool, device=rest.device)
        for row, mover in enumerate(part):
            held[row, [m for m in movers if m != mover]] = True
            if seen.found.causal:
                held[row, :mover] = True  # what it does not move stays at rest
        states = torch.where(held[..., None], rest, start)
        path, mapped = run_on(seen.found.step, states, _RELEASE, keep=_WINDOW, held=held)
        going = still_moves(path)
        if not seen.found.causal:
            # What moves with all movers held needs none of them.
            every = torch.zeros(1, n_pos, dtype=torch.bool, device=rest.device)
            every[0, list(movers)] = True
            states = torch.where(every[..., None], rest, start)
            quiet, _ = run_on(seen.found.step, states, _RELEASE, keep=_WINDOW, held=every)
            going &= ~still_moves(quiet)
        pushed[first : first + len(part)] = np.where(going, amplitude(path), 0.0)
        off = (mapped - calm).square().sum(-1).mean(0).sqrt() / rest.norm(dim=-1)
        drive[first : first + len(part)] = off.cpu().numpy()
    return pushed, drive
