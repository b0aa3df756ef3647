"""The counter that stands in for a loop clock where the loop is not ours."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from looplens.loops.schedule import Firing

Hear = Callable[[int, int, Tensor], Tensor | None]  # (iteration, layer, value) to a new value


class FiringCounter:
    """Give each firing of one tap its place, by its number.

    Parameters
    ----------
    name : str
        What the tap is called in errors.
    firings : sequence of Firing or None
        Its places in one pass of the outermost loop.
    iterations_per_pass : int
        Iterations in one pass of the outermost loop.
    outer : int
        Passes of the outermost loop that were asked for.
    hear : callable, optional
        Called with iteration, layer and value.

    Attributes
    ----------
    seen : int
        Firings so far.
    """

    def __init__(
        self,
        name: str,
        firings: Sequence[Firing | None],
        iterations_per_pass: int,
        outer: int,
        hear: Hear | None = None,
    ) -> None:
        self.name = name
        self.firings = firings
        self.iterations_per_pass = iterations_per_pass
        self.outer = outer
        self.hear = hear
        self.seen = 0

    @property
    def per_pass(self) -> int:
        """Firings in one pass of the outermost loop."""
        return len(self.firings)

    def __call__(self, value: Tensor) -> Tensor | None:
        """Note a firing; returns another value where it is to be replaced."""
        outer, place = divmod(self.seen, self.per_pass)
        self.seen += 1
        firing = self.firings[place]
        # One firing too many has no place; the check at the end names it.
        if firing is not None and self.hear is not None and outer < self.outer:
            iteration = outer * self.iterations_per_pass + firing.iteration
            return self.hear(iteration, firing.layer, value)
        return None
