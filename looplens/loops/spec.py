"""How the loop of a model that we did not write is declared: names, counts, places.

A :class:`LoopSpec` says where in a module the loop runs and where its state can be seen. It names
places by module path and knows no tensors; :mod:`looplens.models.wrapping` listens there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from looplens.errors import InputError, near_matches

OWN_START = "own"
START_SCHEMES = (OWN_START, "noise", "zeros")
DECLARABLE_SITES = ("resid_mid", "attn_out", "mlp_out", "q", "k", "v", "z")


@dataclass(frozen=True, slots=True)
class Loop:
    """One loop, perhaps with another inside: ``Loop("h", 2, inner=Loop("l", 3))``.

    Parameters
    ----------
    name : str
        What its passes are called in coordinates.
    count : int
        Passes; for an inner loop, in each pass of the loop around it.
    inner : Loop, optional
        The loop that runs inside each pass.

    Raises
    ------
    InputError
        If the count is below 1 or two loops share a name.
    """

    name: str
    count: int
    inner: Loop | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name.isidentifier():
            raise InputError(f"a loop needs a name like a Python variable, got {self.name!r}")
        if not isinstance(self.count, int) or isinstance(self.count, bool) or self.count < 1:
            raise InputError(
                f"loop {self.name!r} must run at least once: its count must be an integer of at "
                f"least 1, got {self.count!r}"
            )
        names = self.names
        if len(set(names)) != len(names):
            raise InputError(f"nested loops must have different names, got {', '.join(names)}")

    def __iter__(self) -> Iterator[Loop]:
        """Go through the loops from the outermost inwards."""
        loop: Loop | None = self
        while loop is not None:
            yield loop
            loop = loop.inner

    @property
    def names(self) -> tuple[str, ...]:
        """Names from the outermost loop inwards."""
        return tuple(loop.name for loop in self)

    def __str__(self) -> str:
        return " x ".join(f"{loop.name} {loop.count}" for loop in self)


@dataclass(frozen=True, slots=True)
class Tap:
    """A place where a tensor can be seen: what goes into a module, or what comes out of it.

    Parameters
    ----------
    module : str
        Path as in ``named_modules()``; where it is relative (sites of a layer) it may be empty,
        for the layer itself.
    side : {"output", "input"}
        Which of the two.
    item : int or str, optional
        Which of several outputs or arguments: a place, or a keyword or field name. By default the
        first tensor, wherever it is.
    """

    module: str = ""
    side: Literal["output", "input"] = "output"
    item: int | str | None = None

    def __post_init__(self) -> None:
        if self.side not in ("output", "input"):
            raise InputError(f"the side of a tap must be 'output' or 'input', got {self.side!r}")

    def under(self, layer: str) -> Tap:
        """Return this tap with its path taken from ``layer`` on."""
        module = f"{layer}.{self.module}" if self.module else layer
        return Tap(module, self.side, self.item)

    def __str__(self) -> str:
        item = "" if self.item is None else f"[{self.item!r}]"
        return f"{self.side} of {self.module or 'the layer'}{item}"


@dataclass(frozen=True, slots=True)
class Start:
    """Where the loop state begins, and how to begin it elsewhere.

    Parameters
    ----------
    at : Tap, optional
        Where the first state is first seen. Another state is given by replacing it there.
    scale : float
        The state is this times what is seen at ``at``.
    read : callable, optional
        ``function(module, seen)`` that gives the state instead, for a start that passes through
        no module. Such a start can be seen but not replaced.
    keyword : str, optional
        Argument of the call that takes the initial state; preferred to replacing it at ``at``.
    scheme : {"own", "noise", "zeros"}
        What looplens starts from unless told otherwise. ``own`` leaves the module's own start
        alone. A module that draws its own noise should be given ``noise``, which is seeded.
    std : float
        Standard deviation of ``noise``.
    """

    at: Tap | None = None
    scale: float = 1.0
    read: Callable[[Any, Any], Any] | None = None
    keyword: str | None = None
    scheme: str = OWN_START
    std: float = 1.0

    def __post_init__(self) -> None:
        if self.scheme not in START_SCHEMES:
            raise InputError(
                f"the scheme of a start must be one of {', '.join(START_SCHEMES)}, "
                f"got {self.scheme!r}." + near_matches(str(self.scheme), START_SCHEMES)
            )
        if not self.scale or not self.std > 0:
            raise InputError(
                f"a start needs a scale other than 0 and a positive std, got {self.scale} and "
                f"{self.std}"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class LoopSpec:
    """Where a module loops, for :func:`looplens.wrap`.

    Parameters
    ----------
    loop : Loop
        The declared loops, outermost first.
    layers : sequence of str, or mapping of str to sequence of str
        Module paths of the looped layers in the order in which they run; with several loops, by the
        name of the loop that runs them. Layers of an outer loop run after its inner loop. A
        module that several loops run (one network for two states) is listed under each.
    axis : str, optional
        The loop whose passes are the iterations of a run; by default the outermost, so that every
        layer fires in every iteration and the firings of inner loops lie along the layer axis.
        With the innermost, iterations enumerate the passes of all loops in time order.
    state : Tap or str, or mapping of these, optional
        Where the state can be seen after each pass: by default the output of the last layer that
        a pass of the axis runs. A mapping gives one a loop, for models with several states; a
        module that makes several of them is named for each.
    start : Start, Tap or str, optional
        Where the state begins: by default the first input of the first layer that runs.
    iterations : str or callable, optional
        How to set the count of the outermost loop: the path of an attribute
        (``"config.num_hidden_layers"``) that is set for the run and restored, or
        ``function(module, count)``. Without this and ``iterations_keyword`` the count is fixed.
    iterations_keyword : str, optional
        Argument of the call that takes that count.
    readout : str, sequence of str or callable, optional
        What turns a state into logits: module paths, applied one after the other, or
        ``function(module, state)``. Must give the module's own logits for the last state.
    gate : str, optional
        Module that gives an exit logit for a state.
    sites : mapping of str to Tap or str
        Recordable sites relative to each layer, besides ``resid_pre`` and ``resid_post``, its
        first input and output: for example ``{"mlp_out": "mlp"}``.
    pattern : Tap or str, optional
        Attention pattern (batch, head, query, key) relative to each layer.
    call : callable, optional
        ``function(module, token_ids, **keywords)`` that runs the module; by default the module is
        called with the token ids.
    keywords : mapping
        Further arguments of every call, for example ``{"use_cache": False}``.
    step : callable, optional
        ``function(module, state, token_ids)`` that returns the state one iteration of the axis
        later, (batch, pos, d_model) to the same, differentiable, for :mod:`looplens.dynamics`.
        Only needed where a run of a single pass does not give it; the module is set to the depth
        of the recording while it runs.
    exits_early : bool
        The module may leave the outermost loop by itself. It is then run one prompt at a time
        and recorded with the iterations that really ran.

    Raises
    ------
    InputError
        If a name is unknown, or a declaration contradicts another.
    """

    loop: Loop
    layers: Sequence[str] | Mapping[str, Sequence[str]]
    axis: str = ""
    state: Tap | str | Mapping[str, Tap | str] | None = None
    start: Start | Tap | str | None = None
    iterations: str | Callable[[Any, int], Any] | None = None
    iterations_keyword: str | None = None
    readout: str | Sequence[str] | Callable[[Any, Any], Any] | None = None
    gate: str | None = None
    sites: Mapping[str, Tap | str] = field(default_factory=dict)
    pattern: Tap | str | None = None
    call: Callable[..., Any] | None = None
    keywords: Mapping[str, Any] = field(default_factory=dict)
    step: Callable[[Any, Any, Any], Any] | None = None
    exits_early: bool = False

    def __post_init__(self) -> None:
        names = self.loop.names
        if not self.axis:
            object.__setattr__(self, "axis", names[0])
        layers = self.layers
        if isinstance(layers, str):
            layers = (layers,)
        if not isinstance(layers, Mapping):
            layers = {names[-1]: layers}
        layers = {name: tuple(paths) for name, paths in layers.items()}
        state = self.state if isinstance(self.state, Mapping) else {self.axis: self.state}
        for what, used in (("axis", (self.axis,)), ("layers", layers), ("state", state)):
            for name in used:
                if name not in names:
                    raise InputError(
                        f"{what} names the loop {name!r}, but the declared loops are "
                        f"{', '.join(names)}." + near_matches(str(name), names)
                    )
        if not any(layers.values()):
            raise InputError("a loop needs at least one layer: name the modules that it runs")
        inner = names[names.index(self.axis) :]
        if not any(layers.get(name) for name in inner):
            raise InputError(
                f"no layer is declared for the loop {self.axis!r} or inside it, so its iterations "
                "would hold no layer. Declare its layers, or take another loop as the axis."
            )
        for site in self.sites:
            if site not in DECLARABLE_SITES:
                raise InputError(
                    f"sites names {site!r}, but what can be declared is "
                    f"{', '.join(DECLARABLE_SITES)}." + near_matches(site, DECLARABLE_SITES)
                )
        if self.step is not None and not callable(self.step):
            raise InputError(
                f"step must be a function(module, state, token_ids), got {type(self.step).__name__}"
            )
        start = self.start
        if not isinstance(start, Start):
            start = Start(as_tap(start) if start is not None else None)
        taps = {name: as_tap(tap) for name, tap in state.items() if tap is not None}
        object.__setattr__(self, "layers", layers)
        object.__setattr__(self, "state", taps)
        object.__setattr__(self, "start", start)
        object.__setattr__(self, "sites", {site: as_tap(tap) for site, tap in self.sites.items()})
        if self.pattern is not None:
            object.__setattr__(self, "pattern", as_tap(self.pattern))
        if isinstance(self.readout, str):
            object.__setattr__(self, "readout", (self.readout,))
        if not any(name in taps for name in inner):
            # What runs last in a pass of the axis: its own layers, or else those inside.
            owner = next(name for name in inner if layers.get(name))
            object.__setattr__(self, "state", {**taps, owner: Tap(layers[owner][-1])})

    @property
    def axis_state(self) -> Tap:
        """Where the state of the axis is seen: its own tap, or that of the nearest loop inside.

        What is seen there last in a pass of the axis is the state after that pass.
        """
        names, taps = self.loop.names, self.state
        assert isinstance(taps, Mapping)  # made one on construction
        inner = names[names.index(self.axis) :]
        return next(taps[name] for name in inner if name in taps)  # type: ignore[return-value]


def as_tap(value: Tap | str) -> Tap:
    """Return a tap; a string is the output of that module."""
    return Tap(value) if isinstance(value, str) else value
