"""How looped is a model: the cosine between the weights of its layers, group by group.

Looping ties the weights of layers one block apart, so their cosine is 1; layers of a model that was
trained freely are nearly orthogonal, and training can pull them together. Weights alone are looked
at: no forward runs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from looplens.errors import InputError
from looplens.models.layer_list import find_layer_list
from looplens.models.looped import LoopedTransformer
from looplens.models.looped_layers import LoopedLayers

LOOPED = 0.98
"""Cosine one block apart that Saunshi et al. reach with their regulariser and call looped."""
_CHUNK = 1 << 22  # weights of a layer that are read at once


@dataclass(frozen=True, kw_only=True, slots=True)
class WeightCosine:
    """Cosines between the weights of the layers of a model.

    Attributes
    ----------
    layers : tuple of str
        Names of the layers, in the order of the forward; a looped layer is listed once.
    groups : tuple of str
        Weight matrices that every layer has, such as ``mlp.up_proj.weight``.
    cosine : ndarray, shape (group, layer, layer)
        Cosine between the matrices, read as vectors.
    """

    layers: tuple[str, ...]
    groups: tuple[str, ...]
    cosine: np.ndarray

    def one_block_apart(self, block: int) -> dict[str, float]:
        r"""Return the mean cosine between layers ``block`` apart, for each group of weights.

        .. math::
            R_G(k) = \frac{1}{L - k} \sum_{i=0}^{L/k - 2} \sum_{j=0}^{k-1}
                     \cos(\theta_G^{(ik+j)}, \theta_G^{((i+1)k+j)})

        Raises
        ------
        InputError
            If no two layers are that far apart.

        References
        ----------
        Saunshi et al., arXiv:2502.17416: the regulariser R_G(k), and figure 5.
        """
        if not 1 <= block < len(self.layers):
            raise InputError(
                f"block must lie between 1 and {len(self.layers) - 1} in a model of "
                f"{len(self.layers)} layers, got {block}"
            )
        diagonal = np.diagonal(self.cosine, offset=block, axis1=1, axis2=2)  # [group, pair]
        return dict(zip(self.groups, diagonal.mean(-1).tolist(), strict=True))

    def by_block(self) -> dict[int, float]:
        """Return the mean over groups for every block size up to half of the layers."""
        sizes = range(1, max(2, len(self.layers) // 2 + 1))
        return {
            block: float(np.mean(list(self.one_block_apart(block).values())))
            for block in sizes
            if block < len(self.layers)
        }


@torch.no_grad()
def weight_cosine(model: nn.Module) -> WeightCosine:
    """Measure how alike the weights of the layers are.

    Parameters
    ----------
    model : Module
        An ordinary causal language model, one that ``loop_layers`` loops, or a LoopedTransformer
        (prelude, core and coda; the passes of a loop share their weights and are not counted).

    Returns
    -------
    WeightCosine
        Matrices only: gains of norms all lie near 1 and would look alike in any model.

    Raises
    ------
    InputError
        If the model has no list of layers, or its layers have no weight matrix in common.

    References
    ----------
    Saunshi et al., arXiv:2502.17416, figure 5: about 0 without regularisation, at least .98 with.
    """
    layers = _named_layers(model)
    weights = [
        {
            name: value
            for name, value in layer.named_parameters()
            if value.ndim > 1 and not name.endswith("bias")
        }
        for layer in layers.values()
    ]
    groups = tuple(
        name
        for name, value in weights[0].items()
        if all(name in other and other[name].shape == value.shape for other in weights)
    )
    if not groups:
        raise InputError(
            f"the {len(layers)} layers of {type(model).__name__} have no weight matrix in common"
        )
    cosine = [_cosines([other[group] for other in weights]) for group in groups]
    return WeightCosine(layers=tuple(layers), groups=groups, cosine=np.array(cosine))


def _named_layers(model: nn.Module) -> dict[str, nn.Module]:
    if isinstance(model, LoopedTransformer):
        return {
            f"{part}.{number}": layer
            for part in ("prelude", "core", "coda")
            for number, layer in enumerate(getattr(model, part))
        }
    inner = model.model if isinstance(model, LoopedLayers) else model
    found = find_layer_list(inner)
    return {f"{found.path}.{number}": found.layers[number] for number in range(len(found.layers))}


def _cosines(weights: list[Tensor]) -> np.ndarray:
    """Return the cosines between tensors, reading a slice of all of them at a time."""
    flat = [weight.reshape(-1) for weight in weights]
    gram = torch.zeros(len(flat), len(flat), dtype=torch.float64)
    for begin in range(0, flat[0].numel(), _CHUNK):
        rows = torch.stack([row[begin : begin + _CHUNK].float().cpu() for row in flat])
        gram += (rows @ rows.T).double()
    length = gram.diagonal().sqrt()
    return (gram / (length[:, None] * length)).numpy()
