"""Weight files of a checkpoint directory: safetensors, whole or in shards, and torch files.

Tensors are read one at a time, or a range of rows at a time, straight into the memory that the
model will use. Nothing is mapped or held twice, so that loading needs the size of the model and
no more. No code is ever loaded.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from looplens.errors import InputError

INDEX = "model.safetensors.index.json"
WHOLE = "model.safetensors"
TORCH_FILES = ("model.pt", "pytorch_model.bin", "model.bin", "pytorch_model.pt")

_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_HEADER_LIMIT = 100_000_000  # bytes, as in the reference implementation


class Weights(Protocol):
    """Stored tensors by name."""

    shapes: Mapping[str, tuple[int, ...]]

    def read(self, name: str, start: int = 0, stop: int | None = None) -> Tensor:
        """Return rows ``start:stop`` of a tensor as memory of its own, in the stored dtype."""


@dataclass(frozen=True, slots=True)
class _Place:
    file: Path
    offset: int
    dtype: torch.dtype
    shape: tuple[int, ...]


class SafetensorsWeights:
    """Tensors of one or several safetensors files.

    Parameters
    ----------
    files : list of Path
        The files; a tensor may be in only one of them.

    Raises
    ------
    InputError
        If a file cannot be read, is truncated, or repeats a tensor.
    """

    def __init__(self, files: list[Path]) -> None:
        self._places: dict[str, _Place] = {}
        for file in files:
            for name, place in _read_header(file).items():
                if name in self._places:
                    raise InputError(f"{file} repeats {name}, also in {self._places[name].file}")
                self._places[name] = place
        self.shapes: Mapping[str, tuple[int, ...]] = {
            name: place.shape for name, place in self._places.items()
        }

    def read(self, name: str, start: int = 0, stop: int | None = None) -> Tensor:
        """Return rows ``start:stop`` of a tensor as memory of its own, in the stored dtype."""
        place = self._places[name]
        shape, offset = place.shape, place.offset
        if shape:
            rows = range(shape[0])[start:stop]
            offset += rows.start * math.prod(shape[1:]) * place.dtype.itemsize
            shape = (len(rows), *shape[1:])
        tensor = torch.empty(shape, dtype=place.dtype)
        if tensor.numel():
            with place.file.open("rb", buffering=0) as file:
                file.seek(offset)
                view = tensor.reshape(-1).view(torch.uint8).numpy().data
                while view:  # a single read stops at 2 GiB
                    count = file.readinto(view)
                    if not count:
                        raise InputError(f"cannot read the weights {place.file}: truncated")
                    view = view[count:]
        return tensor


class TorchWeights:
    """Tensors of a torch file, read with ``weights_only`` and mapped instead of copied.

    Parameters
    ----------
    file : Path
        The file: a dictionary of tensors, or one under ``model`` or ``state_dict``.

    Raises
    ------
    InputError
        If the file holds anything else than tensors and plain values.
    """

    def __init__(self, file: Path) -> None:
        try:
            content = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
        except Exception as error:  # torch raises whatever the pickle runs into
            raise InputError(f"cannot read the weights {file}: {error}") from None
        for key in ("model", "state_dict"):
            if isinstance(content, dict) and isinstance(content.get(key), dict):
                content = content[key]
        if not isinstance(content, dict) or not all(
            isinstance(v, Tensor) for v in content.values()
        ):
            raise InputError(f"cannot read the weights {file}: not a dictionary of tensors")
        self._tensors: dict[str, Tensor] = content
        self.shapes: Mapping[str, tuple[int, ...]] = {
            name: tuple(value.shape) for name, value in content.items()
        }

    def read(self, name: str, start: int = 0, stop: int | None = None) -> Tensor:
        """Return rows ``start:stop`` of a tensor as memory of its own, in the stored dtype."""
        tensor = self._tensors[name]
        return (tensor[start:stop] if tensor.ndim else tensor).clone()


def open_weights(directory: Path, *, torch_files: bool = False) -> Weights:
    """Open the weights of a checkpoint directory.

    Parameters
    ----------
    directory : Path
        Holds ``model.safetensors.index.json`` with its shards, or one safetensors file.
    torch_files : bool
        Accept a torch file where there are no safetensors.

    Raises
    ------
    InputError
        If there are no weights, a shard is missing, or a file cannot be read.
    """
    if (directory / INDEX).is_file():
        return _open_shards(directory)
    if (directory / WHOLE).is_file():
        return SafetensorsWeights([directory / WHOLE])
    found = [directory / name for name in TORCH_FILES if (directory / name).is_file()]
    if found and torch_files:
        return TorchWeights(found[0])
    if found:
        raise InputError(
            f"{found[0]} is a torch file, and {directory} has no {WHOLE}: convert the checkpoint "
            "to safetensors"
        )
    raise InputError(f"{directory} holds no weights: expected {WHOLE} or {INDEX}")


def _open_shards(directory: Path) -> SafetensorsWeights:
    try:
        where: dict[str, str] = json.loads((directory / INDEX).read_text())["weight_map"]
        names = sorted(set(where.values()))
    except (json.JSONDecodeError, KeyError, AttributeError, TypeError) as error:
        raise InputError(f"{directory / INDEX} is not an index of shards: {error!r}") from None
    strange = [name for name in names if Path(name).name != name]
    if strange:
        raise InputError(f"{directory / INDEX} names a shard outside its directory: {strange[0]!r}")
    absent = [name for name in names if not (directory / name).is_file()]
    if absent:
        raise InputError(f"{directory} lacks the shards {', '.join(absent)} that {INDEX} names")
    weights = SafetensorsWeights([directory / name for name in names])
    lost = [name for name in where if name not in weights.shapes]
    if lost:
        raise InputError(f"no shard of {directory} holds what {INDEX} lists: {', '.join(lost)}")
    return weights


def _read_header(file: Path) -> dict[str, _Place]:
    """Read where each tensor of a safetensors file lies.

    References
    ----------
    .. [1] https://github.com/huggingface/safetensors (format): eight bytes with the length of a
       JSON header, the header with dtype, shape and byte range of each tensor, then the bytes.
    """

    def unreadable(why: object) -> InputError:
        return InputError(f"cannot read the weights {file}: {why}")

    try:
        size = file.stat().st_size
        with file.open("rb") as opened:
            length = int.from_bytes(opened.read(8), "little")
            if size < 8 or length > min(size - 8, _HEADER_LIMIT):
                raise unreadable("not a safetensors file, or truncated")
            header: dict[str, Any] = json.loads(opened.read(length))
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise unreadable(error) from None
    header.pop("__metadata__", None)
    places = {}
    for name, entry in header.items():
        try:
            dtype = _DTYPES[entry["dtype"]]
            shape = tuple(int(n) for n in entry["shape"])
            start, stop = entry["data_offsets"]
        except KeyError as error:
            raise unreadable(f"{name} has an unknown or missing {error}") from None
        if stop - start != math.prod(shape) * dtype.itemsize or not 0 <= start <= stop:
            raise unreadable(f"{name} takes {stop - start} bytes, which its shape does not")
        if 8 + length + stop > size:
            raise unreadable(f"truncated: {name} ends behind the end of the file")
        places[name] = _Place(file, 8 + length + start, dtype, shape)
    return places
