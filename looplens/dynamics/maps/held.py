"""One token of a native model's step, the other tokens of its prompt held still.

What stands still is computed once: the keys and values of the context in every layer of the core.
A key before a token depends on nothing that comes after it, so moving the token changes none of
those that it sees. From then on only the token itself runs, whatever the length of the prompt.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from looplens.dynamics.maps.loop_step import LoopStep
from looplens.models.attention import Attention
from looplens.models.layers import Block
from looplens.models.native import NativeLoop
from looplens.models.norms import at_least_float32


class Held:
    """The keys and values of contexts, and the step of tokens that look at them.

    Parameters
    ----------
    step : LoopStep
        The step of the sequence, of a native model, without hooks.
    contexts : Float[Tensor, "context pos d_model"]
        Where the others are held.

    Attributes
    ----------
    keys, values : list of Float[Tensor, "context kv_head pos d_head"]
        Of every layer of the core, keys rotated.
    """

    def __init__(self, step: LoopStep, contexts: Float[Tensor, "context pos d_model"]) -> None:
        assert isinstance(step.looped, NativeLoop)
        self.step, self.model = step, step.looped.model
        self.blocks: list[Block] = list(self.model.core)  # type: ignore[arg-type]
        kept = [_Kept() for _ in self.blocks]
        with torch.no_grad(), step.clock(), ExitStack() as stack:
            for block, keeper in zip(self.blocks, kept, strict=True):
                stack.enter_context(_attribute(block.attn, "cache", keeper))
            step(contexts)
        self.keys: list[Tensor] = [keeper.k for keeper in kept]
        self.values: list[Tensor] = [keeper.v for keeper in kept]

    @staticmethod
    def serves(step: LoopStep) -> bool:
        """Return whether tokens can be run by themselves: a hook may look at the others."""
        if step.hooks or not isinstance(step.looped, NativeLoop):
            return False
        parts = step.looped.model.modules()  # hook points are among them
        return not any(part._forward_hooks or part._forward_pre_hooks for part in parts)

    def seen_by(
        self, positions: Int[Tensor, " row"], contexts: Int[Tensor, " row"]
    ) -> Sequence[Seen]:
        """Return what tokens see in every layer, each in one of the contexts."""
        last = int(positions.max())  # nothing from here on is seen by any
        before = torch.arange(last, device=positions.device) < positions[:, None]
        return [
            Seen(_of_rows(k[:, :, :last], contexts), _of_rows(v[:, :, :last], contexts), before)
            for k, v in zip(self.keys, self.values, strict=True)
        ]

    def move(
        self,
        tokens: Float[Tensor, "row d_model"],
        positions: Int[Tensor, " row"],
        seen: Sequence[Seen],
    ) -> Float[Tensor, "row d_model"]:
        """Take every token one iteration further; each row is a batch of one position."""
        model, step = self.model, self.step
        assert step.injected is not None
        rotation = model.rotary.at(positions[:, None], tokens.device)
        ids = step.ids[0, positions][:, None]
        with step.clock(), ExitStack() as stack:
            x = model.inject(tokens[:, None], step.injected[0, positions][:, None])
            for layer, (block, others) in enumerate(zip(self.blocks, seen, strict=True)):
                stack.enter_context(_attribute(block.attn, "held", others))
                number = str(model.cfg.n_prelude + layer)
                is_valued = int(number) in model.cfg.value_embeddings
                values = model.value_embeddings[number](ids) if is_valued else None
                x = block(x, rotation, values=values)
            return model.close(x)[:, 0]


class Seen:
    """What the tokens of one layer see of the others.

    Parameters
    ----------
    keys, values : Float[Tensor, "row kv_head pos d_head"]
        Of the context; a single row is that of all tokens.
    before : Bool[Tensor, "row pos"]
        Which of them a token sees.
    """

    def __init__(
        self,
        keys: Float[Tensor, "row kv_head pos d_head"],
        values: Float[Tensor, "row kv_head pos d_head"],
        before: Bool[Tensor, "row pos"],
    ) -> None:
        self.keys, self.values = keys, values
        self.hidden = ~before[:, None, None]  # row, kv_head, group, pos

    def attend(self, attention: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attend to those before the token, and to itself; see the protocol in the model."""
        rows, heads, _, width = q.shape
        grouped = q.reshape(rows, k.shape[1], -1, width)  # row, kv_head, group, d_head
        own = (grouped * k).sum(-1, keepdim=True)
        others = _product(grouped, self.keys.mT).masked_fill(self.hidden, float("-inf"))
        scores = torch.cat((others, own), dim=-1) / width**0.5
        pattern = at_least_float32(scores).softmax(-1).to(v.dtype)
        z = _product(pattern[..., :-1], self.values) + pattern[..., -1:] * v
        return z.reshape(rows, heads, 1, width)


class _Kept:
    """A key/value cache that only looks at what passes."""

    k: Tensor
    v: Tensor

    def extend(self, attention: Attention, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Keep keys and values, and hand them on as they are."""
        self.k, self.v = k, v
        return k, v


def _of_rows(values: Tensor, contexts: Int[Tensor, " row"]) -> Tensor:
    return values if len(values) == 1 else values[contexts]


def _product(a: Float[Tensor, "row kv group m"], b: Float[Tensor, "one kv m n"]) -> Tensor:
    """Multiply; where all rows share b, as one product a head instead of one a row and head."""
    if len(b) > 1 or len(a) == 1:
        return a @ b
    rows, heads, group, m = a.shape
    together = a.transpose(0, 1).reshape(heads, rows * group, m) @ b[0]
    return together.reshape(heads, rows, group, -1).transpose(0, 1)


@contextmanager
def _attribute(owner: Attention, name: str, value: object) -> Iterator[None]:
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)
