"""What recording costs on top of the forward that it watches, and what others take for it."""

from __future__ import annotations

import copy
import shutil
import statistics
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import looplens
from benchmarks import _peers
from benchmarks._rows import Row, interleaved, ratios
from looplens.models import LoopedConfig, LoopedTransformer

VOCABULARY = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """A size of model and data."""

    name: str
    d_model: int
    n_core: int
    iterations: int
    prompts: int
    goal: float
    rounds: int
    pos: int = 128
    mlp: int = 4  # d_mlp in units of d_model

    def model(self) -> LoopedTransformer:
        """Return a random model of this size; the same one in every call."""
        torch.manual_seed(0)
        cfg = LoopedConfig(
            d_model=self.d_model,
            n_heads=self.d_model // 64,
            d_mlp=self.mlp * self.d_model,
            d_vocab=VOCABULARY,
            n_ctx=self.pos,
            n_core=self.n_core,
            initial_state="zeros",
        )
        return LoopedTransformer(cfg, name="random").eval()

    def tokens(self) -> Tensor:
        """Return the prompts."""
        draw = torch.Generator().manual_seed(0)
        return torch.randint(0, VOCABULARY, (self.prompts, self.pos), generator=draw)

    @property
    def nbytes(self) -> int:
        """Bytes of the states that everybody keeps."""
        return 4 * self.n_core * self.iterations * self.prompts * self.pos * self.d_model

    @property
    def size(self) -> str:
        """The sizes in words."""
        return (
            f"d_model {self.d_model}, {self.n_core} layers, T = {self.iterations}, "
            f"{self.prompts} x {self.pos} tokens"
        )


COMPUTE = Point(
    name="compute-bound", d_model=512, n_core=4, iterations=32, prompts=8, goal=1.05, rounds=3
)
DATA = Point(
    name="data-bound", d_model=128, n_core=2, iterations=64, prompts=32, goal=1.2, rounds=5
)
QUICK = Point(name="small", d_model=128, n_core=2, iterations=16, prompts=8, goal=1.2, rounds=3)


def rows(*, quick: bool = False) -> list[Row]:
    """Measure both points."""
    points = (QUICK,) if quick else (COMPUTE, DATA)
    return [row for point in points for row in measure(point)]


def measure(point: Point) -> list[Row]:
    """Record all core ``resid_post`` in float32 to disk, in every way."""
    model, tokens = point.model(), point.tokens()
    traced = _peers.Nnsight(copy.deepcopy(model))
    states = np.ones(point.nbytes // 4, dtype=np.float32)
    folder = Path(tempfile.mkdtemp())
    file = folder / "states.npy"
    written: list[int] = []

    @torch.no_grad()
    def bare() -> None:
        model(tokens, iterations=point.iterations)

    def record() -> None:
        looplens.record(
            model,
            tokens,
            out=folder / "run",
            iterations=point.iterations,
            sites="resid_post",
            readout=False,
            progress=False,
        )

    def clear() -> None:
        run = folder / "run"
        if run.exists():
            written[:] = [sum(f.stat().st_size for f in run.rglob("*") if f.is_file())]
        shutil.rmtree(run, ignore_errors=True)
        file.unlink(missing_ok=True)

    actions = {
        "bare": bare,
        "looplens": record,
        "np.save": lambda: np.save(file, states),
        "torch hooks": lambda: _peers.torch_hooks(model, tokens, point.iterations, file),
        "TransformerLens": lambda: _peers.transformer_lens(model, tokens, point.iterations, file),
        "nnsight": lambda: traced(tokens, point.iterations, file),
    }
    # Written once, untimed, so that the first round meets no unread code and no cold allocator.
    small = tokens[:1]
    looplens.record(model, small, out=folder / "run", iterations=2, readout=False, progress=False)
    clear()
    _peers.torch_hooks(model, small, 2, file)
    traced(small, 2, file)
    try:
        seconds = interleaved(actions, point.rounds, after=clear, warm=False)
    finally:
        shutil.rmtree(folder)
    # The same forward and then the write: nothing of it needs a forward of its own.
    saved = zip(seconds["bare"], seconds.pop("np.save"), strict=True)
    seconds["forward + np.save"] = [forward + write for forward, write in saved]
    return table(point, seconds, written[0])


def table(point: Point, seconds: dict[str, list[float]], written: int) -> list[Row]:
    """Return the rows of a point: against the bare forward, np.save, and the best of the peers."""
    to_bare = ratios(seconds, "bare")
    peers = ("torch hooks", "TransformerLens", "nnsight")
    best = min(peers, key=lambda name: to_bare[name])
    extra = written / point.nbytes - 1
    limit = (
        f"a run holds {extra:.0%} more than these states: the loop state of every iteration from "
        "the start, what is injected, and checksums. With two cores the thread that writes takes "
        "time from the forward."
    )
    others = {f"{name} / bare": to_bare[name] for name in (*peers, "forward + np.save")}
    sizes = {"bytes of the states": float(point.nbytes), "bytes of the run": float(written)}
    bare = {"bare, s": statistics.median(seconds["bare"])}
    where = f"{point.name} ({point.size})"
    return [
        Row(
            name=f"record resid_post, {where}, bare forward = 1",
            value=to_bare["looplens"],
            unit="x",
            goal=point.goal,
            peers={**bare, **others, **sizes},
            limit=limit,
        ),
        Row(
            name=f"record resid_post, {point.name}, forward + np.save of the same bytes = 1",
            value=ratios(seconds, "forward + np.save")["looplens"],
            unit="x",
            goal=1.0,
            limit=limit,
        ),
        Row(
            name=f"record resid_post, {point.name}, best peer ({best}) = 1",
            value=ratios(seconds, best)["looplens"],
            unit="x",
            goal=1.0,
            limit=limit,
        ),
    ]
