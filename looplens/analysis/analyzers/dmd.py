"""Eigenvalues of the linear map that describes the end of each trajectory best."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from looplens.analysis.algebra.inputs import whole_number
from looplens.analysis.analyzers._analyzer import (
    Analyzer,
    Source,
    Summary,
    coordinates,
    labelled,
    needs_iterations,
    over_known,
    rounding_dtype,
)
from looplens.analysis.measures.dmd import SHORTEST, check_rank, dmd
from looplens.analysis.regimes.thresholds import rounding_step
from looplens.analysis.running.engine import Block, Wants

if TYPE_CHECKING:
    from looplens.store import StoredRun

_LASTING = 0.99  # modulus of a mode that shrinks by less than 1 % an iteration


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """The rank to fit with, how many modes to keep, and the dtype that rounds."""

    rank: int | float | None
    modes: int
    dtype: str


def needs(run: StoredRun) -> str | None:
    """Ask for enough iterations for a linear map."""
    if run.iterations < SHORTEST + 1:
        return (
            f"A linear map needs at least {SHORTEST + 1} iterations, and this run has "
            f"{run.iterations}. Record more iterations."
        )
    return needs_iterations(run)


def plan(
    source: Source,
    *,
    dmd_rank: int | float | None = None,
    n_modes: int = 6,
    source_dtype: str | None = None,
) -> Plan:
    """Check the rank, the number of modes and the dtype."""
    check_rank(dmd_rank)
    whole_number(n_modes, "n_modes", least=1)
    dtype = rounding_dtype(source.run, source_dtype)
    return Plan(rank=dmd_rank, modes=n_modes, dtype=dtype)


def wants(run: StoredRun, plan: Plan) -> Wants:
    """Ask for loop states."""
    return Wants()


def measure(block: Block, plan: Plan) -> dict[str, np.ndarray]:
    """Fit every trajectory; of each conjugate pair one is kept."""
    assert block.states is not None
    found = dmd(block.states, rank=plan.rank, rounding=rounding_step(plan.dtype))
    upper = np.where(found.eigenvalues.imag >= 0, found.amplitude, np.nan)
    # NaN sorts last; a stable sort keeps the order of the modes.
    order = np.argsort(-upper, axis=-1, kind="stable")[..., : plan.modes]
    values = np.take_along_axis(found.eigenvalues, order, -1)
    size = np.take_along_axis(upper, order, -1)
    values = np.where(np.isfinite(size), values, np.nan)
    norm = np.linalg.norm(block.states[:, :, -1].astype(np.float64), axis=-1)
    norm = np.where(norm > 0, norm, np.nan)  # a state of zero has no scale
    pairs = np.where(values.imag > 0, 2.0, 1.0)  # both of a pair together make a real motion
    modes = {
        "modulus": np.abs(values),
        "frequency": np.abs(np.angle(values)) / (2 * np.pi),
        "amplitude": size * pairs / norm[..., None],
    }
    short = plan.modes - size.shape[-1]
    pad = [(0, 0), (0, 0), (0, max(short, 0))]
    arrays = {name: np.pad(part, pad, constant_values=np.nan) for name, part in modes.items()}
    return arrays | {"rank": found.rank, "residual": found.residual, "first": found.first}


def build(source: Source, plan: Plan, whole: dict[str, np.ndarray]) -> xr.Dataset:
    """Name the numbers."""
    pair = ("restart", "token")
    names = {
        "modulus": ("modulus of the eigenvalue: factor per iteration", "1"),
        "frequency": ("argument of the eigenvalue over 2 pi", "turns per iteration"),
        "amplitude": ("root-mean-square size of the steps of the mode, over the norm", "1"),
        "rank": ("directions kept", "1"),
        "residual": ("share of the norm of the steps that the map does not predict", "1"),
        "first": ("first iteration of the window", "iteration"),
    }
    data = {
        name: labelled(
            (*pair, "mode") if name in ("modulus", "frequency", "amplitude") else pair,
            whole[name],
            long_name,
            units,
            source_dtype=plan.dtype,
        )
        for name, (long_name, units) in names.items()
    }
    data["modulus"].attrs["lasting"] = _LASTING
    axes = {**coordinates(source.run, *pair), "mode": np.arange(data["modulus"].shape[-1])}
    return xr.Dataset(data, coords=axes)


def summarize(dataset: xr.Dataset, run: StoredRun) -> Summary:
    """Over all trajectories (restart x token) with a long enough signal.

    ``median_modulus`` of the largest mode; ``turning_share``: those whose largest mode turns;
    ``lasting_share``: those whose largest mode has a modulus of at least 0.99;
    ``median_residual``.
    """
    modulus = dataset["modulus"].values[..., 0]
    turn = dataset["frequency"].values[..., 0]
    known = np.isfinite(modulus)
    return {
        "median_modulus": over_known(np.median, modulus),
        "turning_share": over_known(np.mean, np.where(known, turn > 0, np.nan)),
        "lasting_share": over_known(np.mean, np.where(known, modulus >= _LASTING, np.nan)),
        "median_residual": over_known(np.median, dataset["residual"].values),
    }


ANALYZER = Analyzer(
    name="dmd",
    version=1,
    title="Dynamic mode decomposition",
    needs=needs,
    plan=plan,
    wants=wants,
    measure=measure,
    build=build,
    summarize=summarize,
    parameters=("dmd_rank", "n_modes", "source_dtype"),
    standard=False,  # an eigenproblem for each trajectory
)
