"""Colours, symbols, dashes and fill patterns, for a light and a dark paper.

Colour never stands alone: whatever it says is repeated by a symbol, a dash or a pattern. What is
drawn with them, and how, is not known here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from looplens.errors import InputError, near_matches


@dataclass(frozen=True, kw_only=True, slots=True)
class RegimeStyle:
    """How one regime is drawn: a colour, and three ways to tell it without colour."""

    label: str
    colour: str
    symbol: str
    dash: str
    pattern: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Palette:
    """The colours of one theme."""

    paper: str
    text: str
    muted: str
    grid: str
    axis: str
    accent: str
    missing: str
    categories: tuple[str, ...]
    sequential: tuple[tuple[float, str], ...]
    from_paper: tuple[tuple[float, str], ...]
    diverging: tuple[tuple[float, str], ...]
    regimes: Mapping[str, RegimeStyle]


def _regime_styles(fixed: str, orbit: str, slider: str, unresolved: str) -> dict[str, RegimeStyle]:
    return {
        "fixed_point": RegimeStyle(
            label="fixed point", colour=fixed, symbol="circle", dash="solid", pattern=""
        ),
        "orbit": RegimeStyle(
            label="orbit", colour=orbit, symbol="diamond", dash="dash", pattern="x"
        ),
        "slider": RegimeStyle(
            label="slider", colour=slider, symbol="triangle-right", dash="dashdot", pattern="/"
        ),
        "unresolved": RegimeStyle(
            label="unresolved", colour=unresolved, symbol="x-thin-open", dash="dot", pattern="."
        ),
    }


# Viridis without the end that vanishes into the background of the theme.
_VIRIDIS = ("#440154", "#482878", "#3e4989", "#31688e", "#26828e", "#1f9e89", "#35b779", "#6ece58")
_LIGHT_SEQUENTIAL = tuple((i / 7, colour) for i, colour in enumerate(_VIRIDIS))
_DARK_SEQUENTIAL = tuple(
    (i / 6, colour)
    for i, colour in enumerate(
        ("#5b5fb0", "#3f7fb8", "#2a9aa5", "#2fb38f", "#5fc96e", "#aadc32", "#fde725")
    )
)

PALETTES: dict[str, Palette] = {
    "light": Palette(
        paper="#ffffff",
        text="#1f2430",
        muted="#5f6775",
        grid="#e6e8ec",
        axis="#9aa1ad",
        accent="#d55e00",
        missing="#f1f2f4",
        # Okabe and Ito (2008) without black and yellow, which vanish on one of the two papers.
        categories=("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"),
        sequential=_LIGHT_SEQUENTIAL,
        from_paper=((0, "#ffffff"), (0.35, "#8fc1e3"), (0.7, "#0072b2"), (1, "#06253f")),
        diverging=(
            (0, "#00497a"),
            (0.2, "#0072b2"),
            (0.35, "#8fc1e3"),
            (0.5, "#ffffff"),
            (0.65, "#f2b27f"),
            (0.8, "#d55e00"),
            (1, "#8f3f00"),
        ),
        regimes=_regime_styles("#0072b2", "#d55e00", "#009e73", "#6b7280"),
    ),
    "dark": Palette(
        paper="#242424",
        text="#e6e8ec",
        muted="#a4abb8",
        grid="#3a3d42",
        axis="#70757f",
        accent="#e69f00",
        missing="#2f3135",
        categories=("#56b4e9", "#e69f00", "#2fc99a", "#e29ac3", "#f0e442", "#ff8c4d"),
        sequential=_DARK_SEQUENTIAL,
        from_paper=((0, "#242424"), (0.35, "#1f5f8b"), (0.7, "#56b4e9"), (1, "#f2faff")),
        diverging=(
            (0, "#9fd6f7"),
            (0.2, "#56b4e9"),
            (0.35, "#1f5f8b"),
            (0.5, "#242424"),
            (0.65, "#8a5a00"),
            (0.8, "#e69f00"),
            (1, "#ffd37a"),
        ),
        regimes=_regime_styles("#56b4e9", "#e69f00", "#2fc99a", "#a4abb8"),
    ),
}

TOKEN_SYMBOLS: tuple[str, ...] = (
    "circle",
    "square",
    "diamond",
    "triangle-up",
    "cross",
    "triangle-down",
    "pentagon",
    "star",
)
"""Marker symbols that tell tokens or restarts apart; 3-D figures know only some of them."""

SYMBOLS_3D: tuple[str, ...] = ("circle", "square", "diamond", "cross", "x", "circle-open")


def steps(shades: Sequence[str]) -> list[list[float | str]]:
    """Return a colour scale of equal steps, one a shade."""
    edges = [number / len(shades) for number in range(len(shades) + 1)]
    return [[at, shade] for n, shade in enumerate(shades) for at in edges[n : n + 2]]


def palette(theme: str) -> Palette:
    """Return the colours of a theme.

    Parameters
    ----------
    theme : {"light", "dark"}
        Name of the theme.

    Raises
    ------
    InputError
        If there is no such theme.
    """
    if theme not in PALETTES:
        raise InputError(
            f"theme must be 'light' or 'dark', got {theme!r}.{near_matches(str(theme), PALETTES)}"
        )
    return PALETTES[theme]
