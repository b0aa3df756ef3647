"""Search for an initial state that the loop does not forget.

Restarts drawn at random miss basins that are small. Here the gradient through the loop looks for
one, so that agreement which survives says more. It needs the live model.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from looplens.analysis.algebra.inputs import real_number
from looplens.dynamics.restarts._restart_search import Runs, limit_of, search, states_from
from looplens.errors import AnalysisError, InputError
from looplens.models.initial_state import noise
from looplens.models.inputs import whole_number
from looplens.models.native import as_looped
from looplens.models.protocol import LoopedModel

Method = Literal["lbfgs", "adam"]
METHODS = ("lbfgs", "adam")
LONGER = 2  # times as many iterations, to see whether a limit was one
_NOISE_SEED = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class AdversarialRestart:
    """What `adversarial_restart` found.

    Attributes
    ----------
    state : Float[Tensor, "1 pos d_model"]
        The worst initial state that was found; pass it as ``initial_state=`` to
        :func:`looplens.trace` or :func:`looplens.record`.
    start : Float[Tensor, "1 pos d_model"]
        Where the search began.
    reference : Float[Tensor, "1 pos d_model"]
        The initial state that is compared with.
    before, after : float
        Alignment of the limit with that of the reference, from `start` and from `state`: the cosine
        over all positions together, 1 for the same place.
    longer : float
        The alignment from `state` after twice as many iterations of both. Near 1 while `after` is
        not: the search found a slow way, not another place.
    token_before, token_after, token_longer : Float[Tensor, "pos"]
        The same for each position.
    agreement_before, agreement_after, agreement_longer : float or None
        Share of positions whose most probable token is that of the reference at the last iteration;
        None for a model without a readout.
    history : tuple of float
        Alignment at every evaluation of the search, after the iterations of its stage.
    iterations : int
        Passes of the loop that the search went through.
    """

    state: Float[Tensor, "1 pos d_model"]
    start: Float[Tensor, "1 pos d_model"]
    reference: Float[Tensor, "1 pos d_model"]
    before: float
    after: float
    longer: float
    token_before: Float[Tensor, " pos"]
    token_after: Float[Tensor, " pos"]
    token_longer: Float[Tensor, " pos"]
    agreement_before: float | None
    agreement_after: float | None
    agreement_longer: float | None
    history: tuple[float, ...]
    iterations: int


def adversarial_restart(
    model: Any,
    prompt: Any,
    *,
    iterations: int | None = None,
    reference: Any = None,
    start: Any = None,
    method: Method = "lbfgs",
    steps: int = 30,
    learning_rate: float | None = None,
) -> AdversarialRestart:
    r"""Search for an initial state from which the loop ends elsewhere.

    With :math:`z(s_0)` the limit (the mean of the last quarter of the states) and
    :math:`z^*` that of the reference, it minimises :math:`\cos(z(s_0), z^*)`, both flattened over
    positions, along the gradient through the iterations: first through an eighth of them, then
    a quarter, a half and all, since a loop that contracts passes no gradient back from far ahead,
    and what is far from :math:`z^*` early is likely to end elsewhere. Every position of
    :math:`s_0` keeps the norm that it starts with, so that the search cannot leave the states that
    the model knows.

    Parameters
    ----------
    model : LoopedTransformer or LoopedModel
        Our own model, or a wrapped one whose initial state can be set. Its parameters are left
        alone.
    prompt : str, sequence of int, or Int[Tensor, "1 pos"]
        One prompt.
    iterations : int, optional
        Passes of the loop; by default the model's recommended depth.
    reference : optional
        Initial state of the limit that is to be left: None for the model's own start, a seed, a
        scheme name, or a state.
    start : optional
        Initial state that the search begins with; by default noise of the norms of the reference,
        drawn with another seed.
    method : {"lbfgs", "adam"}
        L-BFGS with a line search, or Adam.
    steps : int
        Steps of the optimiser in each of the four stages.
    learning_rate : float, optional
        By default 1 for L-BFGS and 0.05 for Adam, for states of norm 1.

    Returns
    -------
    AdversarialRestart
        The worst state, alignment before and after, and the check with twice the iterations.

    Raises
    ------
    InputError
        For more than one prompt, an unknown method, fewer than one step, a learning rate that is
        not positive, or a start that is not finite or zero at some position (a direction needs a
        norm: pass ``start=``).
    AnalysisError
        If the states from the reference are not finite.
    SiteError
        If no gradient comes through the loop, as where foreign code turns it off, or the model
        leaves it early.

    Notes
    -----
    A search that fails proves nothing, and a cosine in float32 ends about 1e-7 from 1. Memory grows
    with the iterations: all of them are kept for the gradient.

    References
    ----------
    The adversarial variant of the asymptotic alignment score of Anil et al. 2022, arXiv:2211.09961,
    as summarised in our notes (L-BFGS on the initial state); paper text not read.

    Examples
    --------
    >>> import looplens as ll
    >>> model = ll.load_model("affine-huginn-mini")
    >>> ll.adversarial_restart(model, "3+4*2", iterations=8, steps=3).after > 0.9
    True
    """
    if method not in METHODS:
        raise InputError(f"method must be one of {', '.join(map(repr, METHODS))}; got {method!r}.")
    steps = whole_number(steps, "steps", least=1)
    if learning_rate is not None and real_number(learning_rate, "learning_rate") <= 0:
        raise InputError(f"learning_rate must be positive; got {learning_rate}.")
    looped = as_looped(model)
    ids = looped.to_tokens(prompt)
    if len(ids) != 1:
        raise InputError(f"adversarial_restart takes one prompt; got a batch of {len(ids)}.")
    count = looped.check_iterations(iterations)
    # Gradients are needed whatever the caller has turned off.
    with torch.inference_mode(False), _frozen(model):
        ids = ids.clone()
        with torch.no_grad():
            aim_states = states_from(looped, ids, _parsed(looped, reference), count * LONGER)
            first = aim_states[0]
            given = _beginning(looped, ids, first, start)
        if not bool(limit_of(aim_states[: count + 1]).isfinite().all()):
            raise AnalysisError(
                f"{looped.model_name} leaves the finite numbers from the reference state within "
                f"{count} iterations: there is no limit to leave. Take fewer iterations, or "
                "another reference."
            )
        runs = Runs(looped, ids, aim_states, count)
        worst, history = search(runs, given, method, steps, learning_rate)
        with torch.no_grad():
            before, after = runs.compare(given, count), runs.compare(worst, count)
            longer = runs.compare(worst, count * LONGER)
    return AdversarialRestart(
        state=worst,
        start=given,
        reference=first,
        before=before[0],
        after=after[0],
        longer=longer[0],
        token_before=before[1],
        token_after=after[1],
        token_longer=longer[1],
        agreement_before=before[2],
        agreement_after=after[2],
        agreement_longer=longer[2],
        history=tuple(history),
        iterations=count,
    )


def _parsed(looped: LoopedModel, start: Any) -> Any:
    return start if isinstance(start, Tensor) else looped.parse_start(start)


def _beginning(
    looped: LoopedModel, ids: Int[Tensor, "1 pos"], reference: Tensor, start: Any
) -> Float[Tensor, "1 pos d_model"]:
    """Return the state that the search begins with."""
    if start is None:
        draw = noise(_NOISE_SEED, *reference.shape[1:]).to(reference)[None]
        given = draw / draw.norm(dim=-1, keepdim=True) * reference.norm(dim=-1, keepdim=True)
    else:
        given = states_from(looped, ids, _parsed(looped, start), looped.check_iterations(1))[0]
    if not bool(given.isfinite().all()):
        raise InputError("start holds numbers that are not finite: pass a state without them.")
    if not bool((given.norm(dim=-1) > 0).all()):
        raise InputError(
            "the search begins with a state that is zero at some position, and keeps its norm: "
            "there is nothing to search. Pass start= with a norm, such as start='noise'."
        )
    return given.detach().clone()


@contextmanager
def _frozen(model: Any) -> Iterator[None]:
    """Ask for no gradients of the parameters meanwhile."""
    module = getattr(model, "module", getattr(model, "model", model))
    changed = [p for p in module.parameters() if p.requires_grad]
    for parameter in changed:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in changed:
            parameter.requires_grad_(True)
