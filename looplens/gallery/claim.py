"""What a claim of the gallery is, and what running one gives.

How a claim is run and how its page is written is not known here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from looplens.errors import InputError
from looplens.gallery.intervals import Interval
from looplens.gallery.scale import Scale

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

REPRODUCED, PARTLY, NOT = "reproduced", "partly reproduced", "not reproduced"
OPEN, VOID = "open", "void: a sanity check failed"
HELD = {True: "held", False: "against", None: "open"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """A table of results.

    Attributes
    ----------
    title : str
        One line above it.
    columns : sequence of str
        The heads.
    rows : sequence of sequence
        Text, numbers, truth values, None or :class:`Interval`, one a column.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise InputError(
                    f"Table {self.title!r} has {len(self.columns)} columns, but a row of "
                    f"{len(row)}: {list(row)}."
                )

    def texts(self) -> list[list[str]]:
        """Return the rows as text."""
        return [[cell_text(value) for value in row] for row in self.rows]


@dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    """A figure of a page.

    Attributes
    ----------
    name : str
        Short, of small letters, digits and hyphens; becomes part of a file name.
    figure : plotly.graph_objects.Figure
        What is drawn.
    caption : str
        What is to be seen, in one or two sentences.
    """

    name: str
    figure: Figure
    caption: str

    def __post_init__(self) -> None:
        if not self.name.replace("-", "").isalnum() or self.name != self.name.lower():
            raise InputError(
                f"The name of a picture has small letters, digits and hyphens; got {self.name!r}."
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What came out of a claim.

    Attributes
    ----------
    checks : mapping of str to bool or None
        The statements of the paper as inequalities between measured numbers: True where one held,
        False where the measurement speaks against it, None where the interval contains the bound
        and it stays open (:func:`looplens.gallery.above` and ``below`` give these three).
    sanity : mapping of str to bool
        What follows from a theorem or a definition and so must hold whatever the paper claims. It
        does not count for the verdict; where one fails, there is no verdict.
    tables, pictures : sequence of Table, of Picture
        In the order of the page.
    summary : str
        What came out, composed from measured numbers.
    limits : tuple of str
        What this run cannot tell.
    """

    checks: Mapping[str, bool | None]
    sanity: Mapping[str, bool] = field(default_factory=dict)
    tables: Sequence[Table] = ()
    pictures: Sequence[Picture] = ()
    summary: str
    limits: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.checks:
            raise InputError(
                "An outcome needs at least one check; without one there is no verdict."
            )
        decided = {k: None if v is None else bool(v) for k, v in self.checks.items()}
        object.__setattr__(self, "checks", decided)
        object.__setattr__(self, "sanity", {k: bool(v) for k, v in self.sanity.items()})

    @property
    def verdict(self) -> str:
        """Return "reproduced" when all checks held, "partly reproduced" when some did.

        When none did: "not reproduced" when at least one is against, "open" when none is decided.
        """
        held = list(self.checks.values())
        if not all(self.sanity.values()):
            return VOID
        if any(held):
            return REPRODUCED if all(held) else PARTLY
        return NOT if False in held else OPEN


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """A claim of a paper about looped models, and how it is put to the test here.

    Attributes
    ----------
    number, slug, title : int, str, str
        Place in the gallery, name of its files, one line.
    paper : str
        Authors, title, arXiv number and section.
    says : str
        What the paper claims, in our words, with its numbers.
    does : str
        What is run here and how that differs.
    robust : tuple of str
        The checks that must hold even at smoke size.
    run : callable
        ``run(scale) -> Outcome``.
    """

    number: int
    slug: str
    title: str
    paper: str
    says: str
    does: str
    run: Callable[[Scale], Outcome]
    robust: tuple[str, ...] = ()

    @property
    def stem(self) -> str:
        """Return the name that the files of the page begin with, such as ``01-depth``."""
        return f"{self.number:02d}-{self.slug}"

    def main(self, arguments: Sequence[str] | None = None) -> None:
        """Run this claim from the command line of its script; see ``--help`` there."""
        from looplens.gallery.running import main

        main(self, arguments)


def cell_text(value: Any) -> str:
    """Return a value as it stands in a table."""
    if value is None:
        return "–"
    if isinstance(value, Interval):
        return str(value)
    if isinstance(value, bool) or type(value).__name__ == "bool_":
        return "yes" if value else "no"
    try:
        number = float(value)
    except (TypeError, ValueError):
        return str(value)
    if isinstance(value, str):
        return value
    if not math.isfinite(number):
        return "–"
    if number == int(number) and abs(number) < 1e6 and not isinstance(value, float):
        return f"{int(number):,}"
    return f"{number:.3f}" if 0.1 <= abs(number) < 10 or number == 0 else f"{number:.3g}"
