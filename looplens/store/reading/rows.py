"""The tables of an opened run: its prompts, its tokens, and the way from one to the other."""

from __future__ import annotations

import functools
import os

import numpy as np
import xarray as xr

from looplens.store.reading.arrays import StoredArray
from looplens.store.reading.description import RunDescription
from looplens.store.reading.selection import checked_index


class RunTables(RunDescription):
    """The part of an opened run that is two small tables, read when first asked for.

    Parameters
    ----------
    path : str or path
        The directory or URL of the run.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__(path)
        self._arrays: dict[str, StoredArray] = {}

    @functools.cached_property
    def prompts(self) -> xr.Dataset:
        """The table of prompts, in memory."""
        return self._table("prompts")

    @functools.cached_property
    def tokens(self) -> xr.Dataset:
        """The table of tokens, in memory."""
        return self._table("tokens")

    @functools.cached_property
    def vocabulary(self) -> dict[int, str]:
        """Texts by token id: those of the prompts, and those that were recorded beside them."""
        ids, texts = self.tokens["token_id"].values, self.tokens["text"].values
        unique, first = np.unique(ids, return_index=True)
        known = {int(i): str(texts[k]) for i, k in zip(unique, first, strict=True)}
        if self._location.read_metadata("vocabulary") is not None:
            table = self._table("vocabulary")
            pairs = zip(table["token_id"].values, table["text"].values, strict=True)
            known |= {int(i): str(text) for i, text in pairs}
        return known

    def token_range(self, prompt: int) -> slice:
        """Return the global token numbers of a prompt, as a slice.

        Raises
        ------
        InputError
            If there is no such prompt.
        """
        checked_index(prompt, self.n_prompts, "prompt")
        first = int(self.prompts["first_token"].values[prompt])
        return slice(first, first + int(self.prompts["n_tokens"].values[prompt]))

    def find_tokens(self, text: str, *, whole: bool = True) -> np.ndarray:
        """Return the global numbers of the tokens with a text.

        Parameters
        ----------
        text : str
            What to look for; spaces around it, and around tokens, do not count.
        whole : bool
            Whether the whole token must be equal; otherwise it must contain the text.

        Returns
        -------
        array of int
            Ascending; empty when there is none.
        """
        texts = self.tokens["text"].values.astype(np.dtypes.StringDType())
        wanted = text.strip()
        if whole:
            return np.flatnonzero(np.strings.strip(texts) == wanted)
        return np.flatnonzero(np.strings.find(texts, wanted) >= 0)

    def _table(self, group: str) -> xr.Dataset:
        columns = {
            name: self._array(f"{group}/{name}").variable().load()
            for name in self._location.children(group)
        }
        # By numpy: xarray's own astype imports dask, for which an app's first page would wait.
        texts = {
            name: xr.Variable(column.dims, column.values.astype(object), column.attrs)
            for name, column in columns.items()
            if column.dtype.kind == "T"
        }
        return xr.Dataset(columns | texts)

    def _array(self, key: str) -> StoredArray:
        if key not in self._arrays:
            # Tables are whole from the start, whatever is recorded.
            table = key.partition("/")[0] in ("prompts", "tokens", "vocabulary")
            recorded = None if table else self._recorded
            self._arrays[key] = StoredArray(self._location, key, recorded=recorded)
        return self._arrays[key]
