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

import xarray as xr

from looplens.errors import CorruptRunError, InputError
from looplens.store.format.blocks import BLOCKS, record_key
from looplens.store.reading import results
from looplens.store.reading.remembered import RememberedResults
from looplens.store.reading.run_arrays import RunArrays


class StoredRun(RunArrays):
    """A recorded run, opened for reading.

    Parameters
    ----------
    path : str or path
        The directory of the run, or a URL that fsspec knows.
    lazy : bool
        Whether `analysis` leaves the numbers of a result on disk until they are indexed. For a
        viewer of a large run, which shows a few tokens at a time: index first, then compute.

    Raises
    ------
    NotARunError
        If the path holds no run.
    SchemaVersionError
        If a looplens with another schema wrote the run.
    CorruptRunError
        If an array is missing or is not of the declared shape.
    """

    def __init__(self, path: str | os.PathLike[str], *, lazy: bool = False) -> None:
        super().__init__(path)
        self.lazy = lazy
        self._hashes: tuple[Any, dict[int, str]] = (None, {})

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
        for group in ("states", "reduction", "discarded"):
            if self._keys(group):
                nodes[group] = self._lazy(group)
        if self.has_readout:
            nodes["readout"] = self.readout
        for prompt in self.attention_prompts:
            nodes[f"attention/{prompt}"] = self._lazy(f"attention/{prompt}", "attention")
        for name in self.analyses:
            nodes[f"analysis/{name}"] = self._results.open(name) or xr.Dataset()
        return xr.DataTree.from_dict(nodes)

    def blocks(self, bytes_per_block: int = 2**26) -> Iterator[slice]:
        """Yield slices that cover all tokens, recorded or not: whole blocks, or parts of one.

        Parameters
        ----------
        bytes_per_block : int
            How large the largest array may be when all of its restarts and layers are read for one
            slice. Several blocks of the recording make one slice where they fit; a block that does
            not fit is cut along chunks, and at least one chunk of tokens is yielded.
        """
        per_token = max(
            variable.nbytes // self.n_tokens
            for variable in self._layout.variables().values()
            if variable.token_axis is not None
        )
        fitting = max(self._array("loop/state").chunks[1], bytes_per_block // per_token)
        # Chunks and blocks are powers of two; a power of two within a block divides it.
        step = 1 << (fitting.bit_length() - 1)
        if fitting >= self.block_tokens:
            step = fitting // self.block_tokens * self.block_tokens
        for start in range(0, self.n_tokens, step):
            yield slice(start, min(start + step, self.n_tokens))

    # Analyses

    @property
    def analyses(self) -> list[str]:
        """Names of the stored analyses; those in a group as ``group/name``."""
        return self._results.names()

    def analyses_stamp(self) -> tuple[tuple[str, object], ...]:
        """Return what changes whenever a stored analysis is added, replaced or removed.

        For whoever remembers what was made from them; it costs a look at one file for each.
        """
        return self._results.stamp()

    def analysis(self, name: str) -> xr.Dataset | None:
        """Return a stored analysis; None when it was not stored.

        Its attributes say what made it: analysis, version, parameters (JSON), input_hash, created.
        It is in memory, unless the run was opened with ``lazy=True``: then everyone who asks gets
        the same object, which is not to be changed.

        Raises
        ------
        CorruptRunError
            If it is damaged; of a run that was opened with ``lazy=True``, damage of the numbers
            is raised when they are read.
        """
        found = self._results.open(name)
        return found if found is None or self.lazy else found.copy().load()

    @functools.cached_property
    def _results(self) -> RememberedResults:
        return RememberedResults(self._location)

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
            A Python identifier, or two with a slash between them: ``group/name``.
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
        """Return a fingerprint of the recording: its attributes and its tokens, not its numbers.

        It stays the same while more blocks are recorded; `block_hash` tells those apart.
        """
        return self._input_hash

    def block_hash(self, block: int) -> str:
        """Return a fingerprint of the numbers of one block, from its commit record.

        Raises
        ------
        CorruptRunError
            If the block is not recorded yet.
        """
        if not 0 <= block < self.n_blocks:
            raise InputError(f"There is no block {block}: this run has {self.n_blocks}, from 0 on.")
        try:
            content = self._location.read_bytes(record_key(block))
        except FileNotFoundError as error:
            raise CorruptRunError(
                f"{self._location}: block {block} is not recorded yet: {record_key(block)} does "
                "not exist. Go on with the recording (resume=True, --resume)."
            ) from error
        return hashlib.sha256(content).hexdigest()

    def block_hashes(self) -> dict[int, str]:
        """Return `block_hash` of every block of `committed`; an empty one without a record.

        The records are read again when one was written or removed since.
        """
        try:
            stamp = self._location.files.stamp(BLOCKS)
        except OSError:
            stamp = None
        if stamp is None or self._hashes[0] != stamp:
            found = {}
            for block in sorted(self.committed):
                try:
                    found[block] = self.block_hash(block)
                except CorruptRunError:  # it may still be readable
                    found[block] = ""
            self._hashes = stamp, found
        return dict(self._hashes[1])

    @functools.cached_property
    def _input_hash(self) -> str:
        growing = ("complete", "non_finite")
        attributes = {key: value for key, value in self.attrs.items() if key not in growing}
        digest = hashlib.sha256(json.dumps(attributes, sort_keys=True).encode())
        for name in ("prompt", "token_id", "target"):
            digest.update(self._array(f"tokens/{name}").variable().values.tobytes())
        return digest.hexdigest()

    def __repr__(self) -> str:
        rows = [*self._lines(), f"  analyses   {', '.join(self.analyses) or 'none'}"]
        return f"<{chr(10).join(rows)}>"


def open_stored(path: str | os.PathLike[str], *, lazy: bool = False) -> StoredRun:
    """Open a run for reading; see `StoredRun` for its parameters and what it raises."""
    return StoredRun(path, lazy=lazy)
