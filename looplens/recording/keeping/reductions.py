"""States in fewer dimensions, on the device that computed them: random projection or fitted PCA.

One orthonormal basis serves the whole run, so that states, injected tensors and sites of a
trajectory stay comparable. What the basis leaves out is measured for every single state. This
module knows tensors and models, not the disk; the numbers of a basis are
`looplens.store.format.reduction.Reduction`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import ArrayLike
from torch import Tensor

from looplens.errors import InputError
from looplens.models.protocol import LoopedModel, StartLike
from looplens.prompts import Prompt
from looplens.recording.keeping.calibration import gather
from looplens.recording.keeping.keep import Kept
from looplens.store.format.reduction import Reduction

ReductionChoice = None | str | Reduction | ArrayLike

_EXPECTED = "'random:64', 'pca:64', a Reduction, or an array (component, d_model)"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Request:
    """What the caller asks for: a kind, how many components, and the numbers if they are given."""

    kind: str
    components: int
    given: Reduction | None = None


def check_reduction(reduce: ReductionChoice, d_model: int) -> int | None:
    """Return how many components would be stored; None where states are stored whole.

    Raises
    ------
    InputError
        If it is neither of these, has more components than d_model, or is not orthonormal.
    """
    request = _parsed(reduce, d_model)
    return request.components if request else None


def stand_in(reduce: ReductionChoice, d_model: int) -> Reduction | None:
    """Return a reduction of the right size that was fitted to nothing, to plan a run with.

    Raises
    ------
    InputError
        As `check_reduction`.
    """
    request = _parsed(reduce, d_model)
    if request is None or request.given is not None:
        return request.given if request else None
    return Reduction(
        kind=request.kind,
        basis=np.eye(request.components, d_model, dtype=np.float32),
        source="stand-in",
    )


def reduction_of(
    reduce: ReductionChoice,
    model: LoopedModel,
    prompts: Sequence[Prompt],
    starts: Sequence[StartLike],
    iterations: int,
    *,
    sites: Sequence[str] = (),
    kept: Kept | None = None,
    seed: int = 0,
    stored: Reduction | None = None,
) -> Reduction | None:
    """Return the basis that the states of a run are stored in.

    Parameters
    ----------
    reduce : str, Reduction, array (component, d_model) or None
        ``"random:m"``: m random orthonormal directions, drawn from the seed. ``"pca:m"``: the
        first m principal components of a calibration pass over at most 16 of the prompts, evenly
        spaced, from at most 4 of the starts. Orthonormal rows of one's own, or a `Reduction`, are
        taken as they are. None stores states whole.
    model : LoopedModel
        The model; a PCA runs it.
    prompts : sequence of Prompt
        All prompts of the run.
    starts : sequence of StartLike
        One a restart.
    iterations : int
        Passes of the loop that the model is asked for.
    sites : sequence of str
        Recorded sites; those of the residual stream are fitted together with the loop state.
    kept : Kept, optional
        Layers and iterations that are stored, and so fitted; all by default.
    seed : int
        Of the random directions, and of the thinning of a large calibration pass.
    stored : Reduction, optional
        That of the run which is resumed or joined. It is taken again where it is what was asked
        for, since another machine would not compute the same last digits.

    Raises
    ------
    InputError
        As `check_reduction`; or if the calibration pass saw no finite states.
    """
    d_model = model.d_model
    request = _parsed(reduce, d_model)
    if request is None or request.given is not None:
        return request.given if request else None
    if (
        stored is not None
        and (stored.kind, stored.width) == (request.kind, request.components)
        and stored.seed == seed
    ):
        return stored
    if request.kind == "random":
        draws = np.random.default_rng(seed).standard_normal((d_model, request.components))
        return Reduction(
            kind="random",
            basis=np.linalg.qr(draws)[0].T.astype(np.float32),
            seed=seed,
            source=f"Gaussian directions, orthonormal, from seed {seed}",
        )
    states, ran = gather(model, prompts, starts, iterations, sites=sites, kept=kept, seed=seed)
    if not states.count:
        raise InputError(
            f"reduce={reduce!r} found no finite state in a pass over {ran} prompts, so no basis "
            "can be fitted. Look at the model's numbers, or use 'random:m'."
        )
    basis, mean, share = states.components(request.components)
    return Reduction(
        kind="pca",
        basis=basis,
        mean=mean,
        seed=seed,
        source=(
            f"fitted to {states.count} states of {ran} prompt{'s' if ran > 1 else ''}, of whose "
            f"variance it keeps {share:.2%}"
        ),
    )


class Projector:
    """Applies a reduction to tensors, on their device and in float32.

    Parameters
    ----------
    reduction : Reduction
        Basis and mean.
    device : torch.device
        Of the states.
    """

    def __init__(self, reduction: Reduction, device: torch.device) -> None:
        self._basis = torch.as_tensor(reduction.basis, dtype=torch.float32, device=device)
        self._mean = torch.as_tensor(reduction.mean, dtype=torch.float32, device=device)

    @property
    def components(self) -> int:
        """How many numbers are left of a state."""
        return len(self._basis)

    @torch.no_grad()
    def apply(
        self, states: Float[Tensor, "... d_model"]
    ) -> tuple[Float[Tensor, "... component"], Float[Tensor, ...]]:
        """Return states in the basis, and what share of each was left out.

        Returns
        -------
        projected : Tensor, (..., component), float32
            ``(states - mean) @ basis.T``.
        discarded : Tensor, (...), float32
            Share of the squared norm of ``states - mean`` outside the basis, 0 to 1; 0 where a
            state is the mean, NaN where it is not finite.
        """
        centred = states.float() - self._mean
        projected = centred @ self._basis.T
        # The difference of the two norms would lose a small remainder; its square is exact enough.
        left = centred - projected @ self._basis
        whole = centred.square().sum(-1)
        share = left.square().sum(-1) / torch.where(whole > 0, whole, torch.ones_like(whole))
        return projected, share.clamp(max=1)


def _parsed(reduce: Any, d_model: int) -> _Request | None:
    if reduce is None:
        return None
    if isinstance(reduce, str):
        kind, _, number = reduce.strip().partition(":")
        if kind not in ("random", "pca") or not number.isdecimal() or int(number) < 1:
            raise InputError(f"reduce must be {_EXPECTED}; got {reduce!r}")
        if int(number) > d_model:
            raise InputError(
                f"reduce={reduce!r} asks for {number} dimensions of states that have {d_model}. "
                "Ask for fewer, or leave reduce out to store states whole."
            )
        return _Request(kind=kind, components=int(number))
    if not isinstance(reduce, Reduction):
        try:
            basis = np.asarray(reduce, dtype=np.float32)
        except (TypeError, ValueError):
            raise InputError(f"reduce must be {_EXPECTED}; got a {type(reduce).__name__}") from None
        reduce = Reduction(kind="given", basis=basis, source="given by the caller")
    if reduce.d_model != d_model:
        raise InputError(
            f"the reduction is of states with {reduce.d_model} dimensions, but the model "
            f"has d_model={d_model}"
        )
    return _Request(kind=reduce.kind, components=reduce.width, given=reduce)
