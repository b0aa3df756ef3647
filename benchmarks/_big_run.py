"""A run as large as the app must answer on, which takes little disk and a minute to make.

100,352 tokens x 64 iterations x 4 layers x d_model 256 from 2 initial states, in float16, with
readouts of all tokens and the attention of three prompts. The trajectories are those of the
systems of `looplens.testing`, so all regimes occur. 2,048 tokens are distinct: a run of those, the
piece, is written and analysed as any run is. The large run is the piece laid side by side: its
block files are hard links to those of the piece, and its results are those of the piece repeated,
so what is a number of the whole run (a basis, a mean) is that of the piece.

``python -m benchmarks._big_run FOLDER`` makes it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import sys
from pathlib import Path

import numpy as np
import xarray as xr

import looplens
from benchmarks._runs import systems
from looplens.prompts import Prompt
from looplens.store import RunSpec, RunWriter, StoredRun
from looplens.store.files.location import RunLocation
from looplens.store.format.blocks import CommitRecord, read_record, write_record
from looplens.store.writing.creating import create_run
from looplens.testing import runs as formulas

ITERATIONS, LAYERS, D_MODEL, RESTARTS, HEADS = 64, 4, 256, 2, 4
PIECE_TOKENS, TIMES = 2048, 49
SHORTEST, LONGEST = 20, 200
WITH_ATTENTION = 3
VOCABULARY = 64
TOP_K = 5
SMALL_TOKENS = 256

_WORDS = ("the", " loop", " of", " a", " state", ",", " settles", " and", " turns", "\n")


def big_run(folder: Path) -> Path:
    """Return the large run below a folder, made unless it is there; beside it lies the piece."""
    piece, big = folder / "piece", folder / "big"
    if not _is_whole(big):
        folder.mkdir(parents=True, exist_ok=True)
        _write_piece(piece, PIECE_TOKENS)
        _lay_side_by_side(piece, big)
    return big


def small_run(folder: Path) -> Path:
    """Return a run of the same sizes but 256 tokens below a folder, made unless it is there."""
    if not _is_whole(folder / "small"):
        folder.mkdir(parents=True, exist_ok=True)
        _write_piece(folder / "small", SMALL_TOKENS)
    return folder / "small"


def _is_whole(path: Path) -> bool:
    if not (path / "zarr.json").exists():
        return False
    run = looplens.open_run(path, lazy=True)
    return run.complete and "classify" in run.analyses


# The piece


def _write_piece(path: Path, tokens: int) -> None:
    rng = np.random.default_rng(0)
    spec = _spec(_lengths(rng, tokens), rng)
    pool = systems(ITERATIONS, D_MODEL, draws=-(-tokens // 60))
    vocabulary = rng.standard_normal((VOCABULARY, D_MODEL)) / np.sqrt(D_MODEL)
    shifts = rng.standard_normal((LAYERS, D_MODEL)) * 0.5
    shifts[-1] = 0
    targets = np.concatenate([prompt.targets for prompt in spec.prompts])
    with RunWriter(path, spec, overwrite=True) as writer:
        for block in range(writer.n_blocks):
            numbers = np.arange(*writer.block_range(block))
            # Every third token ends elsewhere from the other start.
            apart = np.where(numbers % 3 == 0, 0.5, 0.0)[:, None, None]
            first = pool[rng.permutation(len(pool))[numbers % len(pool)]]
            first = first * (4 / np.linalg.norm(first, axis=-1).max(-1))[:, None, None]
            direction = rng.standard_normal((len(numbers), 1, D_MODEL)) / np.sqrt(D_MODEL)
            states = np.stack([first, first + apart * direction])
            arrays = {
                "loop/state": states,
                "states/resid_post": formulas._layers(states, shifts),
                **formulas._readout(states[:, :, 1:] @ vocabulary.T, targets[numbers], TOP_K),
            }
            own = writer.patterns_of(block)
            patterns = {prompt: _pattern(rng, len(spec.prompts[prompt])) for prompt in own}
            writer.write_block(block, arrays, patterns)
    looplens.open_run(path).analyze()


def _spec(lengths: list[int], rng: np.random.Generator) -> RunSpec:
    texts = [_WORDS[i % len(_WORDS)] + ("" if i < 10 else str(i)) for i in range(VOCABULARY)]
    return RunSpec(
        prompts=[_prompt(number, length, texts, rng) for number, length in enumerate(lengths)],
        iterations=ITERATIONS,
        n_layers=LAYERS,
        d_model=D_MODEL,
        restarts=RESTARTS,
        restart_seeds=tuple(range(RESTARTS)),
        initial_state="noise",
        n_heads=HEADS,
        d_head=D_MODEL // HEADS,
        attention_prompts=tuple(range(min(WITH_ATTENTION, len(lengths)))),
        readout_top_k=TOP_K,
        dtype="float16",
        model={"name": "systems", "source": "looplens.testing", "family": "formula", "config": {}},
        vocabulary=dict(enumerate(texts)),
        block_tokens=256,
    )


def _lengths(rng: np.random.Generator, tokens: int) -> list[int]:
    """Return lengths of prompts that fill so many tokens; the first ones are short to long."""
    lengths = [24, 64, 128]
    while (left := tokens - sum(lengths)) > 2 * LONGEST:
        lengths.append(int(rng.integers(SHORTEST, LONGEST + 1)))
    parts = -(-left // LONGEST) or 1
    return [*lengths, *(left // parts + (part < left % parts) for part in range(parts))]


def _prompt(number: int, length: int, texts: list[str], rng: np.random.Generator) -> Prompt:
    ids = rng.integers(0, VOCABULARY, length)
    return Prompt(
        token_ids=tuple(ids),
        text="".join(texts[i] for i in ids),
        token_texts=tuple(texts[i] for i in ids),
        targets=tuple(np.append(ids[1:], -1)),
        token_metadata={"difficulty": tuple(np.arange(length) % 5)},
        metadata={"task": ("copy", "sum", "story")[number % 3]},
    )


def _pattern(rng: np.random.Generator, length: int) -> np.ndarray:
    """Return causal patterns that settle: (restart, layer, iteration, head, query, key)."""
    settled = rng.standard_normal((1, LAYERS, 1, HEADS, length, length), dtype=np.float32) * 2
    start = rng.standard_normal((RESTARTS, LAYERS, 1, HEADS, length, length), dtype=np.float32)
    decay = 0.9 ** np.arange(1, ITERATIONS + 1, dtype=np.float32)[:, None, None, None]
    scores = np.where(np.tri(length, dtype=bool), settled + 2 * start * decay, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


# The large run


def _lay_side_by_side(piece: Path, big: Path) -> None:
    source = looplens.open_run(piece)
    rng = np.random.default_rng(0)
    spec = _spec(_lengths(rng, PIECE_TOKENS), rng)
    spec = dataclasses.replace(spec, prompts=list(spec.prompts) * TIMES)
    target = RunLocation(big)
    target.prepare(overwrite=True)
    create_run(target, spec)
    root = Path(target.files.full(""))
    for block in range(source.n_blocks * TIMES):
        _link_block(source, root, block)
    with RunWriter(big, spec, resume=True, overwrite=(big != root)) as writer:
        assert writer.n_blocks == source.n_blocks * TIMES
    run = looplens.open_run(big)
    for name in source.analyses:
        result = _repeated(source.analysis(name), source, run)
        stored = source.analysis(name).attrs
        run.write_analysis(
            name, result, version=stored["version"], parameters=json.loads(stored["parameters"])
        )
        _link_equal_files(big / "analysis" / name)


def _link_block(source: StoredRun, root: Path, block: int) -> None:
    """Commit a block whose files are those of a block of the piece."""
    piece = Path(source.path)
    original = read_record(RunLocation(piece), block % source.n_blocks)
    files = {}
    for file, about in original.files.items():
        if file.startswith("attention/"):
            if block >= source.n_blocks:
                continue
            name = file
        else:
            # .../c/<restart>/<block>/..., as the axes are in every variable with restarts.
            array, _, cell = file.partition("/c/")
            parts = cell.split("/")
            parts[1] = str(block)
            name = f"{array}/c/{'/'.join(parts)}"
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        os.link(piece / file, root / name)
        files[name] = about
    size = source.block_tokens
    record = CommitRecord(
        block=block,
        start=block * size,
        stop=(block + 1) * size,
        files=files,
        non_finite=original.non_finite,
    )
    write_record(RunLocation(root), record)


def _repeated(result: xr.Dataset, source: StoredRun, run: StoredRun) -> xr.Dataset:
    """Return a result of the piece as one of the large run."""
    sizes = {"token": source.n_tokens, "prompt": source.n_prompts}

    def repeat(variable: xr.Variable) -> xr.Variable:
        whole = [dim for dim in variable.dims if variable.sizes[dim] == sizes.get(str(dim))]
        times = [TIMES if dim in whole else 1 for dim in variable.dims]
        return xr.Variable(variable.dims, np.tile(variable.values, times), variable.attrs)

    made = {str(name): repeat(variable) for name, variable in result.variables.items()}
    for axis, size in (("token", run.n_tokens), ("prompt", run.n_prompts)):
        if axis in made and made[axis].size == size:
            made[axis] = made[axis].copy(data=np.arange(size, dtype=made[axis].dtype))
    coords = {name: made[name] for name in map(str, result.coords)}
    data = {name: variable for name, variable in made.items() if name not in coords}
    blocks = {str(block): run.block_hash(block)[:16] for block in sorted(run.committed)}
    return xr.Dataset(data, coords, {**result.attrs, "blocks": json.dumps(blocks)})


def _link_equal_files(folder: Path) -> None:
    """Make equal files one file with several names."""
    known: dict[bytes, Path] = {}
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest = hashlib.blake2b(file.read_bytes()).digest()
        first = known.setdefault(digest, file)
        if first is not file:
            file.unlink()
            os.link(first, file)


if __name__ == "__main__":
    print(big_run(Path(sys.argv[1])))
