"""What is said about a comparison: names of the two runs, how they differ, what to keep in mind."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from looplens.analysis.comparing.aligning import Alignment

if TYPE_CHECKING:
    from looplens.store import StoredRun

FEW_PROMPTS = 20
_SETTINGS = (
    ("model", lambda run: run.model_name),
    ("weights", lambda run: str(run.model.get("weights_digest", "unknown"))),
    ("iterations", lambda run: str(run.iterations)),
    ("core layers", lambda run: str(run.n_layers)),
    ("width", lambda run: str(run.d_model)),
    ("restarts", lambda run: str(run.restarts)),
    (
        "restart seeds",
        lambda run: ", ".join("none" if seed is None else str(seed) for seed in run.restart_seeds),
    ),
    ("initial state", lambda run: run.initial_state),
    ("computed in", lambda run: run.source_dtype),
    ("stored in", lambda run: str(run.store_dtype)),
)


def notes(
    run_a: StoredRun, run_b: StoredRun, pairs: Alignment, shared: Alignment
) -> tuple[str, ...]:
    """Return what to keep in mind; warn of prompts that only one of the runs has.

    Parameters
    ----------
    run_a, run_b : StoredRun
        The runs.
    pairs : Alignment
        The tokens that are compared.
    shared : Alignment
        Those that could be: more, where only some of the prompts were wanted.
    """
    found = []
    if pairs.difference:
        text = (
            f"{len(shared.prompts_a)} prompts with {len(shared.tokens_a)} tokens are in both runs "
            f"and are compared, of {run_a.n_prompts} prompts with {run_a.n_tokens} tokens and "
            f"{run_b.n_prompts} with {run_b.n_tokens}. Numbers of the summaries without an "
            f"interval are of whole runs. {pairs.difference}"
        )
        warnings.warn(text, stacklevel=3)
        found.append(text)
    if len(pairs.tokens_a) < len(shared.tokens_a):
        found.append(
            f"{len(pairs.prompts_a)} of the {len(shared.prompts_a)} shared prompts are compared, "
            f"evenly chosen: {len(pairs.tokens_a)} of {len(shared.tokens_a)} tokens. Without "
            "most_tokens= all are."
        )
    for label, run in (("a", run_a), ("b", run_b)):
        if not run.complete:
            found.append(
                f"The recording {label} is not complete: {len(run.committed)} of {run.n_blocks} "
                "blocks are there, and only their tokens are compared."
            )
    if len(pairs.prompts_a) == 1:
        found.append("With one prompt there are no intervals: it says nothing of other prompts.")
    elif len(pairs.prompts_a) < FEW_PROMPTS:
        found.append(
            f"{len(pairs.prompts_a)} prompts are few to draw from: intervals are rough and tend to "
            f"be too narrow. Record {FEW_PROMPTS} or more."
        )
    if run_a.iterations != run_b.iterations:
        found.append(
            f"The runs have {run_a.iterations} and {run_b.iterations} iterations: whatever "
            "concerns the end of a recording is of another iteration in each. Curves are compared "
            "at the iterations that both have."
        )
    if run_a.source_dtype != run_b.source_dtype:
        found.append(
            f"One run was computed in {run_a.source_dtype}, the other in {run_b.source_dtype}: "
            "small steps and regimes differ by rounding alone."
        )
    return tuple(found)


def labels(run_a: StoredRun, run_b: StoredRun) -> tuple[str, str]:
    """Return the shortest names that tell the runs apart."""
    for of in (
        lambda run: run.name,
        lambda run: f"{run.model_name} ({run.name})",
        lambda run: str(run.path),
    ):
        if of(run_a) != of(run_b):
            return of(run_a), of(run_b)
    return f"{run_a.name} (a)", f"{run_b.name} (b)"


def settings(run_a: StoredRun, run_b: StoredRun) -> tuple[tuple[str, str, str], ...]:
    """Return what the recordings say of themselves and differ in: name, value of a, of b."""
    rows = [(name, of(run_a), of(run_b)) for name, of in _SETTINGS]
    own, other = run_a.attrs.get("settings", {}), run_b.attrs.get("settings", {})
    rows += [
        (str(key), str(own.get(key)), str(other.get(key))) for key in dict.fromkeys([*own, *other])
    ]
    return tuple(row for row in rows if row[1] != row[2])
