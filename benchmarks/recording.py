"""What recording costs on top of the forward that it watches."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import torch

import looplens
from benchmarks._rows import Row, interleaved, median_ratio
from looplens.models import LoopedConfig, LoopedTransformer


def rows() -> list[Row]:
    """Record all ``resid_post`` in float32 to disk, against the bare forward."""
    torch.manual_seed(0)
    cfg = LoopedConfig(
        d_model=256, n_heads=8, d_mlp=1024, d_vocab=64, n_ctx=128, n_core=4, initial_state="zeros"
    )
    model = LoopedTransformer(cfg, name="random").eval()
    tokens = torch.randint(0, 64, (8, 128))
    folder = Path(tempfile.mkdtemp())

    @torch.no_grad()
    def bare() -> None:
        model(tokens, iterations=16)

    def recorded() -> None:
        looplens.record(
            model,
            tokens,
            out=folder / "run",
            iterations=16,
            readout=False,
            overwrite=True,
            progress=False,
        )

    try:
        seconds = interleaved({"bare": bare, "record": recorded}, repeats=5)
    finally:
        shutil.rmtree(folder)
    return [
        Row(
            name="record all resid_post (d_model 256, 4 layers, 16 iterations), bare forward = 1",
            value=median_ratio(seconds, "record", "bare"),
            unit="x",
            goal=1.2,
            peers={"bare forward": 1.0},
        )
    ]
