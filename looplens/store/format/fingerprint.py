"""What must agree so that two recordings have the same bytes, and how two of them differ.

A run keeps the fingerprint of its recording. Whoever goes on with it, or joins, compares: a block
of another model or other prompts in the same run would be wrong without looking so.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from looplens.store.format.spec import RunSpec

# A text that is longer is given by its digest.
_LONGEST = 1000
_SHOWN = 90


def fingerprint(spec: RunSpec) -> dict[str, str]:
    """Return the fingerprint of a recording; see `RunSpec.fingerprint`."""
    layout = spec.layout
    sizes = ("n_layers", "d_model", "n_heads", "n_kv_heads", "d_head", "inject")
    return {
        "model": _model(spec.model),
        "sizes": _text({name: getattr(spec, name) for name in sizes}),
        "prompts": _prompts(spec),
        "sites": ", ".join(spec.sites) or "none",
        "layers": _numbers(layout.recorded_layers),
        "kept_iterations": _numbers(layout.recorded_iterations),
        "iterations": str(spec.iterations),
        "restarts": str(spec.restarts),
        "seeds": _text({"seed": spec.seed, "restarts": spec.restart_seeds}),
        "initial_state": spec.initial_state,
        "dtype": f"{spec.source_dtype} stored as {spec.dtype}",
        "reduction": _reduction(spec),
        "block_tokens": str(layout.block_tokens),
        "readout_top_k": str(spec.readout_top_k) + (" and exit gate" if spec.exit_gate else ""),
        "attention_prompts": _numbers(spec.attention_prompts),
        "token_positions": _positions(spec),
        "settings": _text(dict(spec.settings)),
    }


def differences(stored: Mapping[str, str], wanted: Mapping[str, str]) -> list[str]:
    """Say of each field that differs what it is in the run, and what was asked for."""
    found = []
    for name in dict.fromkeys([*wanted, *stored]):
        there, here = stored.get(name, "missing"), wanted.get(name, "missing")
        if there != here:
            there, here = _only_what_differs(there, here)
            found.append(f"{name} is {_cut(there)} in the run, but {_cut(here)} here")
    return found


def _model(model: Mapping[str, Any]) -> str:
    """Name a model by what it is, and not by where it was loaded from."""
    parts = [str(model.get("name", "unknown"))]
    for key in ("config", "weights_digest"):
        if key in model:
            value = model[key]
            shown = value if isinstance(value, str) else _digest(_json(value))
            parts.append(f"{key.removesuffix('_digest')} {shown}")
    return ", ".join(parts)


def _prompts(spec: RunSpec) -> str:
    rows = hashlib.sha256()
    for prompt in spec.prompts:
        row = [
            prompt.token_ids,
            prompt.text,
            prompt.token_texts,
            prompt.targets,
            dict(prompt.token_metadata),
            dict(prompt.metadata),
        ]
        rows.update(_json(row).encode())
    tokens = sum(map(len, spec.prompts))
    return f"{len(spec.prompts)} prompts of {tokens} tokens, digest {rows.hexdigest()[:16]}"


def _positions(spec: RunSpec) -> str:
    if spec.token_positions is None:
        return "all"
    return f"{spec.n_tokens} tokens, digest {_digest(_json(spec.token_positions))}"


def _reduction(spec: RunSpec) -> str:
    if spec.reduction is None:
        return "none"
    reduction = spec.reduction
    return f"{reduction.kind} to {reduction.width}, digest {reduction.digest()}"


def _numbers(numbers: tuple[int, ...]) -> str:
    """Return ascending numbers as text, a run of neighbours as first..last."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][-1] + 1:
            parts[-1] = [parts[-1][0], number]
        else:
            parts.append([number])
    text = ", ".join("..".join(map(str, part)) for part in parts) or "none"
    return text if len(text) <= _LONGEST else f"{len(numbers)} numbers, digest {_digest(text)}"


def _text(value: Any) -> str:
    text = _json(value)
    return text if len(text) <= _LONGEST else f"digest {_digest(text)}"


def _json(value: Any) -> str:
    def plain(item: Any) -> Any:
        if hasattr(item, "tolist"):
            return item.tolist()
        return dict(item) if isinstance(item, Mapping) else str(item)

    return json.dumps(value, sort_keys=True, default=plain)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _only_what_differs(there: str, here: str) -> tuple[str, str]:
    """Of two JSON texts keep what is not the same, down to the innermost entry that holds it."""
    try:
        old, new = json.loads(there), json.loads(here)
    except ValueError:
        return there, here
    if not isinstance(old, dict | list) or type(old) is not type(new):
        return there, here
    old, new = _innermost(old, new)
    return _json(old), _json(new)


def _innermost(old: Any, new: Any) -> tuple[Any, Any]:
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        pairs = [_innermost(a, b) for a, b in zip(old, new, strict=True) if a != b]
        return [a for a, _ in pairs], [b for _, b in pairs]
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return old, new
    kept: tuple[dict[str, Any], dict[str, Any]] = {}, {}
    for key in {**old, **new}:
        if key in old and key in new:
            if old[key] != new[key]:
                kept[0][key], kept[1][key] = _innermost(old[key], new[key])
        else:
            kept[key in new][key] = (new if key in new else old)[key]
    return kept


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."
