"""The pass over a few prompts that a PCA basis is fitted to, gathered without keeping the states.

Mean and covariance are sums, so that the pass takes d_model squared numbers of memory however long
it is. This module knows tensors and models; what is done with the components is the caller's.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from looplens.models.protocol import STATE, Listener, LoopedModel, Site, StartLike
from looplens.prompts import Prompt
from looplens.recording.keeping.keep import Kept
from looplens.store.format.schema import RESIDUAL_SITES

CALIBRATION_PROMPTS = 16
CALIBRATION_STARTS = 4
CALIBRATION_STATES = 2**16
# Rows of states that are multiplied at once: enough for the product to run at full speed.
_ROWS_AT_ONCE = 4096


class Covariance:
    """Mean and scatter matrix of states, gathered in float64.

    Sums are of states less the first one seen, so that a mean far from the origin costs no digits.
    """

    def __init__(self, d_model: int, device: torch.device) -> None:
        # Apple's GPUs have no float64.
        device = torch.device("cpu") if device.type == "mps" else device
        self.count = 0
        self._waiting: list[Tensor] = []
        self._origin = torch.zeros(d_model, dtype=torch.float64, device=device)
        self._sum = torch.zeros_like(self._origin)
        self._scatter = self._sum.new_zeros(d_model, d_model)

    def add(self, states: Float[Tensor, "row d_model"]) -> None:
        """Take in states, without those that are not finite."""
        states = states[states.isfinite().all(-1)]
        if not len(states):
            return
        if not self.count:
            self._origin.copy_(states[0])
        self.count += len(states)
        self._waiting.append(states.to(self._sum) - self._origin)
        if sum(map(len, self._waiting)) >= _ROWS_AT_ONCE:
            self._flush()

    def components(self, wanted: int) -> tuple[np.ndarray, np.ndarray, float]:
        """Return basis (component, d_model), mean (d_model) and the share of variance kept."""
        import scipy.linalg  # only a fit needs it

        self._flush()
        shift = self._sum / self.count
        scatter = (self._scatter - self.count * torch.outer(shift, shift)).cpu().numpy()
        mean = (self._origin + shift).cpu().numpy()
        d_model = len(mean)
        values, vectors = scipy.linalg.eigh(
            scatter, subset_by_index=[d_model - wanted, d_model - 1]
        )
        directions = vectors[:, ::-1].T
        largest = directions[np.arange(wanted), np.abs(directions).argmax(1)]
        total = float(np.trace(scatter))
        share = float(np.maximum(values, 0).sum()) / total if total > 0 else 1.0
        basis = directions * np.sign(largest)[:, None]  # signs that two fits agree on
        return basis.astype(np.float32), mean.astype(np.float32), min(share, 1.0)

    def _flush(self) -> None:
        if not self._waiting:
            return
        rows = torch.cat(self._waiting)
        self._waiting = []
        self._sum += rows.sum(0)
        self._scatter += rows.T @ rows


@torch.no_grad()
def gather(
    model: LoopedModel,
    prompts: Sequence[Prompt],
    starts: Sequence[StartLike],
    iterations: int,
    *,
    sites: Sequence[str],
    kept: Kept | None,
    seed: int,
) -> tuple[Covariance, int]:
    """Run at most 16 of the prompts, evenly spaced, and gather their states.

    Parameters
    ----------
    model : LoopedModel
        The model.
    prompts : sequence of Prompt
        All prompts of the run; they run one by one.
    starts : sequence of StartLike
        One a restart; at most 4 of them run.
    iterations : int
        Passes of the loop.
    sites : sequence of str
        Recorded sites; those of the residual stream are gathered beside the loop state.
    kept : Kept, optional
        Layers and iterations to gather; all by default, without iteration 0.
    seed : int
        Draws which states are gathered where there are more than 65 536.

    Returns
    -------
    covariance : Covariance
        Of the states.
    prompts : int
        How many prompts ran.
    """
    prompts = _spread(prompts)
    starts = tuple(starts[:CALIBRATION_STARTS])
    residual = [site for site in sites if site in RESIDUAL_SITES]
    layers = kept.layers if kept else tuple(range(model.n_layers))
    wanted = set(kept.iterations) if kept else set(range(1, iterations + 1))
    firings = len(wanted) * (1 + len(residual) * len(layers))
    expected = sum(map(len, prompts)) * len(starts) * firings
    # Drawn, and not every n-th: a stride that divides the length would see one position only.
    share, rng = CALIBRATION_STATES / expected, np.random.default_rng(seed)
    gathered = Covariance(model.d_model, model.device)

    def listen(iteration: int, value: Tensor) -> None:
        if iteration not in wanted:
            return
        rows = value.reshape(-1, value.shape[-1])
        if share < 1:
            rows = rows[torch.from_numpy(rng.random(len(rows)) < share).to(rows.device)]
        gathered.add(rows)

    listeners: dict[Site, Listener] = {STATE: listen}
    listeners |= {Site(site, layer): listen for site in residual for layer in layers}
    for prompt in prompts:
        ids = torch.tensor([prompt.token_ids], device=model.device)
        for batch in [(start,) for start in starts] if model.exits_early else [starts]:
            model.run_loop(ids, batch, iterations, listeners)
    return gathered, len(prompts)


def _spread(prompts: Sequence[Prompt]) -> list[Prompt]:
    """Return at most 16 prompts, evenly spaced over all of them."""
    count = min(len(prompts), CALIBRATION_PROMPTS)
    return [prompts[place * len(prompts) // count] for place in range(count)]
