"""What is patched where, from which clean values, and how the answer is judged."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from looplens.dynamics.maps.loop_step import LoopStep
from looplens.dynamics.maps.recorded import Recorded
from looplens.dynamics.pushing.reading import logits_at
from looplens.dynamics.pushing.variants import Loop, Variant
from looplens.errors import InputError
from looplens.models import LoopCache
from looplens.models.protocol import core_hook_name
from looplens.recording.changing.donors import DonorLike
from looplens.recording.changing.interventions import Intervention
from looplens.recording.streaming.readout import divergence

MODES = ("once", "held")


class Grid:
    """Layers and passes that are patched, and where clean values come from."""

    def __init__(
        self,
        clean: Recorded,
        bad: Recorded,
        site: str,
        layers: Sequence[int] | None,
        patched: Sequence[int] | None,
        last: int,
    ) -> None:
        self.clean, self.site, self.last = clean, site, last
        count = clean.step.looped.n_layers
        self.layers = list(range(count)) if layers is None else [int(layer) for layer in layers]
        if not self.layers or not all(0 <= layer < count for layer in self.layers):
            raise InputError(f"layers={layers!r}, but the loop has the layers 0 to {count - 1}")
        starts = (clean.iterations[0], bad.iterations[0])
        first = max(Loop(bad.step).first, max(starts) + 1)
        can = range(first, last + 1)
        if patched is None:
            # Densest at both ends, where what a patch does changes from pass to pass.
            powers = [0, *(2**i - 1 for i in range(1, len(can).bit_length()))]
            ends = {min(p, len(can) - 1) for p in powers if p <= len(can) // 2}
            self.patched = sorted({can[p] for p in ends} | {can[-1 - p] for p in ends})
        else:
            self.patched = sorted({int(t) for t in patched})
        outside = [t for t in self.patched if t not in can]
        if outside or not self.patched:
            raise InputError(
                f"patched={patched!r}: the passes that can be patched are {first} to {last}"
            )

    def donor(self) -> tuple[DonorLike, dict[str, Any]]:
        """Return the clean values, and how to choose among them."""
        run = self.clean.run
        if run is not None and self.site in run.site_names and _keeps_all(run, self.layers):
            return run, {"prompt": self.clean.prompt, "restart": self.clean.restart}
        cache, loop, begin = LoopCache(), Loop(self.clean.step), self.patched[0] - 1
        start = loop.reached(self.clean, begin)
        names = [core_hook_name(self.site, layer) for layer in self.layers]

        def keep(value: Tensor, hook: Any) -> None:
            cache.keep(hook.name, loop.clock.iteration, value.clone())

        loop.step = self.clean.step.with_hooks([(name, keep) for name in names])
        for _ in loop.passes(start[None], begin, self.last):
            pass
        return cache, {}

    def variants(
        self, where: Sequence[Any], donor: DonorLike, chosen: dict[str, Any]
    ) -> list[tuple[int, Variant]]:
        """Return first pass and patch of every cell, tokens outermost."""
        return [
            (
                t,
                (
                    Intervention.clamp(
                        f"{core_hook_name(self.site, layer)}@{t}{':' if mode == 'held' else ''}",
                        donor,
                        tokens=tokens,
                        donor_tokens=tokens,
                        **chosen,
                    ),
                ),
            )
            for tokens in where
            for mode in MODES
            for layer in self.layers
            for t in self.patched
        ]


def _keeps_all(run: Any, layers: Sequence[int]) -> bool:
    """Whether a run holds whole activations of these layers at every pass."""
    everything = list(run.kept_iterations) == list(range(1, run.iterations + 1))
    return everything and not run.is_reduced and set(layers) <= set(run.recorded_layers)


class Judge:
    """The readout at the answer, against that of the clean and of the corrupt prompt."""

    def __init__(
        self,
        clean: Recorded,
        bad: Recorded,
        position: int,
        last: int,
        answers: tuple[int, int] | None,
    ) -> None:
        self.step, self.position, self.last = bad.step, position, last
        good = self._logits(clean.at(last)[None], clean.step)[0]
        poor = self._logits(bad.at(last)[None], bad.step)[0]
        self.right, self.wrong = answers or (int(good.argmax()), int(poor.argmax()))
        if not all(0 <= token < good.shape[-1] for token in (self.right, self.wrong)):
            raise InputError(f"answers={answers}: token ids lie between 0 and {good.shape[-1] - 1}")
        self.clean = good.log_softmax(-1)
        self.clean_difference = float(good[self.right] - good[self.wrong])
        self.corrupt_kl, self.corrupt_difference = self(bad.at(last)[None])[0]

    def _logits(self, states: Tensor, step: LoopStep) -> Tensor:
        where = torch.full((len(states), 1), self.position, device=states.device)
        return logits_at(step, states, where, self.last, self.last)[:, 0]

    def __call__(self, states: Tensor) -> np.ndarray:
        """Return KL and difference of logits of every row."""
        logits = self._logits(states, self.step)
        kl = divergence(self.clean, logits.log_softmax(-1))
        difference = logits[:, self.right] - logits[:, self.wrong]
        return torch.stack([kl, difference], dim=-1).cpu().numpy()
