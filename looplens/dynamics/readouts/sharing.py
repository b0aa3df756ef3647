"""What sharing keys and values between iterations changes in what a model says.

A looped model that decodes token by token keeps keys and values of every iteration: T times the
memory of a plain model. Here the tokens of given prompts are decoded under several ways to keep
fewer, and each prediction is held against that with all of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float, Int
from torch import Tensor

from looplens.errors import InputError
from looplens.models import InitialState, LoopedTransformer
from looplens.models.inputs import whole_number
from looplens.models.native import as_looped
from looplens.recording.prompts import PromptLike, as_prompts
from looplens.thinking.cache import CacheStrategy, LoopedCache, caching
from looplens.thinking.starts import Starts

STRATEGIES = ("last", "average", "first", "shared:4")


@torch.no_grad()
def kv_sharing(
    model: LoopedTransformer,
    prompts: PromptLike | Iterable[PromptLike],
    *,
    iterations: int | None = None,
    strategies: Sequence[str | CacheStrategy] = STRATEGIES,
    prefill: int = 1,
    initial_state: str | int | InitialState | Tensor | None = None,
) -> xr.Dataset:
    r"""Measure how faithful decoding stays when iterations share keys and values.

    The tokens of each prompt are fed one by one, whatever the model says, so that all strategies
    see the same text. Of each one, :math:`KL(p^{full} \| p^{shared})` after the last iteration, and
    whether the best token is the same.

    Parameters
    ----------
    model : LoopedTransformer
        A native model; wrapped ones keep their own caches.
    prompts : str, sequence of int, Prompt, or an iterable of these
        With targets, accuracy is measured too.
    iterations : int, optional
        Passes; by default the model's recommended depth.
    strategies : sequence of str
        See :meth:`looplens.thinking.CacheStrategy.parse`: ``last``, ``first``, ``average``,
        ``shared:K``. ``full`` is always measured.
    prefill : int
        Positions that are read together at the beginning of each prompt, where every iteration sees
        its own keys and values; they are left out of the numbers.
    initial_state : optional
        See :meth:`LoopedTransformer.initial_state`.

    Returns
    -------
    Dataset
        ``kl`` (nat), ``agrees``, ``target_logprob`` (strategy, token); ``mean_kl``, ``agreement``,
        ``accuracy`` and ``nll`` (NaN without targets), ``memory`` (share of the full cache's core
        entries), each (strategy); the first strategy is ``full``.

    Raises
    ------
    InputError
        If the model is not a native one, a strategy is unknown, or no position is left to measure.

    References
    ----------
    .. [1] Zhu et al., arXiv:2510.25741, table 14 (last-step, first-step and averaged keys and
       values while decoding).
    .. [2] Geiping et al., arXiv:2502.05171, section 6.2 (sharing between iterations).
    """
    if not isinstance(model, LoopedTransformer):
        raise InputError(
            "Sharing of keys and values is measured on native models (looplens.load_model); got "
            f"{type(model).__name__}."
        )
    count = model.check_iterations(iterations)
    prefill = whole_number(prefill, "prefill", least=1)
    chosen = [CacheStrategy(), *map(CacheStrategy.parse, strategies)]
    names = list(dict.fromkeys(map(str, chosen)))
    by_name = {str(strategy): strategy for strategy in chosen}
    rows: dict[str, list[np.ndarray]] = {name: [] for name in ("kl", "agrees", "logprob", "right")}
    places = []
    for number, prompt in enumerate(as_prompts(prompts, as_looped(model))):
        length = len(prompt.token_ids)
        if length <= prefill:
            continue
        ids = torch.tensor([prompt.token_ids], device=model.embed.weight.device)
        said = [
            _decoded(model, ids, count, by_name[name], prefill, initial_state) for name in names
        ]
        targets = torch.tensor((prompt.targets or (-1,) * length)[prefill:], device=ids.device)
        for name, values in _compared(torch.stack(said), targets).items():
            rows[name].append(values.cpu().numpy())
        places += [(number, position) for position in range(prefill, length)]
    if not places:
        raise InputError(
            f"No prompt is longer than prefill={prefill}, so nothing is decoded one by one. Give "
            "longer prompts or a smaller prefill."
        )
    found = {name: np.concatenate(parts, axis=1) for name, parts in rows.items()}
    memory = [by_name[name].count(count) / count for name in names]
    return _dataset(found, names, places, np.minimum(memory, 1.0))


def _decoded(
    model: LoopedTransformer,
    ids: Int[Tensor, "1 pos"],
    iterations: int,
    strategy: CacheStrategy,
    prefill: int,
    initial_state: Any,
) -> Float[Tensor, "pos d_vocab"]:
    """Log-probabilities of the positions after the prefill, fed one by one."""
    length = ids.shape[1]
    cache = LoopedCache(model, positions=length, iterations=iterations, strategy=strategy)
    starts = Starts(model, initial_state, length)
    said = []
    with caching(model, cache), model.clock.forward(iterations):
        edges = [0, *range(prefill, length + 1)]
        for start, stop in pairwise(edges):
            model.position_offset = start
            embedding = model.token_embedding(ids[:, start:stop])
            injected = model.run_prelude(embedding)
            state = starts.at(embedding, injected)
            for t in range(1, iterations + 1):
                with model.clock.at(t):
                    state = model.step(state, injected)
            with model.clock.at(iterations):
                said.append(model.readout(state)[0].log_softmax(-1))
    return torch.cat(said[1:])


def _compared(
    logp: Float[Tensor, "strategy pos d_vocab"], targets: Int[Tensor, " pos"]
) -> dict[str, Tensor]:
    full = logp[:1]
    p = full.exp()
    terms = torch.where(p == 0, torch.zeros_like(logp), p * (full - logp))
    best, known = logp.argmax(-1), targets >= 0
    index = targets.clamp(min=0).long().expand(len(logp), -1)[..., None]
    score = logp.gather(-1, index)[..., 0]
    right = (best == targets).double()
    return {
        "kl": terms.sum(-1).clamp(min=0).double(),
        # Without numbers there is no answer, and none to agree with.
        "agrees": (best == best[:1]).double().where(terms.sum(-1).isfinite(), torch.nan),
        "logprob": score.double().where(known, torch.nan),
        "right": right.where(known, torch.nan),
    }


def _dataset(
    found: dict[str, np.ndarray],
    names: list[str],
    places: list[tuple[int, int]],
    memory: np.ndarray,
) -> xr.Dataset:
    def described(values: np.ndarray, long_name: str, units: str = "1") -> xr.Variable:
        dims = ("strategy", "token")[: values.ndim]
        return xr.Variable(dims, values, {"long_name": long_name, "units": units})

    known = np.isfinite(found["right"][0])
    nothing = np.full(len(names), np.nan)
    accuracy = found["right"][:, known].mean(1) if known.any() else nothing
    nll = -found["logprob"][:, known].mean(1) if known.any() else nothing
    same = found["agrees"]
    data = {
        "kl": described(
            found["kl"], "KL of the prediction with shared entries from the full", "nat"
        ),
        "agrees": described(same, "whether the best token is that with all entries"),
        "target_logprob": described(found["logprob"], "log-probability of the target", "nat"),
        "mean_kl": described(found["kl"].mean(1), "mean of kl over tokens", "nat"),
        "agreement": described(same.mean(1), "share of tokens with the same best token"),
        "accuracy": described(accuracy, "share of targets that are the best token"),
        "nll": described(nll, "negative log-probability of the target, mean", "nat"),
        "memory": described(memory, "entries of the core that are kept, as a share of all"),
    }
    prompt, position = np.array(places).T
    coords = {
        "strategy": np.array(names, dtype=object),
        "prompt": ("token", prompt),
        "position": ("token", position),
    }
    return xr.Dataset(data, coords=coords)
