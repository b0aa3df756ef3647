"""Analyses inside a run: each one is a group ``/analysis/<name>`` that xarray reads.

A result is written under another name and moved into place when it is whole, so a viewer never
sees half of one. What the numbers mean is not known here.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import secrets
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from zarr.codecs import Crc32cCodec, ZstdCodec

from looplens.errors import CorruptRunError, InputError, StoreError
from looplens.store.files.location import RunLocation
from looplens.store.format.spec import as_json


def stored_names(location: RunLocation) -> list[str]:
    """Return the names of the stored analyses, sorted."""
    return [name for name in location.children("analysis") if not name.startswith(".")]


def open_result(location: RunLocation, name: str) -> xr.Dataset:
    """Open a stored analysis lazily."""
    store = location.files.zarr_store(f"analysis/{name}", read_only=True)
    return xr.open_zarr(store, consolidated=False, chunks=None)


def read_result(location: RunLocation, name: str) -> xr.Dataset | None:
    """Read a stored analysis; None when there is none of that name.

    Raises
    ------
    CorruptRunError
        If it is damaged.
    """
    if name not in stored_names(location):
        return None
    problem = None
    try:
        for variable in location.children(f"analysis/{name}"):
            array = location.open_array(f"analysis/{name}/{variable}")
            for chunk in np.ndindex(*array.cdata_shape):
                problem = problem or location.chunk_problem(array, chunk)
        if problem is None:
            return _texts_as_objects(open_result(location, name).load()).drop_encoding()
    except Exception as error:  # every codec has its own kinds of error
        problem = (f"analysis/{name}", f"cannot be read ({error})")
    raise CorruptRunError(
        f"{location}: the stored analysis {name!r} is damaged: {problem[0]} {problem[1]}. "
        "Run the analysis again to replace it."
    )


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
    if not name.isidentifier():
        raise InputError(f"An analysis must be named like a Python variable, not {name!r}.")
    attributes = {
        **as_json(dict(dataset.attrs), f"The attributes of the analysis {name}"),
        "analysis": name,
        "version": version,
        "parameters": json.dumps(as_json(dict(parameters), f"The parameters of {name}")),
        "input_hash": input_hash,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    prepared = _texts_as_objects(dataset).assign_attrs(attributes).drop_encoding()
    files = location.files
    # Others may store the same analysis at the same time, from this process too.
    pending, final = f"analysis/.{name}.{secrets.token_hex(8)}.partial", f"analysis/{name}"
    guarded = {"compressors": (ZstdCodec(level=1), Crc32cCodec())}
    try:
        store = files.zarr_store(pending)
        prepared.to_zarr(
            store,
            mode="w",
            zarr_format=3,
            consolidated=False,
            write_empty_chunks=True,
            encoding={str(variable): guarded for variable in prepared.variables},
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
