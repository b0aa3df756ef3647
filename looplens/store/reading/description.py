"""What a run says of itself: sizes, names and seeds, from the attributes of its root.

No array is opened here.
"""

from __future__ import annotations

import functools
import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from looplens.errors import InputError
from looplens.store.files.location import RunLocation
from looplens.store.format.blocks import committed_blocks, read_record
from looplens.store.reading.arrays import Recorded
from looplens.store.reading.checks import check_arrays, read_layout


class RunDescription:
    """The part of an opened run that is known without reading an array.

    Parameters
    ----------
    path : str or path
        The directory or URL of the run.

    Attributes
    ----------
    path : Path or str
        The directory of the run; its URL, as text, where it is not on this machine.
    name : str
        Last part of the path.
    attrs : dict
        All attributes of the root.
    complete : bool
        False when the recording has not come to its end; see `committed`.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._location = RunLocation(path)
        self.path: Path | str = self._location.path
        self.name: str = self._location.name
        self.attrs: dict[str, Any] = self._location.root_attributes()
        self._layout = read_layout(self._location, self.attrs)
        check_arrays(self._location, self._layout)
        self.complete: bool = self.attrs["complete"]
        blocks = frozenset(range(self.n_blocks))
        self._recorded = Recorded(
            committed=blocks if self.complete else blocks & committed_blocks(self._location),
            block_tokens=self._layout.block_tokens,
            n_tokens=self._layout.n_tokens,
        )

    @property
    def iterations(self) -> int:
        """T, how often the core ran."""
        return self._layout.iterations

    @property
    def n_layers(self) -> int:
        """k, layers of the core."""
        return self._layout.n_layers

    @property
    def d_model(self) -> int:
        """Width of the model's states."""
        return self._layout.d_model

    # What of the model's run is recorded

    @property
    def recorded_layers(self) -> tuple[int, ...]:
        """Numbers of the recorded layers of the core, ascending."""
        return self._layout.recorded_layers

    def layers_index(self, number: int) -> int:
        """Return where a layer lies on the layer axis, by its number in the core.

        Raises
        ------
        InputError
            If the core has no such layer, or it was not recorded. -1 is the last of the core.
        """
        if not -self.n_layers <= number < self.n_layers:
            raise InputError(
                f"There is no layer {number}: the core has {self.n_layers}, counted 0 to "
                f"{self.n_layers - 1}."
            )
        number %= self.n_layers
        if number not in self.recorded_layers:
            raise InputError(
                f"Layer {number} is not in this run, which has the layers "
                f"{', '.join(map(str, self.recorded_layers))}. Choose one of them, or record it."
            )
        return self.recorded_layers.index(number)

    @property
    def kept_iterations(self) -> tuple[int, ...]:
        """Numbers of the recorded iterations, of 1..T."""
        return self._layout.recorded_iterations

    @property
    def all_iterations(self) -> bool:
        """Whether every iteration is recorded; only then is iteration 0 of the state, too."""
        return self._layout.all_iterations

    @property
    def width(self) -> int:
        """Dimensions of the stored states: ``d_model``, or fewer where they were reduced."""
        return self._layout.width or self.d_model

    @property
    def is_reduced(self) -> bool:
        """Whether states were reduced to fewer dimensions; see `StoredRun.reduction`."""
        return self._layout.is_reduced

    @property
    def block_tokens(self) -> int:
        """Tokens of a block, the unit in which a run is recorded and committed."""
        return self._layout.block_tokens

    @property
    def n_blocks(self) -> int:
        """How many blocks the tokens make."""
        return self._layout.n_blocks

    @property
    def committed(self) -> frozenset[int]:
        """Numbers of the blocks that were on disk when the run was opened."""
        return self._recorded.committed

    @property
    def committed_tokens(self) -> np.ndarray:
        """Whether each token can be read: (token,), bool."""
        return self._recorded.tokens()

    @property
    def restarts(self) -> int:
        """How many initial states each prompt was run from."""
        return self._layout.restarts

    @property
    def restart_seeds(self) -> tuple[int | None, ...]:
        """The seed of each restart; None where nothing was drawn."""
        return tuple(self.attrs["restart_seeds"])

    @property
    def initial_state(self) -> str:
        """Name of the scheme that drew the initial states."""
        return self.attrs["initial_state"]

    @property
    def model(self) -> dict[str, Any]:
        """What is known of the model: name, source, family, config."""
        return self.attrs["model"]

    @property
    def model_name(self) -> str:
        """Name of the model."""
        return str(self.model.get("name", "unknown"))

    @property
    def n_tokens(self) -> int:
        """Recorded tokens of all prompts together."""
        return self._layout.n_tokens

    @property
    def n_prompts(self) -> int:
        """Number of prompts."""
        return self.attrs["n_prompts"]

    @property
    def site_names(self) -> tuple[str, ...]:
        """Recorded site families, such as ``("resid_post",)``."""
        return self._layout.sites

    @property
    def attention_prompts(self) -> tuple[int, ...]:
        """Prompts whose attention patterns are recorded."""
        return tuple(self._layout.attention_lengths)

    @property
    def has_readout(self) -> bool:
        """Whether predictions after each iteration are recorded."""
        return self._layout.readout_top_k > 0

    @property
    def has_exit_gate(self) -> bool:
        """Whether what the model's exit gate says after each iteration is recorded."""
        return self._layout.exit_gate and self.has_readout

    @property
    def has_injected(self) -> bool:
        """Whether the model injects a tensor at each iteration, which is then recorded."""
        return self._layout.inject

    @property
    def source_dtype(self) -> str:
        """The dtype the model computed in."""
        return self.attrs["source_dtype"]

    @property
    def store_dtype(self) -> str:
        """The dtype that states are stored in."""
        return self._layout.dtype

    @functools.cached_property
    def non_finite(self) -> dict[str, int]:
        """How many NaN or infinite numbers were recorded, of the arrays that have any."""
        if self.complete:
            return dict(self.attrs["non_finite"])
        counts: Counter[str] = Counter()
        for block in sorted(self.committed):
            counts.update(read_record(self._location, block).non_finite)
        return dict(counts)

    def _lines(self) -> list[str]:
        """Return the rows of the representation."""
        sizes = {
            "prompts": self.n_prompts,
            "tokens": self.n_tokens,
            "restarts": self.restarts,
            "iterations": self.iterations,
            "layers": self.n_layers,
            "d_model": self.d_model,
        }
        kept = []
        if len(self.recorded_layers) < self.n_layers:
            kept.append(f"layers {', '.join(map(str, self.recorded_layers))}")
        if not self.all_iterations:
            kept.append(f"{len(self.kept_iterations)} of {self.iterations} iterations")
        if not self.attrs.get("all_tokens", True):
            kept.append("some tokens of each prompt")
        if self.is_reduced:
            kept.append(f"{self.width} components of each state")
        lines = [
            f"{type(self).__name__} {str(self.path)!r}",
            f"  model      {self.model_name}",
            f"  sizes      {', '.join(f'{name} {size}' for name, size in sizes.items())}",
            f"  sites      {', '.join(self.site_names) or 'none'}",
            f"  attention  {len(self.attention_prompts)} of {self.n_prompts} prompts",
            f"  readout    {'yes' if self.has_readout else 'no'}",
        ]
        if not self.complete:
            blocks = f"{len(self.committed)} of {self.n_blocks} blocks"
            lines.insert(1, f"  INCOMPLETE {blocks} are recorded; go on with resume=True")
        if kept:
            lines.append(f"  kept only  {'; '.join(kept)}")
        if self.non_finite:
            counts = ", ".join(f"{key} {count}" for key, count in self.non_finite.items())
            lines.append(f"  NaN or infinite numbers: {counts}")
        return lines
