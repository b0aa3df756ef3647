"""The arrays of an opened run: labelled reads of exactly the part that is asked for."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from looplens.errors import AnalysisError, InputError, near_matches
from looplens.store.format.reduction import Reduction
from looplens.store.reading.rows import RunTables
from looplens.store.reading.selection import (
    Selection,
    TokenSelection,
    checked_index,
    checked_tokens,
)


class RunArrays(RunTables):
    """The part of an opened run that is labelled reads of its arrays.

    Parameters
    ----------
    path : str or path
        The directory or URL of the run.
    """

    def state(self, restart: Selection = None, tokens: TokenSelection = None) -> xr.DataArray:
        """Read loop states.

        Parameters
        ----------
        restart : int or slice, optional
            Which restarts; all by default. An int drops the axis.
        tokens : int, slice or array of int, optional
            Global token numbers (or one bool a token); all by default. An int drops the axis.

        Returns
        -------
        DataArray
            (restart, token, iteration 0..T, d_model), in memory. The iterations are
            `kept_iterations` where not all are recorded, and the last axis is ``component`` where
            states were reduced.

        Raises
        ------
        InputError
            If a number is out of range.
        CorruptRunError
            If the part that is read is damaged, or not recorded yet.
        """
        return self._select("loop/state", restart=restart, token=tokens)

    def site(
        self,
        name: str = "resid_post",
        *,
        restart: Selection = None,
        tokens: TokenSelection = None,
        layer: Selection = None,
    ) -> xr.DataArray:
        """Read the activations of a site family.

        Parameters
        ----------
        name : str
            One of ``site_names``.
        restart, layer : int or slice, optional
            All by default. An int drops the axis. Layers go by their number in the core, whichever
            of them are recorded.
        tokens : int, slice or array of int, optional
            Global token numbers; all by default. An int drops the axis.

        Returns
        -------
        DataArray
            (restart, token, layer, iteration 1..T, d_model), in memory; head sites end in
            (..., head, d_head).

        Raises
        ------
        AnalysisError
            If that family was not recorded.
        InputError, CorruptRunError
            As for `state`.
        """
        if name not in self.site_names:
            recorded = ", ".join(self.site_names) or "none"
            raise AnalysisError(
                f"This run has no site {name!r}; recorded are: {recorded}. Record it with "
                f"sites=({name!r},).{near_matches(name, self.site_names)}"
            )
        return self._select(f"states/{name}", restart=restart, token=tokens, layer=layer)

    def discarded(
        self,
        name: str = "state",
        *,
        restart: Selection = None,
        tokens: TokenSelection = None,
        layer: Selection = None,
    ) -> xr.DataArray:
        """Read what share of the squared norm of each state its reduction left out.

        Parameters
        ----------
        name : str
            ``"state"``, or a residual site of ``site_names``.
        restart, tokens, layer : optional
            As for `site`.

        Returns
        -------
        DataArray
            (restart, token, iteration) for the state, (restart, token, layer, iteration) for a
            site: between 0 and 1, in memory.

        Raises
        ------
        AnalysisError
            If states were not reduced, or not those of that name.
        InputError, CorruptRunError
            As for `state`.
        """
        found = [key.rpartition("/")[2] for key in self._keys("discarded")]
        if name not in found:
            raise AnalysisError(
                f"This run says nothing of what was discarded of {name!r}; "
                + (f"it does of: {', '.join(found)}." if found else "its states are not reduced.")
            )
        chosen = {} if name == "state" else {"layer": layer}
        data = self._select(f"discarded/{name}", restart=restart, token=tokens, **chosen)
        return data.rename(state_iteration="iteration") if name == "state" else data

    @functools.cached_property
    def reduction(self) -> Reduction | None:
        """How states were reduced; None where they are stored in all of their dimensions."""
        if not self.is_reduced:
            return None
        described = self.attrs["reduction"]
        return Reduction(
            basis=self._array("reduction/basis").variable().values,
            mean=self._array("reduction/mean").variable().values,
            kind=described["kind"],
            seed=described["seed"],
            source=described["source"],
        )

    def injected(self, tokens: TokenSelection = None) -> xr.DataArray:
        """Read what the model injects at each iteration: (token, d_model), in memory.

        Raises
        ------
        AnalysisError
            If the model injects nothing.
        InputError, CorruptRunError
            As for `state`.
        """
        if not self.has_injected:
            raise AnalysisError(
                f"The model {self.model_name!r} injects nothing into its loop, so this run has no "
                "injected tensor."
            )
        return self._select("loop/injected", token=tokens)

    def attention(
        self,
        prompt: int,
        *,
        restart: Selection = None,
        layer: Selection = None,
        iteration: int | Sequence[int] | None = None,
    ) -> xr.DataArray:
        """Read the attention patterns of a prompt.

        Parameters
        ----------
        prompt : int
            One of ``attention_prompts``.
        restart, layer : int or slice, optional
            As for `site`.
        iteration : int or sequence of int, optional
            Some of ``kept_iterations``, by their numbers; all by default. An int drops the axis.

        Returns
        -------
        DataArray
            (restart, layer, iteration 1..T, head, query, key), in memory; always of all tokens of
            the prompt. Layers go by their number in the core.

        Raises
        ------
        AnalysisError
            If attention of that prompt was not recorded.
        InputError, CorruptRunError
            As for `state`.
        """
        if prompt not in self.attention_prompts:
            recorded = ", ".join(map(str, self.attention_prompts)) or "none"
            raise AnalysisError(
                f"This run has no attention of prompt {prompt}; prompts with attention: {recorded}."
            )
        first = min(int(self.prompts["first_token"].values[prompt]), self.n_tokens - 1)
        what = f"{self._location}: the attention of prompt {prompt}"
        self._recorded.require(what, np.array([first]))
        return self._select(
            f"attention/{prompt}/pattern", restart=restart, layer=layer, iteration=iteration
        )

    @functools.cached_property
    def readout(self) -> xr.Dataset:
        """What the model would say after each iteration; a lazy dataset.

        Raises
        ------
        AnalysisError
            If the run has no readout.
        """
        if not self.has_readout:
            raise AnalysisError(
                "This run has no readout, so predictions are unknown. Record with readout=True "
                "(--readout on the command line)."
            )
        return self._lazy("readout")

    def _select(self, key: str, **selections: TokenSelection) -> xr.DataArray:
        array = self._array(key)
        sizes = dict(zip(array.dims, array.shape, strict=True))
        check: dict[str, Any] = {
            "token": checked_tokens,
            "layer": self._checked_layers,
            "iteration": self._checked_iterations,
        }
        chosen: dict[str, Any] = {
            dim: check.get(dim, functools.partial(checked_index, what=dim))(selection, sizes[dim])
            for dim, selection in selections.items()
            if selection is not None
        }
        data = xr.DataArray(array.variable(), name=key.rsplit("/", 1)[1])
        layout = self._layout
        of_state = key == "loop/state"
        numbers = {
            "restart": np.arange(layout.restarts),
            "token": np.arange(layout.n_tokens),
            "layer": layout.recorded_layers,
            "iteration": layout.state_iterations if of_state else layout.recorded_iterations,
            "state_iteration": layout.state_iterations,
        }
        coordinates = {dim: (dim, np.asarray(n)) for dim, n in numbers.items() if dim in sizes}
        return data.assign_coords(coordinates).isel(chosen).load()

    def _checked_iterations(self, iterations: Any, size: int) -> int | np.ndarray:
        """Turn numbers of iterations into places on the axis of those that were kept."""
        kept = self._layout.recorded_iterations
        numbers = np.asarray(iterations)
        if numbers.dtype.kind not in "iu" or numbers.ndim > 1:
            raise InputError(
                f"iteration must be a whole number or several of them, got {iterations!r}."
            )
        missing = [number for number in numbers.ravel().tolist() if number not in kept]
        if missing:
            raise InputError(
                f"iteration {missing[0]} is not in this run, which holds {size} of iterations 1 to "
                f"{self.iterations}: {', '.join(map(str, kept[:12]))}{', …' * (size > 12)}."
            )
        places = np.searchsorted(kept, numbers)
        return int(places) if numbers.ndim == 0 else places

    def _checked_layers(self, layers: object, size: int) -> int | np.ndarray:
        """Turn numbers of layers into places on the layer axis."""
        chosen = checked_index(layers, self.n_layers, "layer")
        if isinstance(chosen, slice):
            wanted = range(*chosen.indices(self.n_layers))
            found = [self.layers_index(n) for n in wanted if n in self.recorded_layers]
            return np.array(found, dtype=np.intp)
        return self.layers_index(chosen)

    def _keys(self, group: str) -> list[str]:
        return [key for key in self._layout.variables() if key.rsplit("/", 1)[0] == group]

    def _lazy(self, group: str, coordinates_of: str | None = None) -> xr.Dataset:
        wanted = coordinates_of or group
        keys = self._keys(group)
        keys += [key for key in self._layout.coordinates() if key.rsplit("/", 1)[0] == wanted]
        return xr.Dataset({key.rsplit("/", 1)[1]: self._array(key).variable() for key in keys})
