"""What a run says of itself: sizes, names and seeds, from the attributes of its root.

No array is opened here.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from looplens.store.checks import check_arrays, read_layout
from looplens.store.location import RunLocation


class RunDescription:
    """The part of an opened run that is known without reading an array.

    Parameters
    ----------
    path : str or path
        The directory of the run.

    Attributes
    ----------
    path : Path
        The directory of the run.
    attrs : dict
        All attributes of the root.
    complete : bool
        False when the recording stopped early; tokens that were not reached cannot be read.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._location = RunLocation(path)
        self.path: Path = self._location.path
        self.attrs: dict[str, Any] = self._location.root_attributes()
        self._layout = read_layout(self._location, self.attrs)
        check_arrays(self._location, self._layout)
        self.complete: bool = self.attrs["complete"]

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
        """Width of the states."""
        return self._layout.d_model

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
        """Tokens of all prompts together."""
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

    @property
    def non_finite(self) -> dict[str, int]:
        """How many NaN or infinite numbers were recorded, of the arrays that have any."""
        return dict(self.attrs["non_finite"])

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
        lines = [
            f"{type(self).__name__} {str(self.path)!r}",
            f"  model      {self.model_name}",
            f"  sizes      {', '.join(f'{name} {size}' for name, size in sizes.items())}",
            f"  sites      {', '.join(self.site_names) or 'none'}",
            f"  attention  {len(self.attention_prompts)} of {self.n_prompts} prompts",
            f"  readout    {'yes' if self.has_readout else 'no'}",
        ]
        if not self.complete:
            lines.insert(1, "  INCOMPLETE the recording stopped early")
        if self.non_finite:
            counts = ", ".join(f"{key} {count}" for key, count in self.non_finite.items())
            lines.append(f"  NaN or infinite numbers: {counts}")
        return lines
