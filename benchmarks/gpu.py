"""Recording on a GPU at Huginn's published width, with asynchronous copies and without.

Random weights in bfloat16. Needs CUDA and about 10 GiB of its memory at the published width; where
there is none it says so and ends with code 0, so that it can stand in any script.

    python -m benchmarks.gpu --prompts 16 --iterations 32
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import shutil
import statistics
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

import looplens
from benchmarks._rows import interleaved, ratios
from looplens.models import LoopedConfig, LoopedTransformer
from looplens.recording.streaming.staging import DeviceStaging

HUGINN = LoopedConfig(
    d_model=5280,
    n_heads=55,
    d_mlp=17920,
    d_vocab=65536,
    n_ctx=4096,
    n_prelude=2,
    n_core=4,
    n_coda=2,
    qk_bias=True,
    rope_style="adjacent",
    rope_theta=50_000.0,
    embedding_scale=5280**0.5,
    default_iterations=32,
    family="huginn",
)


def random_model(width: int, device: torch.device) -> LoopedTransformer:
    """Return a Huginn of this width in bfloat16, with random weights drawn on the device."""
    share = width / HUGINN.d_model
    cfg = dataclasses.replace(
        HUGINN,
        d_model=width,
        n_heads=width // HUGINN.d_head,
        n_kv_heads=width // HUGINN.d_head,
        d_mlp=round(share * HUGINN.d_mlp / 256) * 256,
        embedding_scale=width**0.5,
    )
    torch.manual_seed(0)
    previous = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with device:
            return LoopedTransformer(cfg, name=f"random Huginn of width {width}").eval()
    finally:
        torch.set_default_dtype(previous)


@contextlib.contextmanager
def copies(asynchronous: bool) -> Iterator[None]:
    """Leave recording as it is, or make the device wait for every copy to the host."""
    start = DeviceStaging.hand_over

    def wait(self: DeviceStaging, block: int) -> Callable[[], dict[str, np.ndarray]]:
        arrays = start(self, block)
        torch.cuda.synchronize()
        return arrays

    changed = start if asynchronous else wait
    with mock.patch.object(DeviceStaging, "hand_over", changed):
        yield


def measure(options: argparse.Namespace, device: torch.device, console: Console) -> None:
    """Time the bare forward and recording both ways, and print them."""
    model = random_model(options.width, device)
    draw = torch.Generator().manual_seed(0)
    shape = (options.prompts, options.tokens)
    tokens = torch.randint(0, model.cfg.d_vocab, shape, generator=draw)
    folder = Path(tempfile.mkdtemp(dir=options.folder))
    synchronize = torch.cuda.synchronize if device.type == "cuda" else (lambda: None)

    @torch.no_grad()
    def bare() -> None:
        for batch in tokens.to(device).split(options.batch):
            model(batch, iterations=options.iterations)
        synchronize()

    def recorder(asynchronous: bool) -> Callable[[], None]:
        def record() -> None:
            with copies(asynchronous):
                looplens.record(
                    model,
                    tokens,
                    out=folder / "run",
                    iterations=options.iterations,
                    sites="resid_post",
                    dtype="float16",
                    batch_size=options.batch,
                    readout=False,
                    progress=False,
                )

        return record

    size: list[int] = []

    def clear() -> None:
        run = folder / "run"
        if run.exists():
            size[:] = [sum(f.stat().st_size for f in run.rglob("*") if f.is_file())]
        shutil.rmtree(run, ignore_errors=True)

    actions: dict[str, Callable[[], object]] = {
        "bare forward": bare,
        "asynchronous copies": recorder(True),
        "synchronous copies": recorder(False),
    }
    try:
        seconds = interleaved(actions, options.rounds, after=clear)
    finally:
        shutil.rmtree(folder)
    to_bare = ratios(seconds, "bare forward")
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
    parameters = sum(weight.numel() for weight in model.parameters())
    console.print(
        f"{name}, PyTorch {torch.__version__}: {parameters / 1e9:.2f} billion parameters, "
        f"{options.prompts} x {options.tokens} tokens in batches of {options.batch}, "
        f"T = {options.iterations}, {size[0] / 1e9:.2f} GB recorded",
        highlight=False,
    )
    table = Table("what", "s", "bare forward = 1", "GB/s")
    for what, values in seconds.items():
        middle = statistics.median(values)
        rate = "" if what == "bare forward" else f"{size[0] / 1e9 / middle:.2f}"
        table.add_row(what, f"{middle:.3f}", f"{to_bare[what]:.3f}", rate)
    console.print(table)


def main() -> None:
    """Measure, or say why not."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--width", type=int, default=HUGINN.d_model, help="a multiple of 96")
    parser.add_argument("--prompts", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=256, help="of each prompt")
    parser.add_argument("--batch", type=int, default=4, help="prompts in a forward")
    parser.add_argument("--iterations", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where to write; by default temporary space")
    parser.add_argument("--device", default="cuda", help="cpu only tries the script out")
    options = parser.parse_args()
    console = Console(width=110)
    if options.width % HUGINN.d_head or options.width < HUGINN.d_head:
        parser.error(f"--width must be a multiple of {HUGINN.d_head}, got {options.width}")
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        console.print(
            "Nothing was measured: PyTorch sees no CUDA device here "
            f"(PyTorch {torch.__version__}). --device cpu --width 192 tries the script out."
        )
        return
    measure(options, device, console)


if __name__ == "__main__":
    main()
