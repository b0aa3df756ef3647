"""Lenses: what the model would say if a state inside the loop were read out at once.

The logit lens goes straight from a state to the final norm and the head; the coda lens takes the
way that the loop's own result takes, through the coda. States come from a recorded run, and the
readout from the live model. Neither lens is valid everywhere, which is why both are computed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from looplens.analysis.algebra.inputs import real_number
from looplens.analysis.analyzers._analyzer import rounding_dtype
from looplens.analysis.analyzers.lens import LENS_VERSION
from looplens.analysis.running.incremental import block_hashes
from looplens.dynamics.readouts._lens_check import CHECKS, self_check
from looplens.dynamics.readouts._lens_follow import Follow, follow_by_prompt, followed_ids
from looplens.dynamics.readouts._lens_input import LensInput, chosen_states
from looplens.dynamics.readouts._lens_reading import Part, Reading, read
from looplens.errors import InputError
from looplens.models import LoopedTransformer
from looplens.models.inputs import whole_number
from looplens.models.native import as_looped
from looplens.store import StoredRun

if TYPE_CHECKING:
    from looplens.models.protocol import LoopedModel

# What rounding makes of log-probabilities, by the coarser dtype of the model and of the run.
TOLERANCES = {"float64": 1e-3, "float32": 1e-3, "float16": 0.05, "bfloat16": 0.25}


def lens(
    model: LoopedTransformer | LoopedModel,
    run: StoredRun,
    *,
    prompt: int | Iterable[int] = 0,
    restart: int = 0,
    layers: Sequence[int] | None = None,
    iterations: Sequence[int] | None = None,
    follow: Follow | None = None,
    top_k: int = 5,
    head: Reading | None = None,
    to_state: Reading | None = None,
    tolerance: float | None = None,
    store: bool = False,
) -> xr.Dataset:
    r"""Read out the residual stream after every layer of every iteration.

    With h the residual stream, N the final norm and U the head,

    * ``logit``: :math:`U\,N(h)`,
    * ``coda``: the model's own readout of h, as if the loop had ended there:
      :math:`U\,N(C(N(h)))` for a model with the coda C that normalises before it.

    After the last layer of the last iteration the coda lens is the model's own prediction, which is
    checked whenever it is asked for.

    Parameters
    ----------
    model : LoopedTransformer or LoopedModel
        The model that was recorded.
    run : StoredRun
        A run with ``resid_post`` of whole prompts, in all dimensions.
    prompt : int or iterable of int
        Which prompts.
    restart : int
        Which draw of the initial state.
    layers, iterations : sequence of int, optional
        Numbers of those to read out; by default all that are recorded.
    follow : mapping of str to int or sequence of int, optional
        Tokens whose rank is followed beside the ``target`` (the one of the prompt, where it has
        any) and ``final`` (the model's prediction at the end): by name, one id for all positions,
        or one a position (of all prompts, one after the other) with -1 for none. Such as
        ``{"intermediate": 7}``.
    top_k : int
        How many of the most probable tokens to keep.
    head : callable, optional
        From a residual stream to logits, for the logit lens. A wrapped model needs it, since it
        does not say where its norm and its head are; without it, only the coda lens is made.
    to_state : callable, optional
        From the stream after the last layer to the loop state, for a wrapped model that does
        something between them. Our own models know.
    tolerance : float, optional
        Largest difference of log-probabilities that the self-check lets pass as rounding; by
        default 0.001, and 0.05 (0.25) where the model ran or was stored in float16 (bfloat16).
    store : bool
        Store the result in the run as its analysis ``lens``, in place of an earlier one, for
        figures, the report and the dashboard, which have no model.

    Returns
    -------
    Dataset
        ``topk_ids``, ``topk_text``, ``topk_logprobs`` (lens, token, layer, iteration, rank);
        ``entropy`` and ``kl_to_final`` = KL(p_final || p) (lens, token, layer, iteration), in nats;
        ``followed_rank`` (0 is the best, -1 where nothing is followed, or not finite) and
        ``followed_logprob`` (lens, followed, token, layer, iteration), of the ids ``followed_id``
        (followed, token); ``final_agreement`` (lens, layer, iteration), share of the tokens whose
        best token is the model's prediction at the end.
        Coordinates ``token`` (global), ``position`` and ``text``. The attribute ``self_check`` is
        ``exact``, ``rounding`` or ``not possible`` (where the end of the loop was not recorded, or
        no token is finite there); ``self_check_difference`` is the largest difference found.

    Raises
    ------
    InputError
        If an argument is out of range, or the model has no readout or another shape than the run.
    AnalysisError
        If the run does not hold what is needed, or the self-check fails: the model is not the one
        that was recorded, or `to_state` is missing.

    References
    ----------
    Lu et al. 2025, arXiv:2507.02199, as summarised in notes (the paper's text was not read): both
    lenses, and that each is valid after some layers only.

    Examples
    --------
    >>> import looplens as ll
    >>> model = ll.load_model("affine-huginn-mini")
    >>> run = ll.record(model, ["3+4*2"], out="runs/demo")
    >>> found = ll.lens(model, run, prompt=0)
    """
    looped = as_looped(model)
    if not isinstance(run, StoredRun):
        raise InputError(f"run must be a recorded run (looplens.open_run); got {run!r}.")
    allowed = TOLERANCES[rounding_dtype(run)]
    if tolerance is not None:
        allowed = real_number(tolerance, "tolerance")
    top_k = whole_number(top_k, "top_k", least=1)
    given_prompts = prompt if isinstance(prompt, Iterable) else [prompt]
    chosen = list(dict.fromkeys(_number(run, one) for one in given_prompts))
    if not chosen:
        raise InputError("prompt is empty: name at least one prompt.")
    follows = follow_by_prompt(run, chosen, {} if follow is None else follow)
    parts, checks = [], []
    for number, wanted in zip(chosen, follows, strict=True):
        with torch.no_grad():
            given = chosen_states(looped, run, number, restart, layers, iterations)
            readings = _readings(model, looped, given, head, to_state)
            _remember_tokens(model, given)
            final = looped.readout(given.final_state, given.final_iteration, run.iterations)
            checks.append(self_check(run, given, readings["coda"], final, allowed))
            final = final[0].log_softmax(-1)
            followed = followed_ids(run, given, final, wanted)
            most = min(top_k, final.shape[-1])
            shown = [read(given, reading, final, followed, most) for reading in readings.values()]
        parts.append(_labelled(run, looped, given, list(readings), shown, followed))
    found = xr.concat(parts, dim="token", coords="minimal", compat="override", join="exact")
    found["final_agreement"] = _final_agreement(found)
    worst = max(checks, key=lambda check: (CHECKS.index(check.word), check.difference or 0.0))
    found.attrs = {
        "model": looped.model_name,
        "prompts": chosen,
        "restart": int(restart),
        "n_layers": run.n_layers,
        "self_check": worst.word,
        "self_check_difference": worst.difference,
    }
    if store:
        blocks = json.dumps(block_hashes(run))
        run.write_analysis("lens", found.assign_attrs(blocks=blocks), version=LENS_VERSION)
    return found


def _readings(
    model: Any, looped: Any, given: LensInput, head: Reading | None, to_state: Reading | None
) -> dict[str, Reading]:
    """Return both lenses, as functions of a batch of residual streams."""
    if not looped.has_readout:
        raise InputError(f"{looped.model_name} has no readout: no lens can be held before its loop")
    if isinstance(model, LoopedTransformer):
        to_state = to_state or (model.ln_final if model.cfg.loop_norm else None)
        head = head or _native_head(model)

    def coda(stream: Tensor) -> Tensor:
        state = stream if to_state is None else to_state(stream)
        return looped.readout(state, given.final_iteration, given.iterations_run)

    return {**({} if head is None else {"logit": head}), "coda": coda}


def _native_head(model: LoopedTransformer) -> Reading:
    return lambda stream: model.logits_of(model.ln_final(stream))


def _remember_tokens(model: Any, given: LensInput) -> None:
    # Layers of the coda that look at the tokens look at those that were last embedded.
    if isinstance(model, LoopedTransformer) and given.whole:
        model.token_embedding(given.token_ids[None])


def _number(run: StoredRun, prompt: int) -> int:
    """Count a prompt from the first one."""
    run.token_range(prompt)  # raises for one that is not there
    return int(prompt) % run.n_prompts


def _labelled(
    run: StoredRun,
    looped: Any,
    given: LensInput,
    lenses: list[str],
    parts: list[Part],
    followed: dict[str, np.ndarray],
) -> xr.Dataset:
    places = ("lens", "token", "layer", "iteration")
    ids = np.stack([part.topk_ids for part in parts])
    texts = dict(_texts(run, looped, np.unique(ids)))
    words = np.array([texts[number] for number in ids.ravel().tolist()], dtype=object)

    def of(name: str, dims: tuple[str, ...], long_name: str, units: str) -> xr.Variable:
        values = np.stack([getattr(part, name) for part in parts])
        return xr.Variable(dims, values, {"long_name": long_name, "units": units})

    best, follows = (*places, "rank"), ("lens", "followed", *places[1:])
    data = {
        "topk_ids": of("topk_ids", best, "ids of the most probable tokens, best first", "1"),
        "topk_text": xr.Variable(best, words.reshape(ids.shape), {"long_name": "their texts"}),
        "topk_logprobs": of("topk_logprobs", best, "their log-probabilities", "nat"),
        "entropy": of("entropy", places, "entropy of what the lens shows", "nat"),
        "kl_to_final": of("kl_to_final", places, "KL(p_final || p)", "nat"),
        "followed_rank": of("followed_rank", follows, "rank of the followed token, from 0", "1"),
        "followed_logprob": of(
            "followed_logprob", follows, "log-probability of the followed token", "nat"
        ),
        "followed_id": xr.Variable(
            ("followed", "token"), np.stack(list(followed.values())), {"long_name": "its id"}
        ),
    }
    tokens = run.tokens.isel(token=given.tokens)
    return xr.Dataset(
        data,
        coords={
            "lens": lenses,
            "followed": list(followed),
            "token": np.arange(given.tokens.start, given.tokens.stop),
            "position": ("token", tokens["position"].values),
            "text": ("token", tokens["text"].values),
            "layer": list(given.layers),
            "iteration": list(given.iterations),
        },
    )


def _final_agreement(found: xr.Dataset) -> xr.DataArray:
    rank = found["followed_rank"].sel(followed="final", drop=True)
    share = (rank == 0).where(rank >= 0).mean("token")
    return share.assign_attrs(
        long_name="share of tokens whose best token is the final prediction", units="1"
    )


def _texts(run: StoredRun, looped: Any, ids: np.ndarray) -> Iterator[tuple[int, str]]:
    known, tokenizer = run.vocabulary, looped.tokenizer
    for number in ids.tolist():
        if number in known:
            yield number, known[number]
        else:
            yield number, f"#{number}" if tokenizer is None else tokenizer.token_text(number)
