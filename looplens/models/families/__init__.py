"""Families of published checkpoints, one declarative file each.

A new family is one file that makes a :class:`Family`, and one entry in :data:`FAMILIES`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from looplens.errors import InputError
from looplens.models.families import decoder, frey, huginn, ouro, parcae, raven
from looplens.models.families.base import Family, LeftOut, Shapes, Weight

__all__ = ["FAMILIES", "Family", "LeftOut", "Weight", "find_family", "supported"]

FAMILIES: tuple[Family, ...] = (
    huginn.FAMILY,
    raven.LLAMA,
    raven.OLMO2,
    ouro.FAMILY,
    parcae.FAMILY,
    decoder.FAMILY,
)


def find_family(config: Mapping[str, Any], shapes: Shapes) -> Family:
    """Return the family that a checkpoint belongs to.

    Parameters
    ----------
    config : mapping
        Content of ``config.json``.
    shapes : mapping of str to tuple of int
        Shapes of the stored tensors; names alone tell apart families that share a class.

    Raises
    ------
    InputError
        If no family recognises it.
    """
    for family in FAMILIES:
        if family.detect(config, shapes):
            return family
    seen = config.get("model_type") or config.get("architectures") or config.get("_class_name")
    raise InputError(
        f"model_type {seen!r} is not supported: expected a looplens checkpoint or one of "
        f"{', '.join(family.title for family in FAMILIES)}. Other models can be looked at "
        "through looplens.wrap"
    )


def supported() -> list[dict[str, str]]:
    """Return one row a family: what it is, how it loops, how to load it, what is refused.

    Returns
    -------
    list of dict
        With the keys ``name``, ``title``, ``published``, those of :class:`Facts`, and
        ``left_out``: stored tensors that are deliberately not loaded, with the reason.
    """
    rows = [
        {
            "name": family.name,
            "title": family.title,
            "published": ", ".join(family.published),
            **dataclasses.asdict(family.facts),
            "left_out": "; ".join(f"{entry.pattern}: {entry.reason}" for entry in family.left_out),
        }
        for family in FAMILIES
    ]
    reconstructed = {
        "name": frey.NAME,
        "title": frey.TITLE,
        "published": "none",
        **dataclasses.asdict(frey.FACTS),
        "left_out": "",
    }
    return [*rows, reconstructed]
