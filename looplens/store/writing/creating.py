"""The birth of a run: its groups, arrays and tables, before the first block of numbers."""

from __future__ import annotations

import datetime

import numpy as np

from looplens.errors import InputError
from looplens.store.files.location import RunLocation
from looplens.store.format.fingerprint import differences
from looplens.store.format.schema import SCHEMA_VERSION, looplens_version
from looplens.store.format.spec import RunSpec
from looplens.store.reading.checks import attributes_digest, read_layout
from looplens.store.writing.column import whole
from looplens.store.writing.tables import write_tables


def create_run(location: RunLocation, spec: RunSpec) -> bool:
    """Create a run without blocks, for which `RunLocation.prepare` made room.

    Returns
    -------
    bool
        False if another process was faster; then the location points at the run of that one.
    """
    variables = spec.layout.variables()
    attributes = {
        "schema_version": SCHEMA_VERSION,
        "looplens_version": looplens_version(),
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="microseconds"),
        "complete": False,
        "non_finite": {},
        **spec.attributes(),
        "fingerprint": spec.fingerprint(),
    }
    location.create_group("", {**attributes, "digest": attributes_digest(attributes)})
    groups = {"prompts", "tokens", "analysis"}
    groups |= {"vocabulary"} if spec.vocabulary else set()
    for key in variables:
        parents = key.split("/")[:-1]
        groups |= {"/".join(parents[: depth + 1]) for depth in range(len(parents))}
    for group in sorted(groups):
        location.create_group(group)
    write_tables(location, spec)
    for variable in variables.values():
        location.create_array(variable)
    if spec.reduction is not None:
        for name in ("basis", "mean"):
            variable = variables[f"reduction/{name}"]
            location.write(variable, whole(variable), np.asarray(getattr(spec.reduction, name)))
    location.consolidate()
    return location.publish()


def check_same(location: RunLocation, spec: RunSpec) -> None:
    """Check that a run that is there is the one that is being recorded.

    Raises
    ------
    InputError
        If it is another one; the message names every field that differs, with both values.
    SchemaVersionError, CorruptRunError
        If it was written by another version of looplens, or is damaged.
    """
    attributes = location.root_attributes()
    read_layout(location, attributes)
    found = differences(attributes.get("fingerprint") or {}, spec.fingerprint())
    if found:
        raise InputError(
            f"The run at {location} is of another recording, so it is not gone on with: "
            f"{'; '.join(found)}. Give what it was started with, or another path, or pass "
            "overwrite=True (--overwrite on the command line) to replace it."
        )


def is_finished(location: RunLocation, spec: RunSpec) -> bool:
    """Whether a complete run of this very recording is there already."""
    try:
        attributes = location.root_attributes()
    except Exception:  # whatever is there, it is not that
        return False
    return bool(attributes.get("complete")) and (
        attributes.get("fingerprint") == spec.fingerprint()
    )
