"""A complete run whose every trajectory is a formula, for tests that need a run but no model.

Each token has a known regime, so tests of analyses, figures and reports know the answer. It is
written through the public writer; nothing here needs torch.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from looplens.prompts import Prompt
from looplens.store import RunSpec, RunWriter

ALPHABET = "abcdefghijkl"
ROTATION_PERIOD = 9.7
N_HEADS = 2

# What token i of every prompt does, by i modulo 8: (kind, rate of the transient, difficulty).
TOKEN_KINDS: tuple[tuple[str, float, float], ...] = (
    ("fixed_point", 0.50, float("nan")),
    ("fixed_point", 0.65, 1.0),
    ("fixed_point", 0.75, 2.0),
    ("period_two", 0.60, 3.0),
    ("rotation", 0.60, 3.0),
    ("slider", 0.60, 4.0),
    ("fixed_point", 0.85, 3.0),
    ("two_basins", 0.65, 2.0),
)
REGIMES = {
    "fixed_point": "fixed_point",
    "two_basins": "fixed_point",
    "period_two": "orbit",
    "rotation": "orbit",
    "slider": "slider",
}


def synthetic_run(
    path: str | os.PathLike[str],
    *,
    prompts: int = 3,
    tokens: int = 8,
    iterations: int = 64,
    restarts: int = 2,
    n_layers: int = 2,
    d_model: int = 16,
    seed: int = 0,
    attention: bool = True,
    exit_gate: bool = False,
    overwrite: bool = False,
) -> Path:
    """Write a run of closed-form trajectories and return its path.

    Token i of a prompt follows ``TOKEN_KINDS[i % 8]``: fixed points approached at different rates,
    an orbit of period 2, a rotation of period 9.7, a slider with steps of constant size, and a
    token with two basins, for which odd restarts end at another fixed point. All other tokens
    forget the restart. The last layer's ``resid_post`` is the loop state; earlier layers lie on
    the way to it, shifted by a constant.

    Parameters
    ----------
    path : str or path
        The directory to write.
    prompts, tokens, iterations, restarts, n_layers, d_model : int
        Sizes; ``tokens`` is per prompt, ``d_model`` at least 2.
    seed : int
        Of all directions and initial states.
    attention : bool
        Whether attention patterns (2 heads) are written.
    exit_gate : bool
        Whether gate logits are written; the gate opens as the steps of a token shrink.
    overwrite : bool
        Replace a run that is there.

    Returns
    -------
    Path
        ``path``.
    """
    rng = np.random.default_rng(seed)
    vocabulary = rng.standard_normal((len(ALPHABET), d_model)) * 3 / np.sqrt(d_model)
    shifts = rng.standard_normal((n_layers, d_model)) * 0.5
    shifts[-1] = 0
    limits = rng.standard_normal((prompts, tokens, d_model))
    limits *= np.sqrt(d_model) / np.linalg.norm(limits, axis=-1, keepdims=True)
    model = {"name": "synthetic", "source": "looplens.testing", "family": "formula", "config": {}}
    spec = RunSpec(
        prompts=[_prompt(number, limit, vocabulary) for number, limit in enumerate(limits)],
        iterations=iterations,
        n_layers=n_layers,
        d_model=d_model,
        restarts=restarts,
        restart_seeds=tuple(seed + restart for restart in range(restarts)),
        initial_state="noise",
        n_heads=N_HEADS,
        d_head=max(1, d_model // N_HEADS),
        inject=True,
        attention_prompts=tuple(range(prompts)) if attention else (),
        readout_top_k=5,
        exit_gate=exit_gate,
        model=model,
        seed=seed,
    )
    with RunWriter(path, spec, overwrite=overwrite) as writer:
        for number, prompt in enumerate(spec.prompts):
            states = _states(rng, limits[number], iterations, restarts)
            logits = states[:, :, 1:] @ vocabulary.T
            arrays = {
                "loop/state": states,
                "loop/injected": limits[number],
                "states/resid_post": _layers(states, shifts),
                **_readout(logits, np.array(prompt.targets), spec.readout_top_k),
            }
            if exit_gate:
                arrays["readout/exit_gate"] = _gate(states)
            writer.write(number * tokens, (number + 1) * tokens, arrays)
            if attention:
                pattern = _attention(rng, restarts, n_layers, iterations, tokens)
                writer.write_attention(number, pattern)
    return Path(writer.path)


def _states(
    rng: np.random.Generator, limits: np.ndarray, iterations: int, restarts: int
) -> np.ndarray:
    """Return (restart, token, iteration 0..T, d_model) for limits (token, d_model)."""
    tokens, d_model = limits.shape
    time = np.arange(iterations + 1)[:, None]
    states = np.empty((restarts, tokens, iterations + 1, d_model))
    for token in range(tokens):
        kind, rate, _ = TOKEN_KINDS[token % len(TOKEN_KINDS)]
        # Two orthogonal directions, the plane of the orbits and of the drift.
        plane = np.linalg.qr(rng.standard_normal((d_model, 2)))[0].T * np.sqrt(d_model)
        for restart in range(restarts):
            start = rng.standard_normal(d_model) * 0.7
            attractor = limits[token] + _motion(kind, time, plane, restart)
            states[restart, token] = attractor + (start - attractor[0]) * rate**time
    return states


def _motion(kind: str, time: np.ndarray, plane: np.ndarray, restart: int) -> np.ndarray:
    """Return what stays when the transient is gone, relative to the limit: (iteration, d_model)."""
    angle = 2 * np.pi * time / ROTATION_PERIOD
    if kind == "period_two":
        return 0.4 * (-1.0) ** time * plane[0]
    if kind == "rotation":
        return 0.4 * (np.cos(angle) * plane[0] + np.sin(angle) * plane[1])
    if kind == "slider":
        return 0.05 * time * plane[0]
    if kind == "two_basins":
        return (restart % 2) * 0.8 * plane[0] * np.ones_like(time)
    return np.zeros((time.size, plane.shape[1]))


def _prompt(number: int, limits: np.ndarray, vocabulary: np.ndarray) -> Prompt:
    tokens = len(limits)
    ids = [(number * 5 + 3 * position) % len(ALPHABET) for position in range(tokens)]
    texts = tuple(ALPHABET[i] for i in ids)
    answers = (limits @ vocabulary.T).argmax(-1)
    return Prompt(
        token_ids=tuple(ids),
        text="".join(texts),
        token_texts=texts,
        targets=(-1, *answers[1:].tolist()),
        token_metadata={
            "difficulty": tuple(TOKEN_KINDS[i % len(TOKEN_KINDS)][2] for i in range(tokens))
        },
        metadata={"task": "synthetic"},
    )


def _layers(states: np.ndarray, shifts: np.ndarray) -> np.ndarray:
    """Return resid_post (restart, token, layer, iteration 1..T, d_model)."""
    n_layers = len(shifts)
    before, after = states[:, :, :-1], states[:, :, 1:]
    return np.stack(
        [
            before + (layer + 1) / n_layers * (after - before) + shifts[layer]
            for layer in range(n_layers)
        ],
        axis=2,
    )


def _readout(logits: np.ndarray, targets: np.ndarray, top_k: int) -> dict[str, np.ndarray]:
    """Return the readout variables from logits (restart, token, iteration 1..T, vocabulary)."""
    log_p = logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)
    p = np.exp(log_p)
    order = np.argsort(-log_p, axis=-1, kind="stable")
    has_target = (targets >= 0)[None, :, None]
    index = np.broadcast_to(np.maximum(targets, 0)[None, :, None, None], (*log_p.shape[:-1], 1))
    target_log_p = np.take_along_axis(log_p, index, axis=-1)[..., 0]
    rank = (log_p > target_log_p[..., None]).sum(-1)
    kl_to_previous = np.full(log_p.shape[:-1], np.nan)
    kl_to_previous[:, :, 1:] = _kl(p[:, :, :-1], log_p[:, :, :-1], log_p[:, :, 1:])
    return {
        "readout/topk_ids": order[..., :top_k].astype(np.int32),
        "readout/topk_logprobs": np.take_along_axis(log_p, order[..., :top_k], axis=-1),
        "readout/entropy": -(p * log_p).sum(-1),
        "readout/target_logprob": np.where(has_target, target_log_p, np.nan),
        "readout/target_rank": np.where(has_target, rank, -1).astype(np.int32),
        "readout/kl_to_previous": kl_to_previous,
        "readout/kl_to_last": _kl(p[:, :, -1:], log_p[:, :, -1:], log_p),
    }


def _kl(p: np.ndarray, log_p: np.ndarray, log_q: np.ndarray) -> np.ndarray:
    # Rounding makes the divergence of equal distributions a tiny number of either sign.
    return np.maximum((p * (log_p - log_q)).sum(-1), 0)


def _gate(states: np.ndarray) -> np.ndarray:
    """Return gate logits (restart, token, iteration 1..T) that rise as relative steps shrink."""
    step = np.linalg.norm(np.diff(states, axis=2), axis=-1)
    step /= np.linalg.norm(states, axis=-1)[..., 1:]
    return -2 - 2 * np.log10(step + 1e-6)


def _attention(
    rng: np.random.Generator, restarts: int, n_layers: int, iterations: int, tokens: int
) -> np.ndarray:
    """Return causal patterns that settle at rate 0.8: (restart, layer, iteration, head, q, k)."""
    settled = rng.standard_normal((1, n_layers, 1, N_HEADS, tokens, tokens)) * 2
    transient = rng.standard_normal((restarts, n_layers, 1, N_HEADS, tokens, tokens)) * 2
    decay = 0.8 ** np.arange(1, iterations + 1)[:, None, None, None]
    visible = np.tril(np.ones((tokens, tokens), dtype=bool))
    scores = np.where(visible, settled + transient * decay, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)
