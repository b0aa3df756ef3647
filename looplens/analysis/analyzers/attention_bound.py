"""Both sides of the bound on the change of attention, for every head of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from looplens.analysis.analyzers import attention_change
from looplens.analysis.analyzers._analyzer import (
    Analyzer,
    Source,
    Summary,
    coordinates,
    labelled,
    over_known,
)
from looplens.analysis.analyzers.attention_change import readable_prompts, rounding_of_attention
from looplens.analysis.measures.attention_bound import attention_bound
from looplens.errors import CorruptRunError

if TYPE_CHECKING:
    from looplens.store import StoredRun

_BY_HEAD = ("measured", "bound", "slack")
_BY_LAYER = ("input_step", "input_norm")


def needs(run: StoredRun) -> str | None:
    """Ask for attention, the weights' constants, and exact inputs of at least one layer."""
    reason = attention_change.needs(run)
    if reason is not None:
        return reason
    config = _config(run)
    if config.get("qk_norm", "none") != "none":
        return (
            "The bound is of scores that are products of linear maps of the input, and this model "
            f"normalises its queries and keys (qk_norm {config['qk_norm']!r})."
        )
    if "attention_kappa" not in run.model:
        return (
            "The bound needs the norms of the attention weights (attention_kappa), which are "
            "recorded with looplens' own models when attention is. Record the run again; of a "
            "wrapped model they are not known."
        )
    if run.attrs.get("settings", {}).get("interventions"):
        return (
            "The loop was changed while it ran (interventions), so that what attention saw is not "
            "what is stored. Record without them."
        )
    if run.is_reduced or not run.attrs.get("all_tokens", True):
        return (
            "The bound needs the whole states of all tokens, and this run keeps "
            f"{'reduced states' if run.is_reduced else 'some tokens'}. Record with reduce=None "
            "and tokens='all'."
        )
    if all(input_of(run, layer) is None for layer in run.recorded_layers):
        return (
            "What attention sees cannot be put together from what is stored: it needs the residual "
            "stream before the layer. Record with sites=('resid_pre', 'resid_post')."
        )
    return None


def input_of(run: StoredRun, layer: int) -> str | None:
    """Say what of a run is exactly the residual stream before a core layer.

    Returns
    -------
    str or None
        ``"resid_pre"``; ``"layer before"``; for layer 0 ``"state"`` or ``"state + injected"``, by
        how the model injects; None where it takes weights to compute it.
    """
    if "resid_pre" in run.site_names:
        return "resid_pre"
    if layer > 0:
        there = layer - 1 in run.recorded_layers and "resid_post" in run.site_names
        return "layer before" if there else None
    kinds = {"none": "state", "add": "state + injected"}
    return kinds.get(str(_config(run).get("injection")))


def build(source: Source, plan: None, arrays: dict[str, np.ndarray]) -> xr.Dataset:
    """Measure both sides for all prompts with attention."""
    run = source.run
    prompts = list(run.attention_prompts)
    layers, heads = run.recorded_layers, run.attrs["n_heads"]
    shape = (len(prompts), run.restarts, len(layers), run.iterations - 1)
    whole = {name: np.full((*shape, heads), np.nan) for name in _BY_HEAD}
    whole |= {name: np.full(shape, np.nan) for name in _BY_LAYER}
    for place, prompt in readable_prompts(source):
        try:
            for restart in range(run.restarts):
                for number, layer in enumerate(layers):
                    if input_of(run, layer) is not None:
                        found = _of_layer(run, prompt, restart, layer)
                        for name, values in whole.items():
                            values[place, restart, number] = getattr(found, name)
        except CorruptRunError as error:
            for values in whole.values():
                values[place] = np.nan
            source.coverage.give_up(run.token_range(prompt), str(error))
    kappa = np.array(run.model["attention_kappa"])[list(layers)]
    return _dataset(run, prompts, whole, kappa)


