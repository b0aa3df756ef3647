"""What recording needs of a looped model, whoever wrote its loop.

Two classes fulfil it: :class:`looplens.models.native.NativeLoop` around our own transformer, whose
loop sets a clock, and :class:`looplens.models.wrapping.WrappedModel` around anybody's module,
whose passes are told from the number of firings. Recording knows no other difference.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor


class Site(NamedTuple):
    """What can be listened to in a loop.

    ``state`` fires with iteration 0 (the initial state) to T, ``injected`` once with iteration 0;
    the sites of a layer (``resid_post``, ..., and ``pattern``) with 1 to T.
    """

    name: str
    layer: int | None = None


STATE = Site("state")
INJECTED = Site("injected")
Listener = Callable[[int, Tensor], None]  # (iteration, value); the value may change afterwards


_IN_ATTENTION = frozenset({"q", "k", "v", "z", "pattern"})


def core_hook_name(site: str, layer: int) -> str:
    """Return the hook point of a site of a place on the layer axis."""
    return f"core.{layer}.{'attn.' if site in _IN_ATTENTION else ''}hook_{site}"


class StartLike(Protocol):
    """How a loop is started: :class:`looplens.models.InitialState` or the module's own way."""

    @property
    def scheme(self) -> str: ...  # noqa: D102
    @property
    def scale(self) -> float: ...  # noqa: D102
    @property
    def seed(self) -> int: ...  # noqa: D102

    @property
    def is_random(self) -> bool:
        """Whether another seed gives another state."""
        ...


class TokenTexts(Protocol):
    """What recording needs of a tokenizer."""

    @property
    def d_vocab(self) -> int:
        """Size of the vocabulary."""
        ...

    def token_text(self, token_id: int) -> str:
        """Return the text of one token."""
        ...


@runtime_checkable
class LoopedModel(Protocol):
    """A looped model as recording sees it. Sizes that a model does not have are ``None``."""

    @property
    def model_name(self) -> str: ...  # noqa: D102
    @property
    def tokenizer(self) -> TokenTexts | None: ...  # noqa: D102
    @property
    def dtype(self) -> torch.dtype: ...  # noqa: D102
    @property
    def device(self) -> torch.device: ...  # noqa: D102
    @property
    def d_vocab(self) -> int: ...  # noqa: D102
    @property
    def d_model(self) -> int: ...  # noqa: D102
    @property
    def n_ctx(self) -> int | None: ...  # noqa: D102
    @property
    def n_layers(self) -> int: ...  # noqa: D102
    @property
    def n_heads(self) -> int | None: ...  # noqa: D102
    @property
    def n_kv_heads(self) -> int | None: ...  # noqa: D102
    @property
    def d_head(self) -> int | None: ...  # noqa: D102

    @property
    def injects(self) -> bool:
        """Whether a tensor is fed to every iteration."""
        ...

    @property
    def has_readout(self) -> bool:
        """Whether the state can be turned into logits."""
        ...

    @property
    def exits_early(self) -> bool:
        """Whether the model may leave the loop by itself."""
        ...

    @property
    def recordable(self) -> tuple[str, ...]:
        """Site families that every layer of the loop has."""
        ...

    def hook_name(self, site: str, layer: int) -> str:
        """Return the hook point of a site of a layer."""
        ...

    def hook_names(self) -> Sequence[str]:
        """Return every name that a site address may mean."""
        ...

    def check_iterations(self, iterations: int | None) -> int:
        """Return the number of passes, the default for ``None``; InputError where impossible."""
        ...

    def to_tokens(self, tokens: Any) -> Int[Tensor, "batch pos"]:
        """Turn text or ids into a batch of token ids on the model's device."""
        ...

    def parse_start(self, value: Any, *, seed: int = 0) -> StartLike:
        """Read what the caller says of the initial state."""
        ...

    def describe(self) -> dict[str, Any]:
        """Return name, family, source and configuration, as JSON values."""
        ...

    def loop_settings(self, iterations: int) -> dict[str, Any]:
        """Return what a run must say of its loop, such as a table of coordinates."""
        ...

    def padded(self, attention_mask: Tensor | None) -> AbstractContextManager[None]:
        """Say which positions are padding, for a ``with`` block; InputError where impossible."""
        ...

    def run_loop(
        self,
        ids: Int[Tensor, "batch pos"],
        starts: Sequence[StartLike | Tensor],
        iterations: int,
        listen: Mapping[Site, Listener],
    ) -> int:
        """Run a batch from every start side by side, and report what was asked for.

        Values have ``len(starts) * batch`` rows, those of the first start first; ``injected`` has
        ``batch``.

        Returns
        -------
        int
            Iterations that ran: fewer than asked only where ``exits_early``.

        Raises
        ------
        SiteError
            If the loop did not fire as it declares.
        """
        ...

    def readout(
        self, state: Float[Tensor, "batch pos d_model"], iteration: int, iterations: int
    ) -> Float[Tensor, "batch pos d_vocab"]:
        """Return the logits of the state after ``iteration`` of ``iterations``, in float32."""
        ...

    def gate(self, state: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "batch pos"] | None:
        """Return the exit logit of a state, or None for a model without an exit gate."""
        ...
