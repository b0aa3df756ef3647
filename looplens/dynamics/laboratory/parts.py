"""The experiments that the command can do over a run, each a line."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from looplens import dynamics
from looplens.errors import InputError, near_matches


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """One experiment.

    Attributes
    ----------
    name : str
        The result is stored as ``dynamics/<name>``.
    function : str
        Its name in :mod:`looplens.dynamics`. It is called as
        ``function(model, run, prompt=, restart=, tokens=, progress=)`` with positions of one
        prompt, and returns a Dataset over ``token``.
    question : str
        What it answers.
    version : int
        Raised when the same run would give other numbers.
    standard : bool
        Whether it is done when none is named.
    most : int or None
        Most tokens, where a token costs much.
    """

    name: str
    function: str
    question: str
    version: int = 1
    standard: bool = True
    most: int | None = None

    @property
    def call(self) -> Callable[..., Any]:
        """The function."""
        return getattr(dynamics, self.function)


PARTS: dict[str, Part] = {
    part.name: part
    for part in (
        Part(
            name="fixed_points",
            function="fixed_points",
            question="which states does the loop leave as they are",
        ),
        Part(
            name="spectra",
            function="spectra",
            question="how does a step stretch and turn what is near, and is that what was seen",
        ),
        Part(
            name="causes",
            function="causes",
            question="does a token that orbits do so by itself, or is it driven by another",
        ),
        Part(
            name="lyapunov",
            function="lyapunov_spectra",
            question="do trajectories that begin beside each other meet or part",
        ),
        Part(
            name="cycle_points",
            function="cycle_points",
            question="where does every layer come to rest",
            standard=False,
            most=16,
        ),
        Part(
            name="landscape",
            function="landscape",
            question="what do residual and steps look like around the limit",
            standard=False,
            most=4,
        ),
        Part(
            name="basin_map",
            function="basin_map",
            question="which starts end where",
            standard=False,
            most=2,
        ),
        Part(
            name="continuation",
            function="continuation",
            question="at which gain does the fixed point lose its stability",
            standard=False,
            most=4,
        ),
        Part(
            name="recovery",
            function="recovery",
            question="does the loop pull a pushed state back",
            standard=False,
            most=4,
        ),
        Part(
            name="basin_radius",
            function="basin_radius",
            question="how far can a state be pushed and still come back",
            standard=False,
            most=4,
        ),
        Part(
            name="damage_cone",
            function="damage_cone",
            question="who notices a foreign state, and when",
            standard=False,
            most=16,
        ),
        Part(
            name="swap_states",
            function="swap_states",
            question="does the loop keep the states of another prompt",
            standard=False,
        ),
        Part(
            name="causal_effect",
            function="causal_effect",
            question="where and when is the answer written",
            standard=False,
            most=4,
        ),
    )
}


def chosen(names: str | Iterable[str] | None) -> list[Part]:
    """Return parts by name, in their order; ``"all"``, or the standard ones.

    Raises
    ------
    InputError
        For an unknown name, or none.
    """
    if names is None:
        return [part for part in PARTS.values() if part.standard]
    if isinstance(names, str):
        names = PARTS if names == "all" else [names]
    wanted = list(names)
    for name in wanted:
        if name not in PARTS:
            raise InputError(
                f"Unknown part {name!r}; there are: {', '.join(PARTS)}, or all."
                f"{near_matches(name, PARTS)}"
            )
    if not wanted:
        raise InputError(f"parts is empty: name some of {', '.join(PARTS)}, or all.")
    return [part for name, part in PARTS.items() if name in wanted]
