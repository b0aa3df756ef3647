"""What must hold of a run before it is opened.

The schema must be known, the attributes whole, the arrays of the declared shapes. Only metadata is
read here; whether the numbers themselves are there is checked when they are read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from looplens.errors import CorruptRunError, LoopLensError, SchemaVersionError
from looplens.store.files.documents import RESTORE
from looplens.store.files.location import RunLocation
from looplens.store.format.layout import Layout
from looplens.store.format.schema import SCHEMA_VERSION, SITES, looplens_version
from looplens.store.format.validation import STORE_DTYPES
from looplens.store.reading.arrays import StoredArray

_CHANGING = frozenset({"complete", "non_finite", "created", "digest"})
_REQUIRED = {
    "complete": bool,
    "model": dict,
    "iterations": int,
    "n_layers": int,
    "d_model": int,
    "restarts": int,
    "restart_seeds": list,
    "initial_state": str,
    "source_dtype": str,
    "store_dtype": str,
    "sites": list,
    "inject": bool,
    "attention_prompts": list,
    "readout_top_k": int,
    "n_prompts": int,
    "n_tokens": int,
    "non_finite": dict,
    "layers": list,
    "kept_iterations": list,
    "block_tokens": int,
}

_SIZES = (
    "iterations",
    "n_layers",
    "d_model",
    "restarts",
    "n_prompts",
    "n_tokens",
    "block_tokens",
)


def read_layout(location: RunLocation, attributes: dict[str, Any]) -> Layout:
    """Return the sizes that the attributes of a run declare.

    Raises
    ------
    SchemaVersionError
        If a looplens with another schema wrote the run.
    CorruptRunError
        If an attribute is missing or has a value that it cannot have.
    """
    version = attributes["schema_version"]
    if isinstance(version, int) and version >= 1 and version != SCHEMA_VERSION:
        writer = attributes.get("looplens_version", "of unknown version")
        what_to_do = (
            "Update looplens."
            if version > SCHEMA_VERSION
            else f"Record the run again, or read it with looplens {writer}."
        )
        raise SchemaVersionError(
            f"{location} has schema version {version} (written by looplens {writer}), but looplens "
            f"{looplens_version()} reads version {SCHEMA_VERSION}. {what_to_do}"
        )
    if version != SCHEMA_VERSION:
        raise CorruptRunError(f"{location}: the schema version is {version!r}. {RESTORE}")
    wrong = [n for n, kind in _REQUIRED.items() if not isinstance(attributes.get(n), kind)]
    if not wrong:
        wrong += [name for name in _SIZES if attributes[name] < 1]
        wrong += [
            name
            for name, allowed in (
                ("layers", range(attributes["n_layers"])),
                ("kept_iterations", range(1, attributes["iterations"] + 1)),
            )
            if not attributes[name] or not set(map(str, attributes[name])) <= set(map(str, allowed))
        ]
        width = attributes.get("width")
        wrong += ["width"] * (width is not None and not (isinstance(width, int) and width > 0))
        wrong += ["store_dtype"] * (attributes["store_dtype"] not in STORE_DTYPES)
        wrong += ["sites"] * (not set(map(str, attributes["sites"])) <= set(SITES))
    if wrong:
        seen = ", ".join(f"{name} is {attributes.get(name, 'missing')!r}" for name in wrong)
        raise CorruptRunError(
            f"{location}: attributes are missing or have values that they cannot have: {seen}. "
            f"{RESTORE}"
        )
    return Layout(
        n_tokens=attributes["n_tokens"],
        iterations=attributes["iterations"],
        n_layers=attributes["n_layers"],
        d_model=attributes["d_model"],
        restarts=attributes["restarts"],
        sites=tuple(attributes["sites"]),
        n_heads=attributes.get("n_heads"),
        n_kv_heads=attributes.get("n_kv_heads"),
        d_head=attributes.get("d_head"),
        inject=attributes["inject"],
        attention_lengths=_attention_lengths(location, attributes),
        readout_top_k=attributes["readout_top_k"],
        exit_gate=attributes.get("exit_gate") is True,  # of runs from before there was one: none
        dtype=attributes["store_dtype"],
        layers=tuple(attributes["layers"]),
        kept_iterations=tuple(attributes["kept_iterations"]),
        width=attributes.get("width"),
        block_tokens=attributes["block_tokens"],
    )


def attributes_digest(attributes: Mapping[str, Any]) -> str:
    """Return a digest of what the attributes of a run say for good: model, seeds, settings, sizes.

    Without what changes while the run is recorded, and the digest itself.
    """
    fixed = {name: value for name, value in attributes.items() if name not in _CHANGING}
    return hashlib.sha256(json.dumps(fixed, sort_keys=True).encode()).hexdigest()[:16]


def check_arrays(location: RunLocation, layout: Layout) -> None:
    """Check that every array is there, with the declared axes, shape and dtype.

    Raises
    ------
    CorruptRunError
        At the first that is not.
    """
    for key, variable in layout.variables().items():
        _check_array(location, key, variable.shape, variable.dims, variable.dtype)
    for key, values in layout.coordinates().items():
        _check_array(location, key, values.shape)
    for column in ("prompt", "position", "token_id", "text", "target"):
        _check_array(location, f"tokens/{column}", (layout.n_tokens,))


def _check_array(
    location: RunLocation,
    key: str,
    shape: tuple[int, ...],
    dims: tuple[str, ...] | None = None,
    dtype: str | None = None,
) -> None:
    document = location.read_metadata(key)
    if document is None:
        raise CorruptRunError(f"{location}: the array {key!r} is missing. {RESTORE}")
    for what, expected, seen in (
        ("shape", list(shape), document.get("shape")),
        ("axes", None if dims is None else list(dims), document.get("dimension_names")),
        ("dtype", dtype, document.get("data_type")),
    ):
        if expected is not None and seen != expected:
            raise CorruptRunError(
                f"{location}: the array {key!r} should have the {what} {expected} by the "
                f"attributes of the run, but has {seen}. {RESTORE}"
            )


def _attention_lengths(location: RunLocation, attributes: dict[str, Any]) -> dict[int, int]:
    for column in ("text", "n_tokens", "length", "first_token"):
        _check_array(location, f"prompts/{column}", (attributes["n_prompts"],))
    if not attributes["attention_prompts"]:
        return {}
    try:
        lengths = StoredArray(location, "prompts/length").variable().values
        return {int(index): int(lengths[index]) for index in attributes["attention_prompts"]}
    except LoopLensError:
        raise
    except (TypeError, ValueError, IndexError) as error:
        raise CorruptRunError(
            f"{location}: attention_prompts names prompts that are not there "
            f"({attributes['attention_prompts']}). {RESTORE}"
        ) from error
