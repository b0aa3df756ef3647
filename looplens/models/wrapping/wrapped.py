"""A looped module that we did not write, as recording sees it.

Its passes are told from the number of firings: the declaration says how often each module fires, so
the n-th firing has a known place. At the end of every run the counts are compared with the
declaration. What runs the module is :mod:`looplens.models.wrapping.forward`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from looplens.errors import InputError
from looplens.loops.spec import LoopSpec
from looplens.models.inputs import check_iterations
from looplens.models.protocol import STATE, Listener, Site, StartLike, core_hook_name
from looplens.models.wrapping.forward import Forward, evaluating, own_start
from looplens.models.wrapping.hooks import AddressedHooks
from looplens.models.wrapping.sizes import Sizes
from looplens.models.wrapping.starts import OwnStart, make_start, parse_start
from looplens.models.wrapping.taps import submodule, through


class WrappedModel(AddressedHooks):
    """Any module with a declared loop; made by :func:`looplens.wrap`.

    Fulfils :class:`looplens.models.protocol.LoopedModel`, so :func:`looplens.trace` and
    :func:`looplens.record` take it like a model of our own.

    Parameters
    ----------
    module : nn.Module
        The module.
    spec : LoopSpec
        Where it loops.
    sizes : Sizes
        What is known of its shape; ``d_model`` may be learned later.
    name : str
        What it is called in runs and reports.
    tokenizer : optional
        With ``encode``, ``token_text`` and ``d_vocab``.
    """

    injects = False

    def __init__(
        self, module: nn.Module, spec: LoopSpec, sizes: Sizes, name: str, tokenizer: Any = None
    ) -> None:
        self.module = module
        self.spec = spec
        self.sizes = sizes
        self.forward = Forward(module, spec, sizes)
        self.schedule = self.forward.schedule
        self.model_name = name
        self.tokenizer = tokenizer
        self.exits_early = spec.exits_early
        self.has_readout = spec.readout is not None
        self.n_layers = len(self.schedule.layers)
        self.recordable: tuple[str, ...] = tuple(self.forward.inside)
        super().__init__(self.recordable, self.n_layers)
        self.forward.clock = self.clock

    def __repr__(self) -> str:
        return (
            f"WrappedModel({self.model_name}: {type(self.module).__name__}, loops "
            f"{self.spec.loop}, iterations are passes of {self.spec.axis!r}, "
            f"{self.n_layers} layers in each)"
        )

    # ------------------------------------------------------------------ what it is

    @property
    def d_model(self) -> int:
        """Width of the state."""
        return self.sizes.d_model or 0

    @property
    def d_vocab(self) -> int:
        """Size of the vocabulary."""
        return self.sizes.d_vocab

    @property
    def n_ctx(self) -> int | None:
        """Longest sequence, where it is known."""
        return self.sizes.n_ctx

    @property
    def n_heads(self) -> int | None:
        """Attention heads, where they are known."""
        return self.sizes.n_heads

    @property
    def n_kv_heads(self) -> int | None:
        """Key/value heads, where they are known."""
        return self.sizes.n_kv_heads

    @property
    def d_head(self) -> int | None:
        """Width of a head, where it is known."""
        return self.sizes.d_head

    @property
    def _weight(self) -> Tensor:
        weights = (w for w in self.module.parameters() if w.is_floating_point())
        return next(weights, torch.empty(0))

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the weights."""
        return self._weight.dtype

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return self._weight.device

    def hook_name(self, site: str, layer: int) -> str:
        """Return the name of a site of a place on the layer axis."""
        return core_hook_name(site, layer)

    def hook_names(self) -> Sequence[str]:
        """Return every name that a site address may mean."""
        return list(self.hook_dict)

    def describe(self) -> dict[str, Any]:
        """Return name, family, source and the module's own configuration."""
        iterations = f"iterations are passes of {self.spec.axis}"
        return {
            "name": self.model_name,
            "family": self.sizes.family,
            "source": f"wrapped {type(self.module).__name__}, loops {self.spec.loop}, {iterations}",
            "config": self.sizes.config,
        }

    def loop_settings(self, iterations: int) -> dict[str, Any]:
        """Return the loops and the coordinates of every iteration and every layer."""
        places = self.schedule.coordinates(iterations)
        on_axis = {path for path, _ in self.schedule.layers}
        loop = {
            "declared": str(self.spec.loop),
            "axis": self.spec.axis,
            "coordinates": {name: [place[name] for place in places] for name in places[0]},
            "layers": [{"module": path, **inside} for path, inside in self.schedule.layers],
            "not_on_axis": [path for path in self.forward.paths if path not in on_axis],
        }
        return {"loop": loop}

    # ------------------------------------------------------------------ what it takes

    def check_iterations(self, iterations: int | None) -> int:
        """Return the number of iterations.

        Raises
        ------
        InputError
            If it is below 1, no whole number of passes of the outermost loop, or another than
            declared where the module's depth cannot be set.
        """
        declared = self.schedule.default_iterations()
        count = check_iterations(declared if iterations is None else iterations)
        self.schedule.outer_count(count)
        if count != declared and not self.can_set_depth:
            raise InputError(
                f"iterations={count}, but the loop is declared with {declared} and there is no way "
                "to set it: declare iterations= or iterations_keyword= in the LoopSpec"
            )
        return count

    @property
    def can_set_depth(self) -> bool:
        """Whether the declaration says how to set the number of passes."""
        return self.spec.iterations is not None or self.spec.iterations_keyword is not None

    def to_tokens(self, tokens: Any) -> Int[Tensor, "batch pos"]:
        """Turn text, a list of ids or a tensor into a batch of token ids on the model's device.

        Raises
        ------
        InputError
            If there is no tokenizer for text, or an id is outside the vocabulary.
        """
        if isinstance(tokens, str):
            if self.tokenizer is None:
                raise InputError("this model has no tokenizer: pass token ids instead of text")
            tokens = self.tokenizer.encode(tokens)
        ids = torch.as_tensor(tokens, device=self.device)
        ids = ids[None] if ids.ndim == 1 else ids
        self.sizes.check_tokens(ids)
        return ids

    def parse_start(self, value: Any, *, seed: int = 0) -> StartLike:
        """Read what the caller says of the initial state; see :func:`parse_start`."""
        return parse_start(value, own_start(self.spec), seed=seed)

    @contextmanager
    def padded(self, attention_mask: Any) -> Iterator[None]:
        """Refuse padding: what foreign code does with it is not known.

        Raises
        ------
        InputError
            If any position is padding.
        """
        if attention_mask is not None and not bool(torch.as_tensor(attention_mask).all()):
            raise InputError(
                "a wrapped model is run without padding: give prompts of one length, or use "
                "looplens.record, which groups prompts by length"
            )
        yield

    # ------------------------------------------------------------------ the run

    def run_loop(
        self,
        ids: Int[Tensor, "batch pos"],
        starts: Sequence[StartLike | Tensor],
        iterations: int,
        listen: Mapping[Site, Listener],
    ) -> int:
        """Run a batch from every start side by side; see the protocol."""
        given = self.given(ids, starts)
        rows = ids.repeat(len(starts), 1)
        return self.forward.run(rows, given, iterations, listen, self.hooked)[0]

    def given(
        self, ids: Int[Tensor, "batch pos"], starts: Sequence[StartLike | Tensor]
    ) -> Tensor | None:
        """Return the states to start from, or None to leave the module alone."""
        if all(isinstance(start, OwnStart) for start in starts):
            return None
        found: list[Tensor] = []

        def own() -> Tensor:
            if not found:
                few = self.schedule.per_outer_pass if self.can_set_depth else None

                def keep_first(iteration: int, state: Tensor) -> None:
                    if iteration == 0:
                        found.append(state.clone())

                self.forward.run(ids, None, self.check_iterations(few), {STATE: keep_first})
            return found[0]

        declared = own_start(self.spec)
        if declared.read is not None and declared.keyword is None:
            raise InputError(
                f"{self.model_name} cannot be started elsewhere: its initial state is declared as "
                "one that can only be read"
            )
        shape = (*ids.shape, self.d_model)
        return torch.cat([make_start(start, shape, own, self._weight) for start in starts])

    # ------------------------------------------------------------------ what it says

    def readout(
        self, state: Float[Tensor, "batch pos d_model"], iteration: int = 1, iterations: int = 1
    ) -> Float[Tensor, "batch pos d_vocab"]:
        """Return the logits of a state; without a readout they have width 0."""
        declared = self.spec.readout
        if declared is None:
            return torch.zeros(*state.shape[:2], 0, device=state.device)
        with evaluating(self.module):
            if callable(declared):
                return declared(self.module, state).float()
            return through(self.module, declared, state).float()

    @property
    def has_gate(self) -> bool:
        """Whether an exit gate is declared."""
        return self.spec.gate is not None

    def gate(self, state: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "batch pos"] | None:
        """Return the exit logit of a state, where a gate is declared."""
        if self.spec.gate is None:
            return None
        return submodule(self.module, self.spec.gate)(state).squeeze(-1).float()

    @torch.no_grad()
    def __call__(
        self,
        tokens: Any,
        iterations: int | None = None,
        initial_state: Any = None,
    ) -> Any:
        """Run the module and return its own output.

        Parameters
        ----------
        tokens : Int[Tensor, "batch pos"], str or sequence of int
            What to run.
        iterations : int, optional
            Passes of the axis; by default as declared.
        initial_state : optional
            ``None`` for the declared start, a seed, a scheme name, or the state itself.
        """
        ids = self.to_tokens(tokens)
        is_given = isinstance(initial_state, Tensor)
        start = initial_state if is_given else self.parse_start(initial_state)
        given = self.given(ids, (start,))
        count = self.check_iterations(iterations)
        return self.forward.run(ids, given, count, {}, self.hooked)[1]
