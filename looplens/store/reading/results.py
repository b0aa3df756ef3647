"""Analyses inside a run: each one is a group ``/analysis/<name>`` that xarray reads.

A name is a Python identifier, or two with a slash between them: results that belong together lie in
a group of their own, such as ``/analysis/dynamics/spectra``. A result is written under another name
and moved into place when it is whole, so a viewer never sees half of one. What the numbers mean is
not known here.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import secrets
from collections.abc import Mapping
from typing import Any

import xarray as xr
from zarr.codecs import Crc32cCodec, ZstdCodec

from looplens.errors import CorruptRunError, InputError, StoreError
from looplens.store.files.location import RunLocation
from looplens.store.format.spec import as_json
from looplens.store.reading.result_arrays import ChunkMemory, ResultArray, damaged

# What is read to show one token, uncompressed; four times that where there would be too many files.
_CHUNK_BYTES = 2**18
_MOST_CHUNKS = 1024

_OWN = "analysis"  # an attribute that every result has, and no group of results


def stored_names(location: RunLocation) -> list[str]:
    """Return the names of the stored analyses, sorted; those in a group as ``group/name``."""
    found = []
    for name in _visible(location, "analysis"):
        if _is_result(location, name):
            found.append(name)
        else:
            found += [f"{name}/{inner}" for inner in _visible(location, f"analysis/{name}")]
    return found


def _visible(location: RunLocation, key: str) -> list[str]:
    """Return what lies in a group, without what is being written or replaced."""
    return [name for name in location.children(key) if not name.startswith(".")]


def _is_result(location: RunLocation, name: str) -> bool:
    """Tell a result from a group of results; a damaged one is a result, which says so when read."""
    try:
        document = location.read_metadata(f"analysis/{name}")
    except CorruptRunError:
        return True
    return document is not None and _OWN in (document.get("attributes") or {})


def open_result(
    location: RunLocation, name: str, memory: ChunkMemory, version: object = None
) -> xr.Dataset | None:
    """Open a stored analysis, whose variables are read when they are indexed.

    Returns
    -------
    Dataset or None
        None when there is none of that name.

    Raises
    ------
    CorruptRunError
        If it is damaged; damage of the numbers shows when they are read.
    """
    if not _is_name(name):
        return None
    key = f"analysis/{name}"
    try:
        document = location.read_metadata(key)
        attributes = None if document is None else document.get("attributes") or {}
        if attributes is None or _OWN not in attributes:
            return None
        raw = xr.Dataset(
            {
                variable: ResultArray(location, name, variable, memory, version).variable()
                for variable in location.children(key)
            },
            attrs=attributes,
        )
        # Bools, and which variables are coordinates. Units are words here: no times are decoded.
        return xr.decode_cf(raw, decode_times=False, decode_timedelta=False).drop_encoding()
    except CorruptRunError as error:
        if repr(name) in str(error):
            raise
        raise damaged(location, name, f"{key} cannot be read ({error})") from error


def write_result(
    location: RunLocation,
    name: str,
    dataset: xr.Dataset,
    *,
    version: str | int,
    parameters: Mapping[str, Any],
    input_hash: str,
) -> None:
    """Write an analysis, in place of one of the same name; see `StoredRun.write_analysis`."""
    _check_name(location, name)
    attributes = {
        **as_json(dict(dataset.attrs), f"The attributes of the analysis {name}"),
        _OWN: name,
        "version": version,
        "parameters": json.dumps(as_json(dict(parameters), f"The parameters of {name}")),
        "input_hash": input_hash,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    prepared = _texts_as_objects(dataset).assign_attrs(attributes).drop_encoding()
    files = location.files
    # Others may store the same analysis at the same time, from this process too.
    flat = name.replace("/", ".")
    pending, final = f"analysis/.{flat}.{secrets.token_hex(8)}.partial", f"analysis/{name}"
    try:
        if "/" in name:
            location.ensure_group(f"analysis/{name.partition('/')[0]}")
        store = files.zarr_store(pending)
        prepared.to_zarr(
            store,
            mode="w",
            zarr_format=3,
            consolidated=False,
            write_empty_chunks=True,
            encoding={str(name): _encoding(data) for name, data in prepared.variables.items()},
        )
        files.move_tree(pending, final)
        location.consolidate_below(final)
    except OSError as error:
        raise StoreError(
            f"The analysis {name!r} could not be written to {location} ({error}). Check the free "
            "space and the permissions of the directory, or compute without storing."
        ) from error
    finally:
        with contextlib.suppress(OSError):
            files.remove_tree(pending)


def _encoding(variable: xr.Variable) -> dict[str, Any]:
    """Return how a variable is stored: along tokens in chunks that are small to read and few."""
    encoding: dict[str, Any] = {"compressors": (ZstdCodec(level=1), Crc32cCodec())}
    if "token" in variable.dims and variable.size:
        tokens = variable.sizes["token"]
        per_token = variable.nbytes // tokens
        most = _CHUNK_BYTES if variable.nbytes <= _MOST_CHUNKS * _CHUNK_BYTES else 4 * _CHUNK_BYTES
        # A power of two, so that chunks nest with those of the recording.
        fitting = 1 << (max(1, most // per_token).bit_length() - 1)
        chunks = {**variable.sizes, "token": min(fitting, tokens)}
        encoding["chunks"] = tuple(chunks[dim] for dim in variable.dims)
    return encoding


def _check_name(location: RunLocation, name: str) -> None:
    """Raise InputError for a name that cannot be used, or that stands for something else."""
    if not _is_name(name):
        raise InputError(
            "An analysis must be named like a Python variable, or like two with a slash between "
            f"them (dynamics/spectra), not {name!r}."
        )
    group, _, inner = name.partition("/")
    if group in _visible(location, "analysis") and _is_result(location, group) == bool(inner):
        other = "an analysis" if inner else "a group of analyses"
        raise InputError(
            f"{location}: {group!r} is {other} already, so {name!r} cannot be stored. Take another "
            "name."
        )


def _is_name(name: str) -> bool:
    """Whether a name is one Python identifier, or two with a slash between them."""
    parts = name.split("/")
    return len(parts) <= 2 and all(part.isidentifier() for part in parts)


def _texts_as_objects(dataset: xr.Dataset) -> xr.Dataset:
    """Make texts of any kind Python strings: the only kind that Zarr and pandas both take."""
    texts = {
        name: variable.astype(object)
        for name, variable in dataset.variables.items()
        if variable.dtype.kind in "UT"
    }
    data = {name: value for name, value in texts.items() if name not in dataset.coords}
    coordinates = {name: value for name, value in texts.items() if name in dataset.coords}
    return dataset.assign(data).assign_coords(coordinates)
