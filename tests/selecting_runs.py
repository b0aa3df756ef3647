"""Makes runs that keep a part of another run, as recording with a selection would have."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from looplens.prompts import Prompt
from looplens.store import RunSpec, RunWriter, StoredRun, open_stored
from looplens.store.format.reduction import Reduction


def select_run(
    source: Path,
    out: Path,
    *,
    layers: Sequence[int] = (),
    iterations: Sequence[int] = (),
    positions: Sequence[int] | None = None,
    components: int | None = None,
    block_tokens: int | None = None,
    only_blocks: Sequence[int] | None = None,
) -> Path:
    """Write some layers, iterations, positions of each prompt and random components of a run."""
    run = open_stored(source)
    reduction = None
    if components is not None:
        draws = np.random.default_rng(0).standard_normal((run.d_model, components))
        reduction = Reduction(kind="random", basis=np.linalg.qr(draws)[0].T, seed=0)
    prompts = [_prompt(run, number) for number in range(run.n_prompts)]
    spec = RunSpec(
        prompts=prompts,
        iterations=run.iterations,
        n_layers=run.n_layers,
        d_model=run.d_model,
        restarts=run.restarts,
        restart_seeds=run.restart_seeds,
        initial_state=run.initial_state,
        sites=run.site_names,
        n_heads=run.attrs["n_heads"],
        d_head=run.attrs["d_head"],
        inject=run.has_injected,
        attention_prompts=run.attention_prompts,
        readout_top_k=run.attrs["readout_top_k"],
        model=run.model,
        layers=layers,
        kept_iterations=iterations,
        token_positions=None if positions is None else [positions] * len(prompts),
        reduction=reduction,
        block_tokens=block_tokens,
    )
    arrays = _arrays(run, spec)
    firsts = np.cumsum([0, *spec.recorded_lengths])
    with RunWriter(out, spec) as writer:
        for block in range(writer.n_blocks) if only_blocks is None else only_blocks:
            start, stop = writer.block_range(block)
            patterns = {
                prompt: _of(run, spec, run.attention(prompt).values, layer=1, iteration=2)
                for prompt in run.attention_prompts
                if start <= firsts[prompt] < stop
            }
            part = {
                path: values[start:stop] if path == "loop/injected" else values[:, start:stop]
                for path, values in arrays.items()
            }
            writer.claim(block)
            writer.write_block(block, part, patterns)
    return out


def _arrays(run: StoredRun, spec: RunSpec) -> dict[str, np.ndarray]:
    tokens = np.concatenate(
        [
            run.token_range(prompt).start + np.array(spec.positions(prompt))
            for prompt in range(run.n_prompts)
        ]
    )
    states = run.state(tokens=tokens).values
    if spec.kept_iterations:
        states = states[:, :, np.array(spec.kept_iterations)]
    arrays = {"loop/state": states}
    for site in run.site_names:
        values = run.site(site, tokens=tokens).values
        arrays[f"states/{site}"] = _of(run, spec, values, layer=2, iteration=3)
    if run.has_injected:
        arrays["loop/injected"] = run.injected(tokens=tokens).values
    if spec.reduction is not None:
        for path, values in list(arrays.items()):
            arrays[path], left_out = spec.reduction.apply(values)
            if path != "loop/injected":
                arrays[f"discarded/{path.rpartition('/')[2]}"] = left_out
    for name, values in run.readout.isel(token=tokens).data_vars.items():
        arrays[f"readout/{name}"] = _of(run, spec, values.values, iteration=2)
    return arrays


def _of(run: StoredRun, spec: RunSpec, values: np.ndarray, **axes: int) -> np.ndarray:
    """Take the kept layers and iterations (counted from 1) along their axes."""
    if "layer" in axes:
        values = values.take(spec.layout.recorded_layers, axis=axes["layer"])
    return values.take(np.array(spec.layout.recorded_iterations) - 1, axis=axes["iteration"])


def _prompt(run: StoredRun, number: int) -> Prompt:
    table = run.tokens.isel(token=run.token_range(number))
    return Prompt(
        token_ids=table["token_id"].values,
        text=str(run.prompts["text"].values[number]),
        token_texts=[str(text) for text in table["text"].values],
        targets=table["target"].values,
        token_metadata={"difficulty": table["difficulty"].values},
    )
