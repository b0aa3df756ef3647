"""A short fingerprint of a model's weights, so that a run is not gone on with by another model."""

from __future__ import annotations

import hashlib
import zlib
from typing import Any

import torch
from torch import Tensor, nn

from looplens.models.protocol import LoopedModel

_NUMBERS_AT_ONCE = 2**24


@torch.no_grad()
def weights_digest(model: LoopedModel) -> str | None:
    """Return a fingerprint of all parameters and buffers; None for a model that shows none.

    Each tensor goes in with its name, shape, dtype and the CRC-32 of its bytes, which is a matter
    of seconds for billions of them. It is computed each time, since weights can be changed without
    a trace.
    """
    module: Any = getattr(model, "module", None) or getattr(model, "model", None)
    if not isinstance(module, nn.Module):
        return None
    digest = hashlib.sha256()
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype} {_checksum(tensor)};".encode())
    return digest.hexdigest()[:16]


def _checksum(tensor: Tensor) -> int:
    flat, value = tensor.detach().contiguous().reshape(-1), 0
    for start in range(0, len(flat), _NUMBERS_AT_ONCE):  # never all of a device's weights at once
        part = flat[start : start + _NUMBERS_AT_ONCE].cpu()
        value = zlib.crc32(part.view(torch.uint8).numpy().data, value)
    return value
