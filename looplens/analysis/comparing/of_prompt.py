"""One prompt in two runs, token by token: what either run says of it, how far apart its states are.

Only this prompt is read, so it costs the same in runs of any size.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from looplens.analysis.comparing.aligning import text_and_length
from looplens.analysis.per_token.catalogue import token_statistics
from looplens.analysis.per_token.values import token_values
from looplens.errors import AnalysisError, InputError

if TYPE_CHECKING:
    from looplens.store import StoredRun

_LONGEST_QUOTE = 60


def shared_tokens(
    run_a: StoredRun, run_b: StoredRun, prompt: int
) -> tuple[NDArray[np.int_], NDArray[np.int_]]:
    """Return the tokens of a prompt that both runs hold.

    The prompt is the one of the same text and length; of several, the one of the same number, or
    else the one that comes as late among them.

    Parameters
    ----------
    run_a, run_b : StoredRun
        The runs.
    prompt : int
        Its number in `run_a`.

    Returns
    -------
    tokens_a, tokens_b : ndarray of int, shape (pair,)
        Global token numbers of the same token in either run.

    Raises
    ------
    InputError
        If `run_a` has no such prompt, or `run_b` does not hold it.
    """
    if not 0 <= prompt < run_a.n_prompts:
        raise InputError(f"prompt must lie between 0 and {run_a.n_prompts - 1}, got {prompt}.")
    same = _same_prompts(run_b, *text_and_length(run_a, prompt))
    if not same.size:
        text = str(run_a.prompts["text"].values[prompt])
        text = text if len(text) <= _LONGEST_QUOTE else f"{text[: _LONGEST_QUOTE - 1]}…"
        raise InputError(
            f"Prompt {prompt} of {run_a.name}, {text!r}, is not in {run_b.name}. Choose another "
            "prompt, or record that one with both."
        )
    if prompt in same:
        other = prompt
    else:
        before = int(np.sum(_same_prompts(run_a, *text_and_length(run_a, prompt)) < prompt))
        other = int(same[min(before, same.size - 1)])
    one, two = _rows(run_a, prompt), _rows(run_b, other)
    first_a, first_b = run_a.token_range(prompt).start, run_b.token_range(other).start
    pairs = [
        (first_a + place, first_b + two[position][0])
        for position, (place, *token) in one.items()
        if position in two and list(two[position][1:]) == token
    ]
    if not pairs:
        raise InputError(
            f"Prompt {prompt} of {run_a.name} is in {run_b.name} too, but none of its tokens: they "
            "have other ids there, or others of them were kept."
        )
    both = np.array(pairs, dtype=np.int64)
    return both[:, 0], both[:, 1]


def compare_prompt(
    run_a: StoredRun,
    run_b: StoredRun,
    prompt: int,
    names: str | Iterable[str] = ("settling_iteration", "regime"),
    *,
    restart: int = 0,
    layer: int | None = None,
) -> xr.Dataset:
    """Return what two runs know of the same tokens of a prompt.

    Parameters
    ----------
    run_a, run_b : StoredRun
        The runs.
    prompt : int
        Its number in `run_a`.
    names : str or iterable of str
        Which of `token_statistics`; both runs have to know them.
    restart : int
        Which restart; of a run that has fewer, the last one.
    layer : int, optional
        After which core layer, for what layers have of their own; the loop state by default.

    Returns
    -------
    Dataset
        A variable (run, token) for each name, ``run`` being ``a`` and ``b``; coordinates ``token``
        (numbers in `run_a`) and ``other_token`` (in `run_b`). Attribute ``restarts``: which of
        either run.

    Raises
    ------
    InputError
        If the prompt is not in both runs, or a run knows nothing of that name.
    AnalysisError
        If a run does not hold the data for it.
    """
    tokens = shared_tokens(run_a, run_b, prompt)
    listed = [names] if isinstance(names, str) else list(names)
    restarts = tuple(min(restart, run.restarts - 1) for run in (run_a, run_b))
    found = []
    for run, those, its in zip((run_a, run_b), tokens, restarts, strict=True):
        known = token_statistics(run)
        missing = [name for name in listed if name not in known]
        if missing:
            raise InputError(
                f"{run.name} knows no {missing[0]!r} of its tokens; it knows: "
                f"{', '.join(name for name in known if '.' not in name)}."
            )
        values = token_values(run, listed, those, restart=its, layer=layer)
        found.append(values.drop_vars("token"))
    both = xr.concat(found, dim="run", combine_attrs="override")
    both = both.assign_coords(run=["a", "b"], token=tokens[0], other_token=("token", tokens[1]))
    for name in listed:
        both[name].attrs.update(found[0][name].attrs)
    return both.assign_attrs(restarts=restarts)


def state_distance(
    run_a: StoredRun,
    run_b: StoredRun,
    prompt: int,
    *,
    tokens: slice | None = None,
    restart: int = 0,
    layer: int | None = None,
) -> xr.Dataset:
    r"""Return how far apart the states of the same tokens are in two runs.

    .. math:: \frac{|x^B_t - x^A_t|}{\sqrt{(|x^A_t|^2 + |x^B_t|^2) / 2}}

    lies between 0 and 2: 0 for the same states, :math:`\sqrt 2` for orthogonal ones of one norm.
    It says something where both runs are of one model: the axes of another mean something else.

    Parameters
    ----------
    run_a, run_b : StoredRun
        The runs.
    prompt : int
        Its number in `run_a`.
    tokens : slice, optional
        Only these of the shared tokens of the prompt.
    restart : int
        Which restart; of a run that has fewer, the last one.
    layer : int, optional
        States after this core layer; the loop state by default.

    Returns
    -------
    Dataset
        ``distance`` (token, iteration) at the iterations that both runs have, NaN where a state is
        missing; coordinates as in `compare_prompt`.

    Raises
    ------
    InputError
        If the prompt, or an iteration, is not in both runs.
    AnalysisError
        If the states have different sizes, or are not stored in the same dimensions.
    """
    if run_a.d_model != run_b.d_model:
        raise AnalysisError(
            f"The states of {run_a.name} have {run_a.d_model} dimensions, those of {run_b.name} "
            f"{run_b.d_model}: there is no distance between them. Compare runs of one model."
        )
    _check_reduction(run_a, run_b)
    of_a, of_b = shared_tokens(run_a, run_b, prompt)
    if tokens is not None:
        of_a, of_b = of_a[tokens], of_b[tokens]
    restarts = tuple(min(restart, run.restarts - 1) for run in (run_a, run_b))
    a, b = (
        run.state(its, those) if layer is None else run.site(restart=its, tokens=those, layer=layer)
        for run, those, its in ((run_a, of_a, restarts[0]), (run_b, of_b, restarts[1]))
    )
    shared = np.intersect1d(a["iteration"].values, b["iteration"].values)
    if not shared.size:
        raise InputError(f"{run_a.name} and {run_b.name} kept no iteration that is in both.")
    one, two = (found.sel(iteration=shared).values for found in (a, b))
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        # Stored numbers are differenced as they are; only their squares need more digits.
        apart = two.astype(np.float32, copy=False) - one.astype(np.float32, copy=False)
        size = np.sqrt((_squares(one) + _squares(two)) / 2)
        distance = np.where(size > 0, np.sqrt(_squares(apart)) / size, np.nan)
    about = {"long_name": "distance between the states of the runs, over their size", "units": "1"}
    return xr.Dataset(
        {"distance": (("token", "iteration"), distance, about)},
        coords={"token": of_a, "other_token": ("token", of_b), "iteration": shared},
        attrs={"restarts": restarts},
    )


def _check_reduction(run_a: StoredRun, run_b: StoredRun) -> None:
    one, other = run_a.reduction, run_b.reduction
    if one is None and other is None:
        return
    if one is None or other is None or not np.array_equal(one.basis, other.basis):
        raise AnalysisError(
            "The states of these runs are stored in different dimensions (reduce=), so there is no "
            "distance between them. Record both with the same basis, or without reduce=."
        )


def _squares(values: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return squared norms along the last axis."""
    return np.einsum("...i,...i->...", values, values, dtype=np.float64)


def _same_prompts(run: StoredRun, text: str, length: int) -> NDArray[np.int_]:
    table = run.prompts
    same = np.asarray(table["text"].values == text) & (table["length"].values == length)
    return np.flatnonzero(same)


def _rows(run: StoredRun, prompt: int) -> dict[int, tuple[int, int, str]]:
    """Return place, id and text of the kept tokens of a prompt, by position."""
    inside = run.token_range(prompt)
    columns = (
        run.tokens[name].values[inside].tolist() for name in ("position", "token_id", "text")
    )
    return {
        position: (place, token, text)
        for place, (position, token, text) in enumerate(zip(*columns, strict=True))
    }
