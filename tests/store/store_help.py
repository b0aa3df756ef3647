"""A tiny run with every kind of array, and random numbers to put in it."""

from __future__ import annotations

import itertools

import numpy as np

from looplens.prompts import Prompt
from looplens.store import RunSpec, RunWriter

LENGTHS = (5, 1, 7, 8)


def make_prompts(lengths=LENGTHS):
    return [
        Prompt(
            token_ids=tuple(range(length)),
            text="é" * length,
            token_texts=tuple(f" t{i}" for i in range(length)),
            targets=(*range(length - 1), -1) if index % 2 else None,
            token_metadata={"hops": tuple(map(float, range(length)))} if index else {},
            metadata={"task": f"task {index}"} if index else {"level": 3},
        )
        for index, length in enumerate(lengths)
    ]


def make_spec(**changes):
    settings = {
        "prompts": make_prompts(),
        "iterations": 4,
        "n_layers": 2,
        "d_model": 6,
        "restarts": 2,
        "sites": ("resid_post", "k"),
        "n_heads": 4,
        "n_kv_heads": 2,
        "d_head": 3,
        "inject": True,
        "attention_prompts": (0, 2),
        "readout_top_k": 3,
        "model": {"name": "tiny"},
        "seed": 1,
        "block_tokens": 8,
    }
    return RunSpec(**{**settings, **changes})


def make_arrays(spec, seed=0):
    rng = np.random.default_rng(seed)
    return {
        key: rng.integers(0, 9, variable.shape).astype(np.int32)
        if variable.dtype == "int32"
        else rng.standard_normal(variable.shape).astype(np.float32)
        for key, variable in spec.layout.variables().items()
    }


def tokens_of(array, spec, key, start, stop):
    axis = spec.layout.variables()[key].token_axis
    return array[(slice(None),) * axis + (slice(start, stop),)]


def write_blocks(writer, arrays, bounds):
    spec = writer.spec
    columns = {
        key: array
        for key, array in arrays.items()
        if spec.layout.variables()[key].token_axis is not None
    }
    for start, stop in itertools.pairwise(bounds):
        writer.write(
            start, stop, {key: tokens_of(a, spec, key, start, stop) for key, a in columns.items()}
        )


def write_run(path, spec, arrays, bounds=None):
    with RunWriter(path, spec) as writer:
        write_blocks(writer, arrays, bounds or [0, spec.n_tokens])
        for prompt in spec.attention_prompts:
            writer.write_attention(prompt, arrays[f"attention/{prompt}/pattern"])
    return path
