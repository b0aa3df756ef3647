"""The same model in float32 and in bfloat16: what rounding fakes in the end of the loop.

Prints a table, writes it into ``docs/analysis/bf16.md`` and draws ``docs/images/bf16.png``.

    python -m benchmarks.bf16
"""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from plotly.subplots import make_subplots

import looplens
from benchmarks._calibration_page import BEGIN, END, table_of
from looplens.analysis import REGIMES, classify
from looplens.plots._theme import figure, palette

DOCS = Path(__file__).parents[1] / "docs"
PAGE, IMAGE = DOCS / "analysis" / "bf16.md", DOCS / "images" / "bf16.png"
MODELS = (("affine-huginn-mini", "affine"), ("phop-huginn-mini", "phop"))
START, TAIL = 8, 32  # iterations that count as the start and as the end
LABELS = ("float32", "float32, weights of bfloat16", "bfloat16")
SMALL = 0.01  # an orbit smaller than this share of the norm is below the floor of bfloat16


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """One recording and what is read in it.

    Attributes
    ----------
    states : ndarray of float32, shape (token, iteration 0..T, d_model)
        The states of one restart.
    step : ndarray of float64, shape (token, iteration 1..T)
        Step over norm.
    early, late : float
        Cosine of successive steps, over the first `START` iterations and the last `TAIL`: its mean
        over pairs of steps that are not zero, then the median over tokens.
    """

    states: NDArray[np.float32]
    step: NDArray[np.float64]
    early: float
    late: float


def record(
    name: str, task: str, weights: torch.dtype, dtype: torch.dtype, *, prompts: int, iterations: int
) -> Reading:
    """Record a bundled model in a dtype, with weights rounded to one, and measure its steps."""
    made = looplens.tasks.get_task(task).prompts(prompts, seed=11)
    model = looplens.load_model(name).to(weights).to(dtype)
    with tempfile.TemporaryDirectory() as folder:
        run = looplens.record(
            model, made, out=f"{folder}/run", iterations=iterations, readout=False, progress=False
        )
        states = run.state().to_numpy()[0]
    return measured(states)


def measured(states: NDArray[np.float32]) -> Reading:
    """Measure the steps of trajectories (token, iteration, d_model)."""
    steps = np.diff(states.astype(np.float64), axis=1)
    length = np.linalg.norm(steps, axis=-1)
    return Reading(
        states=states,
        step=length / np.linalg.norm(states[:, 1:].astype(np.float64), axis=-1),
        early=_turning(steps[:, :START], length[:, :START]),
        late=_turning(steps[:, -TAIL:], length[:, -TAIL:]),
    )


def _turning(steps: NDArray[np.float64], length: NDArray[np.float64]) -> float:
    products = (steps[:, 1:] * steps[:, :-1]).sum(-1)
    sizes = length[:, 1:] * length[:, :-1]
    cosine = np.divide(products, sizes, out=np.full_like(products, np.nan), where=sizes > 0)
    return float(np.nanmedian(np.nanmean(cosine, axis=1)))


def rows_of(name: str, exact: Reading, weights: Reading, rounded: Reading) -> list[tuple[str, ...]]:
    """Return the rows of one model; the last is of bfloat16 taken for float32."""
    rows = []
    reference = classify(exact.states, unit=False).regime
    for label, reading, dtype in (
        ("float32", exact, "float32"),
        ("float32, weights of bfloat16", weights, "float32"),
        ("bfloat16, its floor known", rounded, "bfloat16"),
        ("bfloat16, taken for float32", rounded, "float32"),
    ):
        regime = classify(reading.states, source_dtype=dtype, unit=False).regime
        count = Counter(regime.tolist())
        rows.append(
            (
                name,
                label,
                *(str(count[word]) for word in REGIMES),
                f"{100 * (regime == reference).mean():.1f} %",
                f"{np.median(reading.step[:, -TAIL:]):.1e}",
                f"{reading.early:+.2f}; {reading.late:+.2f}",
                settled(reading.step, 1e-3),
            )
        )
    return rows


