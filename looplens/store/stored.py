"""An opened run: what is in it, and labelled reads of exactly the part that is asked for.

Opening reads metadata only, and checks it against the schema. It computes nothing; analyses and
figures are layers above.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import xarray as xr

from looplens.errors import AnalysisError, near_matches
from looplens.store import results
from looplens.store.rows import RunTables
from looplens.store.selection import Selection, TokenSelection, checked_index, checked_tokens


class StoredRun(RunTables):
    """A recorded run on disk, opened for reading.

    Parameters
    ----------
    path : str or path
        The directory of the run.

    Raises
    ------
    NotARunError
        If the path holds no run.
    SchemaVersionError
        If a newer looplens wrote the run.
    CorruptRunError
        If an array is missing or is not of the declared shape.
    """

    # Arrays

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
            (restart, token, iteration 0..T, d_model), in memory.

        Raises
        ------
        InputError
            If a number is out of range.
        CorruptRunError
            If the part that is read is damaged, or was never written.
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
            All by default. An int drops the axis.
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
        self, prompt: int, *, restart: Selection = None, layer: Selection = None
    ) -> xr.DataArray:
        """Read the attention patterns of a prompt.

        Returns
        -------
        DataArray
            (restart, layer, iteration 1..T, head, query, key), in memory.

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
        return self._select(f"attention/{prompt}/pattern", restart=restart, layer=layer)

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

    @property
    def tree(self) -> xr.DataTree:
        """All of the run as one lazy tree, with stored analyses."""
        nodes: dict[str, xr.Dataset] = {
            "/": xr.Dataset(attrs=self.attrs),
            "prompts": self.prompts,
            "tokens": self.tokens,
            "loop": self._lazy("loop"),
        }
        if self._location.read_metadata("vocabulary") is not None:
            nodes["vocabulary"] = self._table("vocabulary")
        if self.site_names:
            nodes["states"] = self._lazy("states")
        if self.has_readout:
            nodes["readout"] = self.readout
        for prompt in self.attention_prompts:
            nodes[f"attention/{prompt}"] = self._lazy(f"attention/{prompt}", "attention")
        for name in self.analyses:
            nodes[f"analysis/{name}"] = results.open_result(self._location, name)
        return xr.DataTree.from_dict(nodes)

    def blocks(self, bytes_per_block: int = 2**26) -> Iterator[slice]:
        """Yield slices that cover all tokens, aligned to chunks.

        Parameters
        ----------
        bytes_per_block : int
            How large the largest array may be when all of its restarts and layers are read for one
            slice. At least one chunk of tokens is yielded.
        """
        per_token = max(
            variable.nbytes // self.n_tokens
            for variable in self._layout.variables().values()
            if variable.token_axis is not None
        )
        chunk = self._array("loop/state").chunks[1]
        step = max(1, bytes_per_block // (per_token * chunk)) * chunk
        for start in range(0, self.n_tokens, step):
            yield slice(start, min(start + step, self.n_tokens))

    # Analyses

    @property
    def analyses(self) -> list[str]:
        """Names of the stored analyses."""
        return results.stored_names(self._location)

    def analysis(self, name: str) -> xr.Dataset | None:
        """Return a stored analysis, in memory; None when it was not stored.

        Its attributes say what made it: analysis, version, parameters (JSON), input_hash, created.

        Raises
        ------
        CorruptRunError
            If it is damaged.
        """
        return results.read_result(self._location, name)

    def write_analysis(
        self,
        name: str,
        dataset: xr.Dataset,
        *,
        version: str | int,
        parameters: Mapping[str, Any] | None = None,
    ) -> None:
        """Store an analysis in the run, in place of one of the same name.

        Parameters
        ----------
        name : str
            A Python identifier.
        dataset : Dataset
            The result.
        version : str or int
            Version of the analysis.
        parameters : mapping, optional
            What it was computed with; only values that JSON can hold.

        Raises
        ------
        InputError
            If the name or the parameters cannot be used.
        StoreError
            If the run cannot be written to.
        """
        results.write_result(
            self._location,
            name,
            dataset,
            version=version,
            parameters=parameters or {},
            input_hash=self.input_hash(),
        )

    def input_hash(self) -> str:
        """Return a fingerprint of the recording: its attributes and its tokens, not its numbers."""
        return self._input_hash

    @functools.cached_property
    def _input_hash(self) -> str:
        digest = hashlib.sha256(json.dumps(self.attrs, sort_keys=True).encode())
        for name in ("prompt", "token_id", "target"):
            digest.update(self._array(f"tokens/{name}").variable().values.tobytes())
        return digest.hexdigest()

    # Reading

    def _select(self, key: str, **selections: TokenSelection) -> xr.DataArray:
        array = self._array(key)
        sizes = dict(zip(array.dims, array.shape, strict=True))
        check = {"token": checked_tokens}
        chosen: dict[str, Any] = {
            dim: check.get(dim, functools.partial(checked_index, what=dim))(selection, sizes[dim])
            for dim, selection in selections.items()
            if selection is not None
        }
        data = xr.DataArray(array.variable(), name=key.rsplit("/", 1)[1])
        start = {"iteration": 0 if key == "loop/state" else 1}
        numbers = {
            dim: (dim, np.arange(sizes[dim]) + start.get(dim, 0))
            for dim in ("restart", "token", "layer", "iteration")
            if dim in sizes
        }
        return data.assign_coords(numbers).isel(chosen).load()

    def _lazy(self, group: str, coordinates_of: str | None = None) -> xr.Dataset:
        layout = self._layout
        keys = [key for key in layout.variables() if key.rsplit("/", 1)[0] == group]
        wanted = coordinates_of or group
        keys += [key for key in layout.coordinates() if key.rsplit("/", 1)[0] == wanted]
        return xr.Dataset({key.rsplit("/", 1)[1]: self._array(key).variable() for key in keys})

    def __repr__(self) -> str:
        rows = [*self._lines(), f"  analyses   {', '.join(self.analyses) or 'none'}"]
        return f"<{chr(10).join(rows)}>"


def open_stored(path: str | os.PathLike[str]) -> StoredRun:
    """Open a run for reading; see `StoredRun` for what it raises."""
    return StoredRun(path)