def _of_layer(run: StoredRun, prompt: int, restart: int, layer: int) -> Any:
    return attention_bound(
        seen(run, prompt, restart, layer),
        run.attention(prompt, restart=restart, layer=layer).values,
        run.model["attention_kappa"][layer],
        d_head=int(run.attrs["d_head"]),
        biased=bool(_config(run).get("qk_bias") or _config(run).get("qkv_bias")),
    )


def seen(run: StoredRun, prompt: int, restart: int, layer: int) -> NDArray[np.floating]:
    """Return what attention sees, without the weight of the norm: (iteration, token, d_model).

    That weight is counted to those of queries and keys.
    """
    tokens, kind = run.token_range(prompt), input_of(run, layer)
    if kind == "resid_pre":
        stream = run.site("resid_pre", restart=restart, tokens=tokens, layer=layer).values
    elif kind == "layer before":
        stream = run.site("resid_post", restart=restart, tokens=tokens, layer=layer - 1).values
    else:
        stream = run.state(restart=restart, tokens=tokens).values[:, :-1]
        if kind == "state + injected":
            injected = run.injected(tokens).values[:, None]
            first = 0 if _config(run).get("first_injection", True) else 1
            stream = stream.copy()
            stream[:, first:] += injected
    stream = np.swapaxes(stream, 0, 1).astype(np.float64)
    config = _config(run)
    if config["norm"] == "post":
        return stream
    return stream / np.sqrt((stream**2).mean(-1, keepdims=True) + config["norm_eps"])


def _config(run: StoredRun) -> dict[str, Any]:
    return dict(run.model.get("config", {}))


def _dataset(
    run: StoredRun, prompts: list[int], whole: dict[str, np.ndarray], kappa: np.ndarray
) -> xr.Dataset:
    by_layer = ("prompt", "restart", "layer", "iteration")
    by_head = (*by_layer, "head")
    tokens = run.prompts["length"].values[prompts]
    rounding = rounding_of_attention(run) * np.sqrt(tokens)
    data = {
        "measured": labelled(
            by_head, whole["measured"], "Frobenius norm of the change of the attention map"
        ),
        "bound": labelled(
            by_head, whole["bound"], "what that cannot exceed, from the change of the input"
        ),
        "slack": labelled(by_head, whole["slack"], "bound over measured change"),
        "input_step": labelled(
            by_layer, whole["input_step"], "Frobenius norm of the change of the input of attention"
        ),
        "input_norm": labelled(
            by_layer, whole["input_norm"], "larger Frobenius norm of the two inputs"
        ),
        "kappa": labelled(
            ("layer", "head"), kappa, "product of the spectral norms of query and key weights"
        ),
        "rounding": labelled(
            ("prompt",), rounding, "change of a map that rounding alone may show, Frobenius norm"
        ),
    }
    names = coordinates(run, "restart", "layer", "iteration", first_iteration=2)
    heads = np.arange(kappa.shape[-1])
    return xr.Dataset(data, coords={"prompt": prompts, **names, "head": heads})


def summarize(dataset: xr.Dataset, run: StoredRun) -> Summary:
    """How the two sides compare, where the change of attention is more than rounding.

    ``least_slack`` and ``median_slack`` over heads, layers, iterations, prompts and restarts;
    ``violated_share``: of changes beyond rounding that exceed the bound. Anything but 0 is a fault
    of the recording. ``layers_bounded``: layers whose input is known.
    """
    measured, bound = dataset["measured"], dataset["bound"]
    signal = (measured > dataset["rounding"]).values & np.isfinite(bound.values)
    slack = dataset["slack"].values[signal]
    beyond = (measured - dataset["rounding"] > bound).values[signal]
    bounded = np.isfinite(bound.values).any((0, 1, 3, 4))
    return {
        "least_slack": over_known(np.min, slack),
        "median_slack": over_known(np.median, slack),
        "violated_share": float(beyond.mean()) if beyond.size else float("nan"),
        "layers_bounded": int(bounded.sum()),
    }


ANALYZER = Analyzer(
    name="attention_bound",
    version=1,
    title="Bound on the change of attention",
    needs=needs,
    build=build,
    summarize=summarize,
    standard=False,  # reads all attention patterns and their states again
)
