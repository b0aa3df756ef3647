"""What a labelled analysis is, and the few steps that several of them share.

Knows nothing of what is computed, nor of how blocks are read and spread over machines.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from looplens.analysis.regimes.thresholds import ROUNDING_STEP, rounding_step
from looplens.analysis.running.coverage import Coverage, covered_tokens
from looplens.analysis.running.engine import Block, Job, Wants, measure_run, nothing_read

if TYPE_CHECKING:
    from looplens.store import StoredRun

# What a summary may hold: a number, a word, or a small table from a number in words to a number.
Scalar = float | int | str | None
Summary = dict[str, Scalar | dict[str, Scalar]]

# Columns of the token table that the store writes itself; all others came with the prompts.
_OWN_COLUMNS = frozenset({"prompt", "position", "token_id", "text", "target"})
_MOST_LEVELS = 24


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """What a plan may look at: a run and the tokens of it that are known."""

    run: StoredRun
    coverage: Coverage


def _no_plan(source: Source) -> None:
    """Plan nothing: blocks share nothing."""


def _states(run: StoredRun, plan: Any) -> Wants:
    """Ask for loop states and their products along the iterations."""
    return Wants()


@dataclass(frozen=True, kw_only=True, slots=True)
class Analyzer:
    """One labelled analysis.

    An analysis of states is three functions: a plan from the parameters, the numbers of a block,
    and the Dataset from the numbers of all blocks. So that all analyses read a run together,
    `measure` never reads it itself. Analyses of other things have no `measure`, and their `build`
    reads what it needs.

    Attributes
    ----------
    name : str
        What it is called in the run, in ``ANALYZERS`` and on the command line.
    version : int
        Raised when the same run would give other numbers.
    title : str
        A few words for headings.
    needs : callable
        ``needs(run)``: None when the run holds what is needed, else what is missing and what to do.
    plan : callable
        ``plan(source, **parameters)``: checks the parameters and decides all that the blocks share.
    wants : callable
        ``wants(run, plan)``: what to read and multiply of each block.
    measure : callable or None
        ``measure(block, plan)``: arrays named like the variables of the Dataset.
    build : callable
        ``build(source, plan, arrays)``: the Dataset.
    summarize : callable
        ``summarize(dataset, run)``: a few numbers; the Dataset has the known tokens only.
    parameters : tuple of str
        Names of the parameters that `plan` takes.
    token_axis : int
        Which axis of the arrays of `measure` is the token.
    standard : bool
        Whether it is among the analyses that are computed when none is named. One that costs much
        more than reading the run is computed only by name, and read where it is stored.
    keep : callable
        ``keep(source, stored, **parameters)``: the plan of a stored result if new blocks can be
        added to it, else None.
    """

    name: str
    version: int
    title: str
    needs: Callable[[StoredRun], str | None]
    build: Callable[[Source, Any, dict[str, np.ndarray]], xr.Dataset]
    summarize: Callable[[xr.Dataset, StoredRun], Summary]
    plan: Callable[..., Any] = _no_plan
    wants: Callable[[StoredRun, Any], Wants] = _states
    measure: Callable[[Block, Any], dict[str, np.ndarray]] | None = None
    parameters: tuple[str, ...] = ()
    token_axis: int = 1
    standard: bool = True
    keep: Callable[..., Any] | None = None

    def expected(self, run: StoredRun) -> bool:
        """Whether a report or summary asks for it: always, or where it was asked for before."""
        return self.standard or self.name in run.analyses

    def summary(self, dataset: xr.Dataset, run: StoredRun) -> Summary:
        """Return a few numbers of a result: of the tokens that it is of, and of no others."""
        covered = covered_tokens(dataset, run)
        if "token" in dataset.dims and not covered.all():
            dataset = dataset.isel(token=covered)
        return self.summarize(dataset, run)

    def compute(self, run: StoredRun, **parameters: Any) -> xr.Dataset:
        """Compute this analysis alone, over all tokens that can be read; nothing is stored.

        Raises
        ------
        AnalysisError
            If no token can be read.
        """
        coverage = Coverage(run)
        source = Source(run=run, coverage=coverage)
        plan = self.plan(source, **parameters)
        arrays: dict[str, np.ndarray] = {}
        if self.measure is not None:
            job = Job(analyzer=self, plan=plan, todo=coverage.known, coverage=coverage)
            arrays = measure_run(run, [job]).get(self.name, {})
            if not arrays:
                raise nothing_read(run, coverage)
        return self.build(source, plan, arrays)


def needs_states(run: StoredRun) -> str | None:
    """Ask for at least one block of states."""
    if not run.committed:
        return "No block of the recording is finished yet. Go on with it (resume=True, --resume)."
    return None


def needs_iterations(run: StoredRun) -> str | None:
    """Ask for states of all iterations, one after the other."""
    if not run.all_iterations:
        return (
            f"It compares successive iterations, and this run keeps {len(run.kept_iterations)} of "
            f"{run.iterations}. Record with keep_iterations='all'."
        )
    return needs_states(run)


def rounding_dtype(run: StoredRun, asked: str | None = None) -> str:
    """Return the dtype whose rounding is no motion.

    The one asked for; else the coarser of the dtype that the model ran in and the one that was
    stored.

    Raises
    ------
    InputError
        If it is asked for a dtype without a known rounding step.
    """
    names = [str(run.source_dtype), str(run.attrs.get("store_dtype", "float32"))]
    dtype = asked or max((name for name in names if name in ROUNDING_STEP), key=rounding_step)
    rounding_step(dtype)
    return dtype


def has_layers(run: StoredRun) -> bool:
    """Whether the residual stream after core layers was recorded."""
    return "resid_post" in run.site_names


def labelled(
    dims: tuple[str, ...], values: Any, long_name: str, units: str = "1", **attributes: Any
) -> xr.Variable:
    """Make a variable that says what it is, in what unit, and against which threshold."""
    return xr.Variable(dims, values, {"long_name": long_name, "units": units, **attributes})


def coordinates(run: StoredRun, *dims: str, first_iteration: int = 1) -> dict[str, np.ndarray]:
    """Numbers of restarts, tokens, recorded layers and iterations (from `first_iteration`)."""
    iterations = [number for number in run.kept_iterations if number >= first_iteration]
    start = [0] if first_iteration == 0 and run.all_iterations else []
    known = {
        "restart": np.arange(run.restarts),
        "token": np.arange(run.n_tokens),
        "layer": np.array(run.recorded_layers),
        "iteration": np.array(start + iterations),
    }
    return {dim: known[dim] for dim in dims}


def token_columns(run: StoredRun) -> dict[str, np.ndarray]:
    """Numeric columns that came with the tokens and have few enough levels to group by."""
    found: dict[str, np.ndarray] = {}
    for name, column in run.tokens.data_vars.items():
        values = column.values
        if name in _OWN_COLUMNS or values.dtype.kind not in "fiu":
            continue
        numbers = values.astype(np.float64)
        levels = np.unique(numbers[np.isfinite(numbers)])
        if 0 < len(levels) <= _MOST_LEVELS:
            found[str(name)] = numbers
    return found


def level_name(level: float) -> str:
    """Write a level of a column: 3 for 3.0, 0.25 for 0.25."""
    return f"{level:g}"


def over_known(statistic: Callable[[np.ndarray], Any], values: np.ndarray) -> float:
    """Return a statistic, such as ``np.median``, of the finite values; NaN without any."""
    known = values[np.isfinite(values)]
    return float(statistic(known)) if known.size else float("nan")


def pairs_that_agree(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Share of pairs of restarts with equal values, of those pairs where both are known.

    Parameters
    ----------
    values, known : ndarray, shape (restart, ...)
        What is compared, and whether it means anything.

    Returns
    -------
    ndarray, shape (...)
        NaN where no pair is known.
    """
    equal, count = np.zeros(values.shape[1:]), np.zeros(values.shape[1:])
    for one, other in combinations(range(len(values)), 2):
        both = known[one] & known[other]
        equal += both & (values[one] == values[other])
        count += both
    return np.divide(equal, count, out=np.full(count.shape, np.nan), where=count > 0)


def finite_or_none(value: float) -> float | None:
    """Return a number, or None where it is infinite or not known."""
    return float(value) if np.isfinite(value) else None


def readouts(
    source: Source, names: tuple[str, ...], **place: int
) -> Iterator[tuple[slice, dict[str, np.ndarray]]]:
    """Yield variables of the readout, some tokens at a time, as far as they can be read.

    Parameters
    ----------
    source : Source
        The run, and what is known of it; blocks that cannot be read are counted there.
    names : tuple of str
        Which variables.
    **place : int
        Where on an axis that some of them have, such as ``rank=0``.
    """
    run, coverage = source.run, source.coverage

    def read(tokens: slice) -> dict[str, np.ndarray]:
        part = run.readout[list(names)].isel({"token": tokens, **place}, missing_dims="ignore")
        return {name: part[name].values for name in names}

    pieces = [piece for tokens in run.blocks() for piece in coverage.pieces(tokens)]
    yield from coverage.readable(pieces, read)
