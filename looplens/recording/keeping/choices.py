"""What the caller asks to be recorded, held against what the model offers.

Everything is checked here, before anything is written. This module knows neither disk nor tensors.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from looplens.errors import InputError, SiteError
from looplens.loops import SiteAddress, match_sites
from looplens.models import InitialState
from looplens.models.inputs import whole_number
from looplens.models.protocol import LoopedModel, StartLike
from looplens.store.format.schema import SITES


def starts_of(
    model: LoopedModel,
    initial_state: str | int | InitialState | None,
    restarts: int,
    seed: int,
) -> tuple[StartLike, ...]:
    """Return one start a restart, each with its own seed.

    Raises
    ------
    InputError
        If several restarts of a fixed start are asked for.
    """
    restarts = whole_number(restarts, "restarts", least=1)
    first = model.parse_start(initial_state, seed=seed)
    if restarts > 1 and not first.is_random:
        raise InputError(
            f"restarts={restarts} needs a random initial state, but {model.model_name} starts from "
            f"its {first.scheme}, which is the same every time. Pass initial_state='perturbed' "
            "(the model's own start plus 10 % noise), 'perturbed:0.3' for more, or 'noise'."
        )
    if not first.is_random:
        return (first,)
    return tuple(
        InitialState(scheme=first.scheme, scale=first.scale, seed=first.seed + r)
        for r in range(restarts)
    )


def site_families(model: LoopedModel, sites: str | Sequence[str]) -> tuple[str, ...]:
    """Return the site families that addresses and short names mean.

    Raises
    ------
    SiteError
        If one is unknown, not offered by this model, or names single layers or passes.
    """
    if sites is None:
        raise SiteError(
            "sites must be site addresses or short names such as 'resid_post', got None"
        )
    listed = [sites] if isinstance(sites, str) else list(sites)
    offered = [site for site in SITES if site in model.recordable]
    family_of = {
        model.hook_name(site, layer): (site, layer)
        for site in offered
        for layer in range(model.n_layers)
    }
    families: dict[str, None] = {}
    for text in listed:
        if text in offered:
            families[text] = None
            continue
        if text in SITES:
            raise SiteError(
                f"{model.model_name} does not offer the site {text!r}; it offers "
                f"{', '.join(offered)}."
            )
        address = SiteAddress.parse(text)
        found = match_sites(address, model.hook_names())
        recordable = [name for name in found if name in family_of]
        if not recordable or address.iterations not in (None, "*"):
            raise SiteError(
                f"sites= names core sites ({', '.join(offered)}) in every iteration; "
                f"{text!r} is none of them. Use keep_iterations= for some of the passes, "
                "attention= for patterns, and model.run_with_cache(names_filter=...) for other "
                "sites."
            )
        for site in {family_of[name][0]: None for name in recordable}:
            present = {layer for name in recordable for f, layer in [family_of[name]] if f == site}
            missing = set(range(model.n_layers)) - present
            if missing:
                chosen = sorted(present)
                raise SiteError(
                    f"sites= names a site of every core layer; {text!r} leaves out layer "
                    f"{min(missing)}. Write 'core.*.{text.split('.', 2)[-1]}', and "
                    f"layers={chosen} to keep those layers of all sites."
                )
            families[site] = None
    return tuple(families)


def readout_size(readout: bool | int, model: LoopedModel) -> int:
    """Return how many of the most probable tokens are kept; 0 where there is no readout.

    Raises
    ------
    InputError
        If a number is asked of a model without a readout, or it is negative.
    """
    if not isinstance(readout, bool):
        readout = whole_number(readout, "readout (or True, False)", least=0)
    if not model.has_readout:
        if readout is True or not readout:
            return 0  # by default, as much as the model has
        raise InputError(
            f"readout={readout} was asked for, but {model.model_name} has no readout: declare "
            "readout= in its LoopSpec, or record without."
        )
    return min(5 if readout is True else int(readout), model.d_vocab)


def has_exit_gate(model: LoopedModel) -> bool:
    """Return whether a model has an exit gate, as :meth:`LoopedModel.gate` would say."""
    # Not in the protocol: models that people wrote for it before have no such attribute.
    return bool(getattr(model, "has_gate", False))


def attention_prompts(
    attention: bool | int | Sequence[int], prompts: int, model: LoopedModel
) -> tuple[int, ...]:
    """Return the prompts whose attention patterns are kept.

    Raises
    ------
    InputError
        If a prompt does not exist.
    SiteError
        If the model offers no patterns.
    """
    if attention is None or isinstance(attention, str):
        raise InputError(
            "attention must be True, False, a number of prompts or their indices, got "
            f"{attention!r}"
        )
    if attention is not False and "pattern" not in model.recordable:
        raise SiteError(
            f"{model.model_name} does not offer attention patterns: declare pattern= in its "
            "LoopSpec, or record with attention=False."
        )
    if isinstance(attention, bool):
        return tuple(range(prompts)) if attention else ()
    if not isinstance(attention, Iterable):
        return tuple(range(min(whole_number(attention, "attention", least=0), prompts)))
    chosen = tuple(sorted({whole_number(index, "a prompt", least=0) for index in attention}))
    outside = [index for index in chosen if not 0 <= index < prompts]
    if outside:
        raise InputError(f"attention names prompt {outside[0]}, but there are {prompts} (from 0)")
    return chosen
