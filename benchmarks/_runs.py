"""Runs of any size without a model: trajectories of known systems, written block by block."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from looplens.prompts import Prompt
from looplens.store import RunSpec, RunWriter
from looplens.testing.systems import KINDS, make_system

PROMPT_TOKENS = 128


def systems(iterations: int, d_model: int, *, draws: int = 10) -> np.ndarray:
    """Return trajectories (system, iteration 0..T, d_model) in float32, every kind in turn.

    Every other draw carries noise 40 dB below the motion.
    """
    made = [
        make_system(
            kind,
            iterations=iterations,
            d_model=d_model,
            snr_db=40.0 if draw % 2 else np.inf,
            seed=draw,
        ).states
        for draw in range(draws)
        for kind in KINDS
    ]
    return np.stack(made).astype(np.float32)


def prompt(tokens: int = PROMPT_TOKENS) -> Prompt:
    """Return a prompt of so many tokens that says nothing."""
    return Prompt(token_ids=tuple(range(tokens)), text="a" * tokens, token_texts=("a",) * tokens)


def write_run(path: Path, tokens: int, pool: np.ndarray, *, restarts: int = 1) -> Path:
    """Write a run that holds loop states only: token i has trajectory i of the pool, scaled.

    The scale makes no two trajectories of a run the same, and changes no regime.

    Parameters
    ----------
    path : Path
        Where to.
    tokens : int
        How many trajectories in each restart.
    pool : ndarray of float32, shape (system, iteration 0..T, d_model)
        What they are taken from.
    restarts : int
        How many restarts; they differ in scale.
    """
    _, points, d_model = pool.shape
    lengths = [PROMPT_TOKENS] * (tokens // PROMPT_TOKENS)
    if tokens % PROMPT_TOKENS:
        lengths.append(tokens % PROMPT_TOKENS)
    spec = RunSpec(
        prompts=[prompt(length) for length in lengths],
        iterations=points - 1,
        n_layers=1,
        d_model=d_model,
        restarts=restarts,
        sites=(),
        model={"name": "systems", "source": "looplens.testing", "family": "formula", "config": {}},
    )
    with RunWriter(path, spec) as writer:
        for block in range(writer.n_blocks):
            number = np.arange(*writer.block_range(block))
            scale = (1 + number / tokens)[:, None, None].astype(np.float32)
            states = pool[number % len(pool)] * scale
            every = np.stack([(1 + 0.1 * restart) * states for restart in range(restarts)])
            writer.write_block(block, {"loop/state": every.astype(np.float32, copy=False)})
    return path
