"""Lyapunov spectra of the tokens of a recorded trajectory, and of the whole sequence."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr

from looplens.analysis.algebra.inputs import real_number
from looplens.analysis.regimes.thresholds import ROUNDING_STEP
from looplens.dynamics.exponents.averages import CUT
from looplens.dynamics.exponents.blocks import Blocks, Spectra
from looplens.dynamics.exponents.results import dataset_of
from looplens.dynamics.exponents.sublayers import Sublayers, sublayers_of
from looplens.dynamics.exponents.trajectories import trajectory_of
from looplens.dynamics.exponents.windows import windows
from looplens.dynamics.maps.labelled import Progress
from looplens.dynamics.maps.recorded import Recorded, recorded
from looplens.errors import InputError
from looplens.models.inputs import whole_number
from looplens.store.reading.stored import StoredRun


def lyapunov_spectra(
    model: Any,
    source: Any,
    *,
    prompt: int = 0,
    restart: int = 0,
    tokens: int | Sequence[int] | None = None,
    k: int = 8,
    iterations: int | None = None,
    tail: int | None = None,
    cut: float = CUT,
    sublayers: bool = True,
    upstream: bool = True,
    sequence: bool = False,
    initial_state: Any = None,
    dtype: torch.dtype | None = None,
    seed: int = 0,
    progress: Progress = None,
) -> xr.Dataset:
    r"""Compute finite-time Lyapunov spectra along a trajectory of the loop.

    A token's own block is the derivative of its next state with respect to its state, the others
    moving as they do. A frame of k directions is carried through the blocks,
    :math:`J_{ii}(s_t) Q_t = Q_{t+1} R_t`; the exponents are means of :math:`\log |(R_t)_{jj}|`,
    apart over the transient and over the tail (see
    :func:`looplens.dynamics.exponents.windows.windows`). In a causal model the derivative of the
    sequence is block triangular, so in the long run its exponents are those of the blocks together,
    and what disturbs a token grows like the largest among its own and the earlier ones.

    Between two places j - 1 and j of a pass the frame is stretched by
    :math:`\log |(R_j)_{ii}| - \log |(R_{j-1})_{ii}|`, with R_j of the frame that the pass has moved
    so far. These shares add up to the exponent.

    Parameters
    ----------
    model : LoopedTransformer or LoopedModel
        The model that was recorded, or that is to be run.
    source : Run, str, sequence of int or tensor
        A run, or one prompt.
    prompt, restart : int
        Of a run.
    tokens : int or sequence of int, optional
        Positions of the prompt, by default all; negative ones count back.
    k : int
        Exponents of every token; at most the width of the model.
    iterations : int, optional
        How far; beyond the recording the loop is run on.
    tail : int, optional
        First step of the tail, instead of the rule.
    cut : float
        Of the regimes: ``settle`` below -cut, ``drift`` above cut, ``marginal`` between.
    sublayers : bool
        Attribute the stretch to sublayers.
    upstream : bool
        Look for the token up to each one whose exponent is largest, among all of them. Only where
        tokens see no later ones.
    sequence : bool
        Compute k exponents of the whole sequence too.
    initial_state : optional
        Of a prompt that is run now.
    dtype : torch.dtype, optional
        What to compute in; by default the model's, at least float32.
    seed : int
        Of the frames.
    progress : callable, optional
        Called with the products that are done and how many there will be.

    Returns
    -------
    Dataset
        Over ``token`` (numbers in the run), ``exponent`` (1 to k), ``iteration`` and ``sublayer``:
        ``exponents`` and ``error`` of the tail, ``transient_exponents``, ``log_stretch`` (of the
        directions since the first iteration), ``transient_end``, ``tail_start``, ``tail_rule``,
        ``rest_share``, ``regime``, ``margin``, ``clear``, ``dimension``, ``spread``,
        ``upstream_exponent``, ``upstream_token``, ``stretch``, ``transient_stretch``;
        ``sequence_exponents`` and the like where asked for. NaN where a direction falls below
        rounding. The transient's exponents are the logarithms of the largest singular values of its
        product, over its steps.

    Raises
    ------
    InputError
        If k is larger than a state, fewer than four steps are left, or a choice is out of range.
    AnalysisError
        If the states or a derivative leave the finite numbers.

    Notes
    -----
    A negative exponent says that neighbours meet, not that the token stands still: on a stable
    orbit they meet as well. In a tail that is at rest, the exponent is that of the limit (the
    logarithm of the spectral radius there) and not of the motion, which is then rounding:
    ``rest_share`` says how much of the tail that is.

    References
    ----------
    Benettin, Galgani, Giorgilli and Strelcyn, Meccanica 15 (1980). Spectra of loops by sublayers:
    OpenReview enDyNuSD3L (abstract only, no formula in it; the shares are ours). Regimes: Viakhirev
    et al., arXiv:2608.18222 (as summarised in notes, paper text not read).

    Examples
    --------
    >>> import looplens as ll
    >>> from looplens.dynamics import lyapunov_spectra
    >>> model = ll.load_model("affine-huginn-mini")
    >>> found = lyapunov_spectra(model, [3, 1, 4], iterations=24, k=2)
    >>> str(found["regime"].values[0])
    'settle'
    """
    options: dict[str, Any] = {"initial_state": initial_state}
    if not isinstance(source, StoredRun):
        options["iterations"] = iterations
    taken = recorded(model, source, prompt=prompt, restart=restart, dtype=dtype, **options)
    width = taken.states.shape[2]
    k = whole_number(k, "k", least=1)
    if k > width:
        raise InputError(
            f"k={k}, but a token's state has {width} dimensions: ask for no more exponents"
        )
    if real_number(cut, "cut") < 0:
        raise InputError(f"cut must not be negative; got {cut}")
    asked = taken.positions(tokens)
    trajectory = trajectory_of(taken, iterations)
    parted = windows(
        trajectory.states.double().cpu().numpy(),
        first=trajectory.first,
        causal=taken.causal,
        rounding=_rounding(taken),
        tail=tail,
    )
    places = sublayers_of(taken.step) if sublayers else None
    # Only where tokens see no later ones does a token's own derivative stay in its own stream.
    in_blocks = places if taken.causal else None
    follows = upstream and taken.causal
    others = sorted(set(range(max(asked))) - set(asked)) if follows else []

    def blocks(positions: Sequence[int] | None, count: int, of: Sublayers | None) -> Blocks:
        return Blocks(
            trajectory=trajectory,
            windows=parted,
            positions=None if positions is None else tuple(positions),
            k=count,
            sublayers=of,
            seed=seed,
        )

    own = blocks(asked, k, in_blocks).parts()
    rest = blocks(others, 1, None).parts() if others else []
    whole = [blocks(None, k, places)] if sequence else []
    work = [*own, *rest, *whole]
    tick = _counter(progress, sum(one.products for one in work))
    found = [one.spectra(tick) for one in work]
    leading = np.full(taken.n_pos, np.nan)
    for one, spectra in zip([*own, *rest], found, strict=False):
        leading[list(one.positions or ())] = spectra.exponents[:, 0]
    notes: tuple[str, ...] = ()
    said: dict[str, Any] = {"seed": seed, "tail": tail}
    if sequence:
        together = trajectory.at(0)[0]
        notes = together.notes
        said["sequence_attention"] = together.attention
        said["sequence_derivative"] = together.ways.derivative
    return dataset_of(
        taken,
        trajectory,
        parted,
        positions=asked,
        own=Spectra.joined(found[: len(own)]),
        whole=found[-1] if sequence else None,
        leading=leading if follows else None,
        names=places.names if places else (),
        cut=cut,
        map_=trajectory.at(0, asked[:1])[0],
        notes=notes,
        attrs=said,
    )


def _counter(progress: Progress, total: int) -> Callable[[], None]:
    """Return what is called after every product, and tells how many are done."""
    done = itertools.count(1)

    def tick() -> None:
        if progress is not None:
            progress(next(done), total)

    return tick


def _rounding(taken: Recorded) -> float:
    """Return the relative step that rounding alone shows in the recorded states."""
    names = {str(taken.states.dtype).removeprefix("torch.")}
    if taken.run is not None:
        names |= {taken.run.source_dtype, str(taken.run.attrs.get("store_dtype") or "float64")}
    return max(ROUNDING_STEP[name] for name in names & set(ROUNDING_STEP))
