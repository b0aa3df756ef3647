"""The two tables of a run: one row a prompt, one row a token.

The recorded tokens of all prompts lie end to end, without padding. Columns are written once, when
a run is created.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from numbers import Integral

import numpy as np

from looplens.prompts import Prompt
from looplens.store.files.location import RunLocation
from looplens.store.format.schema import VariableSpec
from looplens.store.format.spec import RunSpec

_ROWS_IN_CHUNK = 2**16


def write_tables(location: RunLocation, spec: RunSpec) -> None:
    """Write ``/prompts``, ``/tokens``, ``/vocabulary`` and the coordinate arrays of a run."""
    for name, (values, long_name) in prompt_columns(spec).items():
        _write(location, f"prompts/{name}", "prompt", values, long_name)
    kept = _recorded(spec)
    for name, (values, long_name) in token_columns(spec.prompts).items():
        _write(location, f"tokens/{name}", "token", values[kept], long_name)
    if spec.vocabulary:
        ids = np.array(list(spec.vocabulary), dtype=np.int32)
        texts = _strings(list(spec.vocabulary.values()))
        _write(location, "vocabulary/token_id", "entry", ids, "token id")
        _write(location, "vocabulary/text", "entry", texts, "text of the token")
    for path, values in spec.layout.coordinates().items():
        name = path.rsplit("/", 1)[1]
        _write(location, path, name, values, f"{name} number")


def prompt_columns(spec: RunSpec) -> dict[str, tuple[np.ndarray, str]]:
    """Return (values, long_name) of each column of the table of prompts."""
    prompts = spec.prompts
    counts = np.array(spec.recorded_lengths, dtype=np.int32)
    lengths = np.array([len(prompt) for prompt in prompts], dtype=np.int32)
    columns = {
        "text": (_strings([prompt.text for prompt in prompts]), "text of the prompt"),
        "n_tokens": (counts, "number of recorded tokens"),
        "first_token": (np.cumsum(counts) - counts, "number of the first recorded token"),
        "length": (lengths, "number of tokens of the prompt, recorded or not"),
    }
    for name in dict.fromkeys(name for prompt in prompts for name in prompt.metadata):
        values = [prompt.metadata.get(name) for prompt in prompts]
        columns[name] = (_metadata_column(values), f"prompt metadata: {name}")
    return columns


def token_columns(prompts: Sequence[Prompt]) -> dict[str, tuple[np.ndarray, str]]:
    """Return (values, long_name) of each column of the table of tokens, recorded or not."""
    lengths = np.array([len(prompt) for prompt in prompts])
    total = int(lengths.sum())
    prompt_of = np.repeat(np.arange(len(prompts), dtype=np.int32), lengths)
    position = np.arange(total) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    targets = [(-1,) * len(p) if p.targets is None else p.targets for p in prompts]
    columns = {
        "prompt": (prompt_of, "number of the prompt"),
        "position": (position.astype(np.int32), "position in the prompt"),
        "token_id": (_chain([p.token_ids for p in prompts], np.int32, total), "token id"),
        "text": (
            _strings([text for prompt in prompts for text in prompt.token_texts]),
            "text of the token",
        ),
        "target": (_chain(targets, np.int32, total), "id that should be predicted here, -1: none"),
    }
    for name in dict.fromkeys(name for prompt in prompts for name in prompt.token_metadata):
        rows = [p.token_metadata.get(name, (np.nan,) * len(p)) for p in prompts]
        columns[name] = (_chain(rows, np.float64, total), f"token metadata: {name}")
    return columns


def _recorded(spec: RunSpec) -> slice | np.ndarray:
    """Return which of the tokens of all prompts are recorded."""
    if spec.token_positions is None:
        return slice(None)
    lengths = np.array([len(prompt) for prompt in spec.prompts])
    firsts = np.cumsum(lengths) - lengths
    rows = [
        first + np.array(row, dtype=np.int64)
        for first, row in zip(firsts, spec.token_positions, strict=True)
    ]
    return np.concatenate(rows)


def _metadata_column(values: list[str | float | int | None]) -> np.ndarray:
    """Choose one type for a column: text if any value is, int if all are, else float64."""
    if any(isinstance(value, str) for value in values):
        return _strings(["" if value is None else str(value) for value in values])
    if all(isinstance(value, Integral) for value in values):
        return np.array(values, dtype=np.int64)
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def _chain(rows: list[tuple], dtype: type[np.generic], total: int) -> np.ndarray:
    return np.fromiter(itertools.chain.from_iterable(rows), dtype=dtype, count=total)


def _strings(values: list[str]) -> np.ndarray:
    return np.array(values, dtype=np.dtypes.StringDType())


def _write(location: RunLocation, path: str, dim: str, values: np.ndarray, long_name: str) -> None:
    variable = VariableSpec(
        path=path,
        dims=(dim,),
        shape=values.shape,
        chunks=(min(values.size, _ROWS_IN_CHUNK),),
        dtype="string" if values.dtype.kind == "T" else values.dtype.name,
        long_name=long_name,
        compressed=True,
    )
    location.create_array(variable)
    location.write(variable, (slice(0, values.size),), values)
