"""Activations of a forward by site and pass, with the habits of TransformerLens' ActivationCache.

``cache["resid_post", 2][7]`` is pass 7 of core layer 2. Shorthand goes through TransformerLens'
own ``get_act_name``, so whatever it understands is understood here. The cache knows no model: it
answers from what was kept.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from transformer_lens.utilities import get_act_name

from looplens.errors import InputError, near_matches
from looplens.models.passes import Passes, described

PARTS = ("prelude", "core", "coda")
_IN_LAYER = re.compile(r"(\w+)\.\d+\.")

Key = str | tuple[Any, ...]


class LoopCache(Mapping[Key, Tensor]):
    """Activations by site and pass.

    =====================================  ===================================================
    ``cache["core.0.hook_resid_post@7"]``  one site in one pass
    ``cache["core.0.hook_resid_post"]``    all passes kept of it: :class:`Passes`, whose
                                           ``[7]`` is pass 7
    ``cache["resid_post", 0]``             the same, in TransformerLens' shorthand
    ``cache["pattern", -1][-1]``           last core layer, last pass
    ``cache["resid_post", 0, "prelude"]``  a layer outside the loop, where it fires once
    =====================================  ===================================================

    Iteration goes over the single activations, ``core.0.hook_resid_post@7``; :attr:`sites` are the
    names without passes.
    """

    def __init__(self) -> None:
        self._kept: dict[str, dict[int | None, Tensor]] = {}
        self.has_batch_dim = True

    def keep(self, site: str, iteration: int | None, value: Tensor) -> None:
        """Store one firing."""
        self._kept.setdefault(site, {})[iteration] = value

    # ------------------------------------------------------------------ what is in it

    @property
    def sites(self) -> list[str]:
        """The hook points of which something was kept."""
        return list(self._kept)

    def iterations(self, key: Key) -> list[int]:
        """Return the passes kept of a site of the loop, in order; none for a site outside."""
        site, _ = self._find(key)
        return sorted(t for t in self._kept[site] if t is not None)

    def layers(self, name: str, part: str | None = None) -> list[int]:
        """Return the layers of which ``name``, e.g. ``"resid_post"``, was kept."""
        part = part or self._looped_part()
        before, _, behind = _site_name(name, "LAYER", None, part).partition("LAYER")
        pattern = re.compile(rf"{re.escape(before)}(\d+){re.escape(behind)}")
        return sorted(int(m[1]) for site in self._kept if (m := pattern.fullmatch(site)))

    def __getitem__(self, key: Key) -> Tensor:
        site, iteration = self._find(key)
        firings = self._kept[site]
        if iteration is not None:
            return firings[self._pass(site, iteration)]
        if None in firings:
            return firings[None]
        passes = self.iterations(site)
        if len(shapes := {tuple(value.shape) for value in firings.values()}) > 1:
            raise InputError(
                f"the passes of {site!r} have different shapes, {' and '.join(map(str, shapes))}, "
                f"and cannot be stacked: take them one by one, as {site}@{passes[0]}"
            )
        return Passes(torch.stack([firings[t] for t in passes]), passes)

    def __contains__(self, key: object) -> bool:
        try:
            site, iteration = self._find(key)  # type: ignore[arg-type]
            if iteration is not None:
                self._pass(site, iteration)
        except KeyError:
            return False
        return True

    def __iter__(self) -> Iterator[str]:
        for site, firings in self._kept.items():
            for iteration in firings:
                yield site if iteration is None else f"{site}@{iteration}"

    def __len__(self) -> int:
        return sum(map(len, self._kept.values()))

    def __repr__(self) -> str:
        return f"LoopCache({len(self._kept)} sites, {len(self)} activations)"

    # ------------------------------------------------------------------ the whole loop at once

    def stack(self, name: str, part: str | None = None) -> Tensor:
        """Stack a site over layers, and inside the loop over passes.

        Parameters
        ----------
        name : str
            As in TransformerLens: ``"resid_post"``, ``"pattern"``, ``"q"``.
        part : {"core", "prelude", "coda"}, optional
            Which layers; by default the looped ones.

        Returns
        -------
        Passes or Tensor
            [iteration, layer, batch, pos, d_model] in the loop, indexed by pass;
            [layer, batch, pos, d_model] outside. Other sites end as they do alone.

        Raises
        ------
        KeyError
            If nothing of that name was kept.
        InputError
            If a layer is missing, or layers were kept in different passes.
        """
        part = part or self._looped_part()
        layers = self.layers(name, part)
        values = [self[name, layer, part] for layer in layers or [0]]
        if layers != list(range(len(layers))):
            raise InputError(
                f"{name!r} was kept of the layers {layers} of the {part} only: keep every layer "
                "to stack them"
            )
        passes = {tuple(getattr(value, "iterations", ())) for value in values}
        if len(passes) > 1:
            kept = "; ".join(described(numbers) for numbers in sorted(passes))
            raise InputError(f"the layers of {name!r} were kept in different passes: {kept}")
        (numbers,) = passes
        if not numbers:
            return torch.stack(values)
        return Passes(torch.stack(values, dim=1), numbers)

    def virtual_depth(
        self, name: str = "resid_post"
    ) -> tuple[Float[Tensor, "virtual_depth batch pos d_model"], list[str]]:
        """Lay the loop out as one deep stack of layers.

        Parameters
        ----------
        name : str
            As in TransformerLens.

        Returns
        -------
        stacked : Float[Tensor, "virtual_depth batch pos d_model"]
            Row ``v = k * (iteration - 1) + layer`` with ``k`` core layers.
        labels : list of str
            The address of each row.

        Raises
        ------
        KeyError, InputError
            As :meth:`stack`, and if passes are missing.
        """
        stacked = self.stack(name)
        numbers = getattr(stacked, "iterations", ())
        if list(numbers) != list(range(1, len(numbers) + 1)):
            raise InputError(
                f"virtual depth needs every pass from the first, but {name!r} was kept in "
                f"{described(numbers)}"
            )
        layers = self.layers(name)
        part = self._looped_part()
        labels = [f"{_site_name(name, x, None, part)}@{t}" for t in numbers for x in layers]
        return stacked.flatten(0, 1), labels

    def accumulated_resid(
        self, incl_mid: bool = False, return_labels: bool = False
    ) -> Tensor | tuple[Tensor, list[str]]:
        """Return the residual stream at every virtual depth, as TransformerLens does for layers.

        Parameters
        ----------
        incl_mid : bool
            The stream between attention and MLP too.
        return_labels : bool
            Return TransformerLens' labels too: ``0_pre``, ``0_mid``, ..., ``final_post``, counted
            by virtual depth.

        Returns
        -------
        stream : Float[Tensor, "component batch pos d_model"]
            What enters each layer in each pass, and at last what leaves the last one.
        labels : list of str
            Only where asked for.

        Raises
        ------
        KeyError, InputError
            As :meth:`virtual_depth`.
        """
        names = ["resid_pre", "resid_mid"] if incl_mid else ["resid_pre"]
        columns = [self.virtual_depth(name)[0] for name in names]
        stream = torch.stack(columns, dim=1).flatten(0, 1)
        last = self.virtual_depth("resid_post")[0][-1:]
        depth = range(len(columns[0]))
        labels = [f"{v}_{name.removeprefix('resid_')}" for v in depth for name in names]
        stream = torch.cat((stream, last))
        return (stream, [*labels, "final_post"]) if return_labels else stream

    # ------------------------------------------------------------------ changes in place

    def to(self, device: str | torch.device) -> LoopCache:
        """Move every activation to a device; returns the cache itself."""
        return self._map(lambda value: value.to(device))

    def remove_batch_dim(self) -> LoopCache:
        """Drop the batch axis of a single sequence; returns the cache itself.

        Raises
        ------
        InputError
            If the batch holds more than one sequence.
        """
        if not self.has_batch_dim:
            return self
        sizes = {len(value) for firings in self._kept.values() for value in firings.values()}
        if sizes - {1}:
            raise InputError(
                f"remove_batch_dim needs a batch of one sequence, but this one has {max(sizes)}"
            )
        self.has_batch_dim = False
        return self._map(lambda value: value[0])

    def _map(self, function: Callable[[Tensor], Tensor]) -> LoopCache:
        for firings in self._kept.values():
            for iteration, value in firings.items():
                firings[iteration] = function(value)
        return self

    # ------------------------------------------------------------------ names

    def _find(self, key: Key) -> tuple[str, str | None]:
        """Return the site that a key means, and the pass as written behind its ``@``."""
        parts: Any = (key,) if isinstance(key, str) else key
        if (
            not isinstance(parts, tuple)
            or not 1 <= len(parts) <= 3
            or not isinstance(parts[0], str)
        ):
            raise KeyError(
                f"expected a site, such as 'core.0.hook_resid_post@7', or TransformerLens' "
                f"('resid_post', layer), got {key!r}"
            )
        name, at, iteration = parts[0].partition("@")
        site = name if len(parts) == 1 and name in self._kept else self._name(name, *parts[1:])
        if site not in self._kept:
            what = f"{site!r}" if site == key else f"{key!r} (that is {site!r})"
            raise KeyError(f"{what} is not in the cache.{near_matches(site, self._kept)}")
        return site, iteration if at else None

    def _name(self, name: str, layer: Any = None, where: str | None = None) -> str:
        is_part = where in PARTS or where in self._parts()
        part = where if is_part and where else self._looped_part()
        if isinstance(layer, int) and layer < 0:
            known = self.layers(name, part)
            layer = layer + known[-1] + 1 if known else layer
        return _site_name(name, layer, None if is_part else where, part)

    def _parts(self) -> set[str]:
        return {match[1] for site in self._kept if (match := _IN_LAYER.match(site))}

    def _looped_part(self) -> str:
        """Return the core, or in a model without one its only stack of layers."""
        others = self._parts() - {*PARTS}
        return others.pop() if len(others) == 1 and len(self._parts()) == 1 else "core"

    def _pass(self, site: str, iteration: str) -> int:
        passes = self.iterations(site)
        try:
            number = int(iteration)
        except ValueError:
            number = 0
        if number < 0 and -number <= len(passes):
            number = passes[number]
        if number not in passes:
            kept = described(passes) if passes else "none: it is outside the loop"
            raise KeyError(f"pass {iteration!r} of {site!r} (kept: {kept})")
        return number


def _site_name(name: str, layer: Any, layer_type: str | None, part: str) -> str:
    """Return a hook name, with TransformerLens' ``blocks`` under the name of our part."""
    return re.sub(r"^blocks\.", f"{part}.", get_act_name(name, layer, layer_type))
