"""The section on what was recorded, and the plain metadata behind it."""

from __future__ import annotations

import datetime
from typing import Any

import looplens
from looplens.plots._select import listed
from looplens.reports._report import Fact, Section, Table

_MOST_PROMPTS = 12
_MOST_TEXT = 110


def metadata(run: Any) -> dict[str, Any]:
    """Return what was recorded as plain values, with stable names.

    Parameters
    ----------
    run : looplens.Run
        The opened run.
    """
    now = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
    return {
        "described": described(run),
        "report_created": now.isoformat(),
        "report_looplens_version": looplens.__version__,
        "name": run.name,
        "model": dict(run.model),
        "prompts": run.n_prompts,
        "tokens": run.n_tokens,
        "iterations": run.iterations,
        "layers": run.n_layers,
        "d_model": run.d_model,
        "recorded_layers": list(run.recorded_layers),
        "recorded_iterations": list(run.kept_iterations),
        "tokens_run": tokens_run(run),
        "stored_width": run.width,
        "reduction": run.reduction.describe() if run.reduction is not None else None,
        "blocks": run.n_blocks,
        "blocks_recorded": len(run.committed),
        "restarts": run.restarts,
        "restart_seeds": list(run.restart_seeds),
        "initial_state": run.initial_state,
        "seed": run.attrs.get("seed"),
        "sites": list(run.site_names),
        "attention_prompts": list(run.attention_prompts),
        "readout": run.has_readout,
        "source_dtype": run.source_dtype,
        "store_dtype": run.attrs.get("store_dtype"),
        "created": run.attrs.get("created"),
        "recorded_with": run.attrs.get("looplens_version"),
        "schema_version": run.attrs.get("schema_version"),
        "complete": bool(run.complete),
        "non_finite": dict(run.non_finite),
    }


def described(run: Any) -> str:
    """Return one line: sizes and date of a run."""
    parts = [
        plural(run.n_prompts, "prompt"),
        plural(run.n_tokens, "token"),
        plural(run.iterations, "iteration"),
        plural(run.restarts, "restart"),
    ]
    created = str(run.attrs.get("created", ""))[:10]
    return " · ".join([*parts, *([f"recorded on {created}"] if created else [])])


def tokens_run(run: Any) -> int:
    """Return how many tokens the prompts had, whether they were kept or not."""
    return int(run.prompts["length"].values.sum())


def plural(count: int, noun: str, nouns: str | None = None) -> str:
    """Return ``"1 prompt"`` or ``"3 prompts"``; thousands are set apart by a thin space."""
    written = f"{count:,}".replace(",", "\u202f")
    return f"{written} {noun if count == 1 else nouns or noun + 's'}"


def section(run: Any) -> Section:
    """Return the section on what was recorded."""
    model = run.model
    seeds = [str(seed) for seed in run.restart_seeds if seed is not None]
    sites = ["loop state", *run.site_names]
    if run.attention_prompts:
        sites.append(f"attention ({plural(len(run.attention_prompts), 'prompt')})")
    if run.has_readout:
        sites.append("readout")
    facts = [
        Fact(label="Model", value=run.model_name, note=_joined(model, "family", "source")),
        Fact(
            label="Loop",
            value=f"{plural(run.n_layers, 'layer')} × {run.iterations}",
            note=f"core layers × iterations; width {run.d_model}{_kept_of_loop(run)}",
        ),
        Fact(
            label="Prompts",
            value=plural(run.n_prompts, "prompt"),
            note=f"{plural(run.n_tokens, 'token')} {_of_tokens(run)}",
        ),
        Fact(
            label="Restarts",
            value=plural(run.restarts, "restart"),
            note=f"initial state: {run.initial_state}"
            + (f"; seeds {', '.join(seeds)}" if seeds else ""),
        ),
        Fact(
            label="Arithmetic",
            value=run.source_dtype,
            note=f"stored as {run.attrs.get('store_dtype', run.source_dtype)}",
        ),
        Fact(label="Recorded sites", value=str(len(sites)), note=", ".join(sites)),
        Fact(
            label="Date",
            value=str(run.attrs.get("created", "–"))[:10],
            note=f"looplens {run.attrs.get('looplens_version', '–')}",
        ),
        Fact(label="Complete", value=_complete(run), note=_non_finite(run)),
    ]
    return Section(
        key="recorded",
        title="What was recorded",
        facts=tuple(facts),
        tables=(_prompts(run),),
    )


def _joined(model: dict[str, Any], *keys: str) -> str:
    return ", ".join(str(model[key]) for key in keys if model.get(key))


def _kept_of_loop(run: Any) -> str:
    """Say which layers, iterations and dimensions were kept, where not all were."""
    parts = []
    if len(run.recorded_layers) < run.n_layers:
        parts.append(f"layers kept: {listed(run.recorded_layers)}")
    if not run.all_iterations:
        parts.append(f"iterations kept: {listed(run.kept_iterations)}")
    if run.is_reduced:
        parts.append(f"states stored in {plural(run.width, 'dimension')} ({run.reduction.kind})")
    return "".join(f"; {part}" for part in parts)


def _of_tokens(run: Any) -> str:
    everything = tokens_run(run)
    return "together" if run.n_tokens == everything else f"kept of {plural(everything, 'token')}"


def _complete(run: Any) -> str:
    return "yes" if run.complete else f"{len(run.committed)} of {plural(run.n_blocks, 'block')}"


def _non_finite(run: Any) -> str:
    if not run.non_finite:
        return "every recorded number is finite"
    named = (f"{name}: {plural(count, 'number')}" for name, count in run.non_finite.items())
    return f"not finite: {', '.join(named)}"


def _prompts(run: Any) -> Table:
    table = run.prompts
    extra = [
        str(name)
        for name in table.data_vars
        if name not in ("text", "n_tokens", "first_token", "length")
    ]
    rows = []
    for number in range(min(run.n_prompts, _MOST_PROMPTS)):
        text = " ".join(str(table["text"].values[number]).split())
        if len(text) > _MOST_TEXT:
            text = f"{text[:_MOST_TEXT]}…"
        values = (str(table[name].values[number]) for name in extra)
        rows.append((str(number), text, str(int(table["length"].values[number])), *values))
    caption = "Prompts"
    if run.n_prompts > _MOST_PROMPTS:
        caption = f"The first {_MOST_PROMPTS} of {plural(run.n_prompts, 'prompt')}"
    return Table(caption=caption, columns=("prompt", "text", "tokens", *extra), rows=tuple(rows))
