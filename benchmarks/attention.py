"""What recording attention maps costs, against a forward that computes them as well."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import torch

import looplens
from benchmarks._rows import Row, interleaved, median_ratio, ratios
from benchmarks.recording import Point

POINT = Point(
    name="attention", d_model=256, n_core=2, iterations=16, prompts=16, goal=1.2, rounds=5
)


def rows(*, quick: bool = False) -> list[Row]:
    """Record states and maps of all prompts, against an eager forward."""
    model, tokens = POINT.model(), POINT.tokens()
    if quick:
        tokens = tokens[:4]
    folder = Path(tempfile.mkdtemp())

    def look(value: torch.Tensor, hook: object) -> None:
        """Make the model write its maps out."""

    @torch.no_grad()
    def eager() -> None:
        with model.hooks(fwd_hooks=[("core.*.attn.hook_pattern", look)]):
            model(tokens, iterations=POINT.iterations)

    @torch.no_grad()
    def fused() -> None:
        model(tokens, iterations=POINT.iterations)

    def record(attention: bool) -> None:
        looplens.record(
            model,
            tokens,
            out=folder / "run",
            iterations=POINT.iterations,
            sites="resid_post",
            attention=attention,
            readout=False,
            progress=False,
        )

    try:
        seconds = interleaved(
            {
                "eager": eager,
                "fused": fused,
                "with maps": lambda: record(True),
                "without maps": lambda: record(False),
            },
            3 if quick else POINT.rounds,
            after=lambda: shutil.rmtree(folder / "run", ignore_errors=True),
        )
    finally:
        shutil.rmtree(folder)
    heads = POINT.d_model // 64
    maps = 4 * POINT.n_core * POINT.iterations * len(tokens) * heads * POINT.pos**2
    to_fused = ratios(seconds, "fused")
    return [
        Row(
            name=f"record resid_post and attention maps (d_model {POINT.d_model}, {heads} heads, "
            f"{POINT.n_core} layers, T = {POINT.iterations}, {len(tokens)} x {POINT.pos} tokens), "
            "eager forward with maps = 1",
            value=median_ratio(seconds, "with maps", "eager"),
            unit="x",
            goal=POINT.goal,
            peers={
                "with maps / fused forward": to_fused["with maps"],
                "without maps / fused forward": to_fused["without maps"],
                "eager / fused forward": to_fused["eager"],
                "bytes of the maps": float(maps),
            },
            limit="writing the maps, which are many bytes for little arithmetic.",
        )
    ]
