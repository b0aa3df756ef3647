"""What a family file declares: how to recognise its checkpoints, and what their names mean.

A family turns config keys into a :class:`LoopedConfig` and names stored tensors; it reads no files
and builds no model.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from looplens.errors import InputError
from looplens.models.config import LoopedConfig

Shapes: TypeAlias = Mapping[str, tuple[int, ...]]
Loop: TypeAlias = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Weight:
    """One stored tensor and the parameters that its rows fill, in order.

    Parameters
    ----------
    stored : str
        Name in the file.
    targets : tuple of str
        Parameters of :class:`LoopedTransformer`; more than one where a family fuses matrices.
    shape : tuple of int, optional
        Shape in the file, where it is not the parameters' rows on top of each other.
    """

    stored: str
    targets: tuple[str, ...]
    shape: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Stored tensors that are deliberately not loaded.

    Parameters
    ----------
    pattern : str
        Names, with ``*`` as a wildcard.
    reason : str
        Why nothing is lost.
    """

    pattern: str
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """What a reader wants to know of a family, one row of ``docs/models.md``.

    Parameters
    ----------
    initial_state, injection, boundary_norm, readout, default_depth, exit_rule : str
        How the loop starts, is fed, is normalised between passes, is read, how deep it runs, and
        how the published model leaves it.
    load : str
        How to load the published checkpoint.
    not_supported : str
        What is refused.
    """

    initial_state: str
    injection: str
    boundary_norm: str
    readout: str
    default_depth: str
    exit_rule: str
    load: str
    not_supported: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Family:
    """A family of published checkpoints.

    Parameters
    ----------
    name : str
        Its name in runs and reports.
    title : str
        Its name in prose.
    published : tuple of str
        Published checkpoints.
    facts : Facts
        One row of the table of families.
    detect : callable
        Takes the content of ``config.json`` and the shapes of the stored tensors, and tells
        whether they are of this family.
    config : callable
        Takes the same and the layers to loop (``None`` unless the caller chose), and returns the
        :class:`LoopedConfig`.
    weights : callable
        Takes that configuration and the shapes, and returns the stored tensors.
    left_out : tuple of LeftOut
        Stored tensors that are deliberately not loaded.
    torch_files : bool
        Whether published as torch files.
    rotary_table : str
        Name of a stored rotary table that is used instead of the configuration's, if it is there.
    """

    name: str
    title: str
    published: tuple[str, ...]
    facts: Facts
    detect: Callable[[Mapping[str, Any], Shapes], bool]
    config: Callable[[Mapping[str, Any], Shapes, Loop | None], LoopedConfig]
    weights: Callable[[LoopedConfig, Shapes], list[Weight]]
    left_out: tuple[LeftOut, ...] = ()
    torch_files: bool = False
    rotary_table: str = ""

    def is_left_out(self, stored: str, *, tied: bool) -> bool:
        """Whether a stored tensor is deliberately not loaded, in a model with a ``tied`` head."""
        if stored == "lm_head.weight" and tied:
            return True  # a copy of the embedding, which a tied head is
        return any(fnmatch.fnmatchcase(stored, entry.pattern) for entry in self.left_out)


def names_model(config: Mapping[str, Any], model_types: set[str], architectures: set[str]) -> bool:
    """Whether a configuration says it is one of these."""
    if config.get("model_type") is not None:
        return config["model_type"] in model_types
    return bool(architectures.intersection(config.get("architectures") or ()))


def no_loop(family: str, loop: Loop | None) -> None:
    """Refuse a choice of layers where the checkpoint says itself what it loops.

    Raises
    ------
    InputError
        If ``loop`` is given.
    """
    if loop is not None:
        raise InputError(
            f"loop={loop!r} chooses the layers of an ordinary decoder, but this is a {family} "
            "checkpoint, which says itself what it loops: leave loop out"
        )


def block_weights(cfg: LoopedConfig, prefixes: Mapping[str, str]) -> list[tuple[str, str, int]]:
    """Return (stored prefix, our prefix, number counted through the model) of every layer.

    Parameters
    ----------
    cfg : LoopedConfig
        Tells how many layers there are.
    prefixes : mapping of str to str
        ``prelude``, ``core`` and ``coda`` to the stored name of that list.
    """
    sizes = {"prelude": cfg.n_prelude, "core": cfg.n_core, "coda": cfg.n_coda}
    layers = [(part, i) for part, size in sizes.items() for i in range(size)]
    return [
        (f"{prefixes[part]}.{i}", f"{part}.{i}", number) for number, (part, i) in enumerate(layers)
    ]