def settled(step: NDArray[np.float64], below: float) -> str:
    """Median iteration from which every step is smaller, and the share of tokens without one."""
    over = step >= below
    last = np.where(over.any(1), step.shape[1] - np.argmax(over[:, ::-1], axis=1), 0)
    never = last == step.shape[1]
    first = f"{np.median(last[~never]) + 1:.0f}" if (~never).any() else "none"
    return f"{first}; {100 * never.mean():.0f} %"


def small_orbits(weights: Reading, rounded: Reading) -> str:
    """Say what becomes of orbits that are smaller than the floor of bfloat16."""
    true = classify(weights.states, unit=False)
    seen = classify(rounded.states, source_dtype="bfloat16", unit=False).regime
    orbit = true.regime == "orbit"
    parts = []
    for word, which in (("under", true.amplitude < SMALL), ("over", true.amplitude >= SMALL)):
        chosen = orbit & which
        parts.append(
            f"{int((seen[chosen] == 'orbit').sum())} of the {int(chosen.sum())} {word} "
            f"{100 * SMALL:g} % of the norm"
        )
    return (
        f"Of the orbits in float32 with the same rounded weights, bfloat16 with its floor finds "
        f"{' and '.join(parts)}."
    )


def draw(readings: dict[str, tuple[Reading, ...]], path: Path, theme: str = "light") -> None:
    """Draw the median step by iteration, a panel for each model."""
    colours = palette(theme).categories
    fig = figure(title="Rounding ends what a loop can show", theme=theme, width=1000, height=420)
    make_subplots(cols=len(readings), shared_yaxes=True, subplot_titles=list(readings), figure=fig)
    for column, recorded in enumerate(readings.values(), start=1):
        for colour, label, dash, reading in zip(
            colours, LABELS, ("solid", "dash", "dot"), recorded, strict=False
        ):
            median = np.median(reading.step, axis=0)
            fig.add_scatter(
                x=np.arange(1, len(median) + 1),
                y=median,
                name=label,
                legendgroup=label,
                showlegend=column == 1,
                line={"dash": dash, "width": 2.5, "color": colour},
                mode="lines",
                row=1,
                col=column,
            )
    fig.update_yaxes(type="log", exponentformat="power")
    fig.update_yaxes(title="step over norm, median over tokens", col=1)
    fig.update_xaxes(title="iteration")
    fig.update_layout(legend={"orientation": "h", "x": 1, "xanchor": "right", "y": -0.2})
    fig.write_image(path, scale=1.5)


def main() -> None:
    """Record, print, and write the page and the picture."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few prompts; writes nothing")
    options = parser.parse_args()
    rows, notes, readings = [], [], {}
    half, full = torch.bfloat16, torch.float32
    for name, task in MODELS:
        exact, weights, rounded = readings[name] = tuple(
            record(name, task, *dtypes, prompts=2 if options.quick else 8, iterations=128)
            for dtypes in ((full, full), (half, full), (half, half))
        )
        rows += rows_of(name, exact, weights, rounded)
        if (classify(weights.states, unit=False).regime == "orbit").any():
            notes.append(f"`{name}`: {small_orbits(weights, rounded)}")
    head = ("model", "read as", *REGIMES, "as in float32", "last steps", "cosine",
            "settled; never")  # fmt: skip
    lines = [*table_of(head, rows), "", *notes]
    print("\n".join(lines))
    if not options.quick:
        before, _, rest = PAGE.read_text().partition(BEGIN)
        made = "\n".join(["", *lines, ""])
        PAGE.write_text(f"{before}{BEGIN}\n{made}\n{END}{rest.partition(END)[2]}")
        draw(readings, IMAGE)


if __name__ == "__main__":
    main()
