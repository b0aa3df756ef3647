"""How many bits of a made-up population a trained model has stored, a parameter.

The losses are measured here; how they become bits is the business of :class:`looplens.tasks.Bios`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from looplens.models import LoopedTransformer
from looplens.tasks import Bios
from looplens.tasks.bios import NAME_PARTS
from looplens.training.truncated import batch_noise, unroll


@dataclass(frozen=True, kw_only=True, slots=True)
class Capacity:
    """What a model knows of the people of a task.

    Attributes
    ----------
    name_nats, value_nats : float
        Loss summed over the name and over the values of a person, mean over all people, in nats.
    bits : float
        Bits stored, see :meth:`looplens.tasks.Bios.stored_bits`.
    most_bits : float
        Bits of everything there is to know.
    parameters : int
        Of the whole model, embedding and head included.
    """

    name_nats: float
    value_nats: float
    bits: float
    most_bits: float
    parameters: int

    @property
    def per_parameter(self) -> float:
        """Bits stored a parameter."""
        return self.bits / self.parameters


@torch.no_grad()
def capacity(
    model: LoopedTransformer, task: Bios, *, iterations: int | None = None, batch: int = 256
) -> Capacity:
    """Measure what a model knows of all people of a task.

    Parameters
    ----------
    model : LoopedTransformer
        The model.
    task : Bios
        Whose biographies it was trained on.
    iterations : int, optional
        Passes of the loop; the model's own default when not given.
    batch : int
        People at a time.

    References
    ----------
    Allen-Zhu & Li, arXiv 2404.05405: bits of names and values over all parameters.
    """
    count = model.cfg.default_iterations if iterations is None else iterations
    device = next(model.parameters()).device
    rng = np.random.default_rng(0)
    losses = []
    for rows in torch.from_numpy(task.biographies).split(batch):
        tokens = rows.to(device)
        start = batch_noise(model.cfg, tuple(tokens.shape), rng)
        state = unroll(
            model, tokens, iterations=count, backprop_iterations=count, initial_state=start
        )
        logits = model.readout(state)[:, :-1]
        losses.append(
            torch.nn.functional.cross_entropy(
                logits.flatten(0, 1), tokens[:, 1:].flatten(), reduction="none"
            ).view(len(rows), -1)
        )
    nats = torch.cat(losses).double()  # (person, place)
    name, value = (float(part.sum(dim=1).mean()) for part in nats.tensor_split([NAME_PARTS], dim=1))
    return Capacity(
        name_nats=name,
        value_nats=value,
        bits=task.stored_bits(name, value),
        most_bits=task.most_bits,
        parameters=sum(weight.numel() for weight in model.parameters()),
    )
