"""Streams a run to disk: blocks of tokens in, whole chunks out, with bounded memory.

The writer takes numpy arrays and knows nothing of models. It holds at most one chunk of tokens of
each array; a block that already covers whole chunks goes straight through.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Mapping
from types import TracebackType
from typing import Self

import numpy as np

from looplens.errors import CorruptRunError, InputError, StoreError, near_matches
from looplens.store.column import (
    TokenColumn,
    count_non_finite,
    put,
    shape_message,
    to_stored_dtype,
)
from looplens.store.location import RunLocation
from looplens.store.schema import SCHEMA_VERSION, VariableSpec, looplens_version
from looplens.store.spec import RunSpec
from looplens.store.tables import write_tables


class RunWriter:
    """Write one run, a block of tokens at a time.

    Used as a context manager: leaving it closes the run; leaving it on an exception leaves a run
    that opens but says that it is incomplete. Not for several threads at once.

    Parameters
    ----------
    path : str or path
        The directory to write; parents are created.
    spec : RunSpec
        What will be recorded.
    overwrite : bool
        Replace a run that is there, once this one is whole; until then it is written beside it, to
        ``<path>.partial``. Anything but a run is never removed.

    Raises
    ------
    RunExistsError
        If the path is taken.
    StoreError
        If the disk has no room for the run.

    Examples
    --------
    >>> with RunWriter(path, spec) as writer:  # doctest: +SKIP
    ...     writer.write(0, 8, {"loop/state": state})  # (restart, 8, iteration, d_model)
    """

    def __init__(
        self, path: str | os.PathLike[str], spec: RunSpec, *, overwrite: bool = False
    ) -> None:
        self.spec = spec
        self.location = RunLocation(path)
        self.path = self.location.path  # where the finished run lies
        variables = spec.layout.variables()
        self.location.prepare(overwrite=overwrite, needed_bytes=sum(spec.nbytes().values()))
        self._create_groups(variables)
        write_tables(self.location, spec)
        for variable in variables.values():
            self.location.create_array(variable)
        self._columns = {
            key: TokenColumn(self.location, variable)
            for key, variable in variables.items()
            if variable.token_axis is not None
        }
        self._patterns = {
            key: variable for key, variable in variables.items() if variable.token_axis is None
        }
        self._patterns_written: set[str] = set()
        self._pattern_non_finite: dict[str, int] = {}
        self._closed = False
        self.location.consolidate()

    @property
    def non_finite(self) -> dict[str, int]:
        """How many NaN or infinite numbers were written so far, of the arrays that have any."""
        counts = {key: column.non_finite for key, column in self._columns.items()}
        return {key: n for key, n in (counts | self._pattern_non_finite).items() if n}

    def write(self, start: int, stop: int, arrays: Mapping[str, np.ndarray]) -> None:
        """Write tokens ``start:stop`` of some arrays.

        Parameters
        ----------
        start, stop : int
            Global token numbers. The blocks of each array arrive in order, without gaps.
        arrays : mapping of str to array
            Path such as ``"loop/state"`` or ``"states/resid_post"`` to an array with all axes of
            that variable, the token axis being ``stop - start`` long.

        Raises
        ------
        InputError
            If an array is unknown, has another shape, or a block is out of order.
        StoreError
            If a number overflows float16, or the disk refuses.
        """
        self._check_open()
        for key in arrays:
            if key not in self._columns:
                known = ", ".join(self._columns)
                raise InputError(
                    f"This run has no array {key!r}; it was declared with {known}."
                    + near_matches(key, self._columns)
                )
        for key, array in arrays.items():
            self._columns[key].write(start, stop, np.asarray(array))

    def write_attention(self, prompt_index: int, pattern: np.ndarray) -> None:
        """Write the attention patterns of one prompt.

        Parameters
        ----------
        prompt_index : int
            One of the spec's ``attention_prompts``.
        pattern : array
            (restart, layer, iteration 1..T, head, query, key).

        Raises
        ------
        InputError
            If the prompt was not declared, was written before, or the shape is another.
        """
        self._check_open()
        key = f"attention/{prompt_index}/pattern"
        if key not in self._patterns:
            raise InputError(
                f"Attention of prompt {prompt_index} was not declared; attention_prompts is "
                f"{self.spec.attention_prompts}."
            )
        if key in self._patterns_written:
            raise InputError(f"Attention of prompt {prompt_index} was written already.")
        variable = self._patterns[key]
        pattern = np.asarray(pattern)
        if pattern.shape != variable.shape:
            raise InputError(shape_message(variable, variable.shape, pattern.shape))
        stored = to_stored_dtype(pattern, variable)
        self._pattern_non_finite[key] = count_non_finite(stored, variable)
        put(self.location, variable, stored)
        self._patterns_written.add(key)

    def close(self) -> None:
        """Finish the run: check that everything was written, then mark it complete.

        Raises
        ------
        CorruptRunError
            If tokens or attention patterns are missing. The run stays marked incomplete.
        """
        if self._closed:
            return
        self._closed = True
        n_tokens = self.spec.n_tokens
        short = [
            f"{key} has {column.position} of {n_tokens} tokens"
            for key, column in self._columns.items()
            if column.position < n_tokens
        ]
        short += [
            f"{key} is missing" for key in self._patterns if key not in self._patterns_written
        ]
        if short:
            raise CorruptRunError(
                f"{self.path}: the run was closed before everything was written: "
                f"{'; '.join(short)}. It is kept and marked incomplete."
            )
        self.location.update_root_attributes({"complete": True, "non_finite": self.non_finite})
        self.location.take_place()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()
        self._closed = True

    def _check_open(self) -> None:
        if self._closed:
            raise StoreError(f"{self.path}: this run is closed; nothing more can be written to it.")

    def _create_groups(self, variables: Mapping[str, VariableSpec]) -> None:
        created = datetime.datetime.now(datetime.UTC).isoformat(timespec="microseconds")
        attributes = {
            "schema_version": SCHEMA_VERSION,
            "looplens_version": looplens_version(),
            "created": created,
            "complete": False,
            "non_finite": {},
            **self.spec.attributes(),
        }
        self.location.create_group("", attributes)
        groups = {"prompts", "tokens", "analysis"}
        groups |= {"vocabulary"} if self.spec.vocabulary else set()
        for key in variables:
            parents = key.split("/")[:-1]
            groups |= {"/".join(parents[: depth + 1]) for depth in range(len(parents))}
        for group in sorted(groups):
            self.location.create_group(group)
