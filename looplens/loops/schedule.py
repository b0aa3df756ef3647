"""Which firing of a module belongs to which pass: the clock of loops that we did not write.

Such a loop sets no clock. But it is declared, so the n-th firing of a module has a known place in
it. This module enumerates those places and checks the counts; it knows no tensors.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from looplens.errors import InputError, SiteError
from looplens.loops.spec import Loop, LoopSpec, Tap

Coordinates = dict[str, int]


@dataclass(frozen=True, slots=True)
class Firing:
    """The place of one firing.

    Parameters
    ----------
    iteration : int
        Pass of the axis, counted from 1.
    layer : int
        Place along the layer axis, counted from 0; 0 for taps that are no layers.
    """

    iteration: int
    layer: int


class Schedule:
    """The firings that a declaration promises.

    Parameters
    ----------
    spec : LoopSpec
        The declaration.

    Attributes
    ----------
    layers : tuple of (str, dict)
        The layer axis: the module path of each place, and the coordinates inside an iteration,
        which are empty unless a loop runs inside the axis.
    per_outer_pass : int
        Iterations of the axis in one pass of the outermost loop.
    """

    def __init__(self, spec: LoopSpec) -> None:
        self.spec = spec
        names = spec.loop.names
        self._on_axis = names[: names.index(spec.axis) + 1]
        self._counts = {loop.name: loop.count for loop in spec.loop}
        self.per_outer_pass = 1
        for name in self._on_axis[1:]:
            self.per_outer_pass *= self._counts[name]
        self.layers = tuple(self._layer_axis())

    # ------------------------------------------------------------------ iterations

    def outer_count(self, iterations: int) -> int:
        """Return how often the outermost loop must run for so many iterations.

        Raises
        ------
        InputError
            If they are no whole number of its passes.
        """
        if iterations % self.per_outer_pass:
            inner = " x ".join(f"{name} {self._counts[name]}" for name in self._on_axis[1:])
            raise InputError(
                f"iterations={iterations} is no whole number of passes of the loop "
                f"{self._on_axis[0]!r}: each holds {self.per_outer_pass} iterations ({inner}). "
                f"Ask for a multiple of {self.per_outer_pass}."
            )
        return iterations // self.per_outer_pass

    def default_iterations(self) -> int:
        """Return the declared number of iterations."""
        return self.spec.loop.count * self.per_outer_pass

    def coordinates(self, iterations: int) -> list[Coordinates]:
        """Return the coordinates of each iteration, in time order."""
        outer = self.outer_count(iterations)
        return [
            {loop: place[loop] for loop in self._on_axis}
            for name, place in _passes(self.spec.loop, outer)
            if name == self.spec.axis
        ]

    def _layer_axis(self) -> Iterator[tuple[str, Coordinates]]:
        axis = next(loop for loop in self.spec.loop if loop.name == self.spec.axis)
        for name, place in _passes(axis, 1):
            inside = {loop: at for loop, at in place.items() if loop not in self._on_axis}
            for path in self._layers.get(name, ()):
                yield path, inside

    def first_layers(self) -> Iterator[str]:
        """Go through the layers in the order in which they first run."""
        for name, _ in _passes(self.spec.loop, 1):
            yield from self._layers.get(name, ())

    # ------------------------------------------------------------------ firings

    def of_layer(self, path: str) -> list[Firing | None]:
        """Return the firings of a layer in one pass of the outermost loop.

        ``None`` stands for a firing of a loop outside the axis, which no iteration holds.
        """
        times = {name: paths.count(path) for name, paths in self._layers.items()}
        places = [place for place, (name, _) in enumerate(self.layers) if name == path]
        seen: Counter[int] = Counter()
        found: list[Firing | None] = []
        for _, iteration in self._slots(times):
            if iteration is None:
                found.append(None)
                continue
            found.append(Firing(iteration, places[seen[iteration]]))
            seen[iteration] += 1
        return found

    def of_state(self, tap: Tap, loops: Sequence[str]) -> list[Firing | None]:
        """Return the firings of a state in one pass of the outermost loop.

        A tap on a layer fires when the layer does, another once in every pass of ``loops``. The
        last firing in an iteration is its state; ``None`` stands for the others.
        """
        times = {name: paths.count(tap.module) for name, paths in self._layers.items()}
        if not any(times.values()):
            times = dict.fromkeys(loops, 1)
        iterations = [iteration for _, iteration in self._slots(times)]
        last = {iteration: place for place, iteration in enumerate(iterations)}
        return [
            Firing(iteration, 0) if iteration is not None and last[iteration] == place else None
            for place, iteration in enumerate(iterations)
        ]

    @property
    def _layers(self) -> Mapping[str, tuple[str, ...]]:
        return self.spec.layers  # type: ignore[return-value]  # made a mapping on construction

    def _slots(self, times: Mapping[str, int]) -> Iterator[tuple[str, int | None]]:
        """Go through one outermost pass: the loop that fires, and the iteration it falls into."""
        for name, place in _passes(self.spec.loop, 1):
            iteration: int | None = None
            if self.spec.axis in place:  # else it is a loop outside the axis
                iteration = 1
                for loop in self._on_axis[1:]:
                    iteration = (iteration - 1) * self._counts[loop] + place[loop]
            for _ in range(times.get(name, 0)):
                yield name, iteration

    # ------------------------------------------------------------------ the check at the end

    def outer_passes_run(
        self, seen: Mapping[str, int], promised: Mapping[str, int], outer: int
    ) -> int:
        """Compare the firings of each tap with the declaration.

        Parameters
        ----------
        seen, promised : mapping of str to int
            Firings of each tap in the run, and in one pass of the outermost loop.
        outer : int
            Passes of the outermost loop that were asked for.

        Returns
        -------
        int
            Passes that ran: fewer than asked only where the declaration says ``exits_early``.

        Raises
        ------
        SiteError
            If the counts contradict the declaration; the message names them.
        """
        passes = {name: seen[name] / each for name, each in promised.items()}
        ran = min(passes.values())
        agree = all(value == ran for value in passes.values()) and ran == int(ran)
        if agree and (ran == outer or (0 < ran < outer and self.spec.exits_early)):
            return int(ran)
        wrong = "; ".join(
            f"{name}: expected {each * outer} firings, saw {seen[name]}"
            for name, each in promised.items()
            if seen[name] != each * outer
        )
        loops = _with_count(self.spec.loop, outer)
        advice = "Check the counts of the loops and which loop runs each layer."
        if not ran:
            advice = "A site that never fired is not on the way that this module takes."
        elif agree and ran < outer:
            advice = (
                f"The module seems to have left the loop {self.spec.loop.name!r} after {int(ran)} "
                "of its passes: if it may do so, declare exits_early=True."
            )
        raise SiteError(f"the module did not loop as declared ({loops}): {wrong}. {advice}")


def _passes(loop: Loop, count: int) -> Iterator[tuple[str, Coordinates]]:
    """Go through the ends of all passes in time order: those inside come first."""
    for index in range(1, count + 1):
        if loop.inner is not None:
            for name, place in _passes(loop.inner, loop.inner.count):
                yield name, {loop.name: index, **place}
        yield loop.name, {loop.name: index}


def _with_count(loop: Loop, outer: int) -> Loop:
    return Loop(loop.name, outer, loop.inner)
