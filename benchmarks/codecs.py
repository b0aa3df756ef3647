"""Which codec and which dtype states are stored in: sizes, speed, and what a verdict loses.

Records the bundled models on prompts of their own tasks, and compresses the recorded states in
chunks of about 1 MiB. Decisions that rest on it are in ``docs/decisions.md``.

    python -m benchmarks.codecs
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import google_crc32c
import numpy as np
from numcodecs import Blosc, Zstd
from rich.console import Console
from rich.table import Table

import looplens
from looplens.models import bundled_models, model_card
from looplens.tasks import prompts_trained_on

CHUNK = 2**20
PROMPTS, RESTARTS, ITERATIONS = 64, 2, 64

CODECS: dict[str, Callable[[int], Callable[[bytes], object]]] = {
    "CRC-32C alone": lambda size: google_crc32c.value,
    "Zstandard 1": lambda size: Zstd(level=1).encode,
    "shuffle + LZ4": lambda size: Blosc("lz4", 1, Blosc.SHUFFLE, typesize=size).encode,
    "shuffle + Zstandard 1": lambda size: Blosc("zstd", 1, Blosc.SHUFFLE, typesize=size).encode,
}


def compressed(states: np.ndarray) -> dict[str, tuple[float, float]]:
    """Return the share of the size that is left, and GB/s, of each codec."""
    content = np.ascontiguousarray(states).tobytes()
    pieces = [content[start : start + CHUNK] for start in range(0, len(content), CHUNK)]
    found = {}
    for name, make in CODECS.items():
        encode = make(states.dtype.itemsize)
        encode(pieces[0])
        started = time.perf_counter()
        encoded = [encode(piece) for piece in pieces]
        seconds = time.perf_counter() - started
        kept = sum(
            len(e) if isinstance(e, bytes) else len(p) + 4
            for e, p in zip(encoded, pieces, strict=True)
        )
        found[name] = kept / len(content), len(content) / 1e9 / seconds
    return found


def main() -> None:
    """Record, compress, compare, print."""
    table = Table("model", "dtype", "codec", "size", "GB/s")
    verdicts = Table("model", "regimes that float16 changes", "largest relative change of a state")
    with tempfile.TemporaryDirectory() as folder:
        for name in bundled_models():
            model = looplens.load_model(name)
            prompts = prompts_trained_on(model_card(name), PROMPTS, 0)
            runs = {}
            for dtype in ("float32", "float16"):
                runs[dtype] = looplens.record(
                    model, prompts, out=Path(folder) / f"{name}-{dtype}", iterations=ITERATIONS,
                    restarts=RESTARTS if model.cfg.initial_state == "noise" else 1,
                    dtype=dtype, readout=False, progress=False,
                )  # fmt: skip
                states = runs[dtype].site("resid_post").to_numpy()
                for codec, (share, speed) in compressed(states).items():
                    table.add_row(name, dtype, codec, f"{share:.3f}", f"{speed:.2f}")
            full, half = (runs[d].state().to_numpy().astype(np.float64) for d in runs)
            regimes = [runs[d].results("classify")["regime"].values for d in runs]
            change = np.linalg.norm(full - half, axis=-1) / np.linalg.norm(full, axis=-1).clip(
                1e-30
            )
            verdicts.add_row(
                name, f"{(regimes[0] != regimes[1]).mean():.1%}", f"{change.max():.1e}"
            )
    console = Console(width=100)
    console.print(table)
    console.print(verdicts)


if __name__ == "__main__":
    main()
