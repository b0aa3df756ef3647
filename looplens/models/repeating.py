"""A list of layers in which one span runs again and again, though the caller walks through it once.

:class:`looplens.models.looped_layers.LoopedLayers` puts it in the place of a model's own list. What
is done with the results of the passes is decided there; here is only how layers are called again.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

from torch import Tensor, nn

from looplens.errors import InputError

NO_CACHE = (
    "looped layers cannot use a key/value cache: it has one slot a layer, and each pass needs its "
    "own. Leave past_key_values out and pass use_cache=False (to generate() as well)."
)


class Loop(Protocol):
    """What the list asks of the loop that it belongs to."""

    start: int
    stop: int

    def enter(self, stream: Tensor) -> Tensor:
        """Take the stream that enters the span, and return what the first pass is given."""

    def go_on(self, entered: Tensor, first: Tensor, span: list[Call]) -> tuple[Tensor, Any]:
        """Do the passes after the first.

        Takes the stream that entered the span, what the first pass made of it, and the layers.
        Returns the stream that leaves the span, and what the last layer last returned (None when
        there was no further pass).
        """


class RepeatingList(nn.ModuleList):
    """The same layers under the same names; walking through it meets a span that repeats."""

    loop: Loop

    def __init__(self, layers: nn.ModuleList, loop: Loop) -> None:
        super().__init__(layers)
        self.__dict__["loop"] = loop  # not a child: the loop holds the model that holds this list

    def __iter__(self) -> Iterator[Any]:
        layers, loop = list(self._modules.values()), self.loop
        calls: list[Call] = []
        for number, layer in enumerate(layers):
            if loop.start <= number < loop.stop:
                calls.append(Call(layer, loop, calls, is_last=number == loop.stop - 1))
                yield calls[-1]
            else:
                yield layer

    def __getitem__(self, index: Any) -> Any:
        # A slice is how a forward walks through the list; a number is how people reach a layer.
        return list(self)[index] if isinstance(index, slice) else super().__getitem__(index)


class Call:
    """One layer of the span in one forward: remembers its arguments, so that it can run again.

    Layers of one span may get different arguments (masks of sliding attention, positions), so
    each is repeated with its own. The last one of the span does the further passes.
    """

    def __init__(self, layer: Any, loop: Loop, span: list[Call], *, is_last: bool) -> None:
        self.layer, self.loop, self.span, self.is_last = layer, loop, span, is_last
        self.entered: Tensor | None = None
        self.by_name = False
        self.args: tuple[Any, ...] = ()
        self.kwargs: dict[str, Any] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self.layer, name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the layer; the last of the span runs all of them again as often as needed."""
        self.by_name = "hidden_states" in kwargs
        entered = kwargs.pop("hidden_states") if self.by_name else args[0]
        if self is self.span[0]:
            entered = self.loop.enter(entered)
        self.entered, self.kwargs = entered, kwargs
        self.args = args if self.by_name else args[1:]
        if any(hasattr(value, "get_seq_length") for value in (*self.args, *kwargs.values())):
            raise InputError(NO_CACHE)
        answer = self.again(entered)
        if not self.is_last:
            return answer
        first_entered = self.span[0].entered
        if first_entered is None:
            raise InputError("the model does not walk through the looped layers in one go")
        state, last = self.loop.go_on(first_entered, stream_of(answer), self.span)
        last = answer if last is None else last
        return (state, *last[1:]) if isinstance(last, tuple) else state

    def again(self, stream: Tensor) -> Any:
        """Call the layer on another stream with the arguments of the first time."""
        if self.by_name:
            return self.layer(*self.args, hidden_states=stream, **self.kwargs)
        return self.layer(stream, *self.args, **self.kwargs)


def without_cache(
    module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Refuse a cache that was asked for, and turn off the one that the configuration asks for."""
    if kwargs.get("past_key_values") is not None or kwargs.get("use_cache"):
        raise InputError(NO_CACHE)
    if hasattr(getattr(module, "config", None), "use_cache"):
        kwargs = {**kwargs, "use_cache": False}
    return args, kwargs


def stream_of(answer: Any) -> Tensor:
    """Return the residual stream from what a layer returns: a tensor, or a tuple that begins so."""
    return answer[0] if isinstance(answer, tuple) else answer
