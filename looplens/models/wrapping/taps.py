"""Seeing and replacing a tensor at a place in a module that is not ours.

Forward hooks only: nothing of the module is changed, and everything is taken off again. Outputs may
be tensors, tuples, mappings or Hugging Face output objects; inputs positional or by keyword.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import reduce
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from looplens.errors import SiteError, near_matches
from looplens.loops.spec import Tap

# Called with each value; what it returns replaces the value, None leaves it.
Seer = Callable[[Tensor], Tensor | None]


def submodule(module: nn.Module, path: str) -> nn.Module:
    """Return the module at a dotted path.

    Raises
    ------
    SiteError
        If there is none; the message lists near matches.
    """
    try:
        found = reduce(_step, path.split("."), module) if path else module
    except (AttributeError, IndexError, KeyError, ValueError, TypeError):
        found = None
    if not isinstance(found, nn.Module):
        known = [name for name, _ in module.named_modules() if name]
        hint = near_matches(path, known) or f" It has modules such as {', '.join(known[:8])}."
        raise SiteError(f"{type(module).__name__} has no module {path!r}.{hint}")
    return found


def see(module: nn.Module, tap: Tap, seer: Seer) -> RemovableHandle:
    """Call ``seer`` with the tensor at ``tap`` whenever its module runs.

    Raises
    ------
    SiteError
        If there is no such module; and when the module runs, if there is no tensor at the tap.
    """
    target = submodule(module, tap.module)
    if tap.side == "input":

        def before(_: nn.Module, args: tuple, keywords: dict) -> Any:
            key, value = _argument(args, keywords, tap)
            new = seer(value)
            if new is None:
                return None
            if isinstance(key, int):
                return (*args[:key], new, *args[key + 1 :]), keywords
            return args, {**keywords, key: new}

        return target.register_forward_pre_hook(before, with_kwargs=True)

    def after(_: nn.Module, __: tuple, output: Any) -> Any:
        key, value = _part(output, tap)
        new = seer(value)
        return None if new is None else _with_part(output, key, new)

    return target.register_forward_hook(after)


def through(module: nn.Module, paths: Iterable[str], value: Tensor) -> Tensor:
    """Send a tensor through modules, one after the other.

    Raises
    ------
    SiteError
        If there is no such module, or it returns no tensor.
    """
    for path in paths:
        said = logits_of(submodule(module, path)(value))
        if said is None:
            raise SiteError(f"the readout {path!r} returned no tensor")
        value = said
    return value


def logits_of(output: Any) -> Tensor | None:
    """Return the logits in what a module returned: a field ``logits``, or the first tensor."""
    for name in ("logits", "prediction_logits"):
        value = output.get(name) if isinstance(output, Mapping) else getattr(output, name, None)
        if isinstance(value, Tensor):
            return value
    try:
        return _part(output, Tap())[1]
    except SiteError:
        return None


def _step(at: Any, part: str) -> Any:
    if part.isdigit() and hasattr(at, "__getitem__"):
        return at[int(part)]
    return getattr(at, part)


def _argument(args: tuple, keywords: dict, tap: Tap) -> tuple[int | str, Tensor]:
    if isinstance(tap.item, int):
        candidates: list[tuple[int | str, Any]] = (
            [(tap.item, args[tap.item])] if (tap.item < len(args)) else []
        )
    elif isinstance(tap.item, str):
        candidates = [(tap.item, keywords.get(tap.item))]
    else:
        candidates = [*enumerate(args), *_hidden_states_first(keywords)]
    for key, value in candidates:
        if isinstance(value, Tensor):
            return key, value
    raise SiteError(
        f"there is no tensor at the {tap}: it was called with {len(args)} positional arguments and "
        f"the keywords {', '.join(keywords) or 'none'}"
    )


def _hidden_states_first(keywords: dict) -> list[tuple[int | str, Any]]:
    """Return keyword arguments with the names that states usually have before masks and caches."""
    usual = ("hidden_states", "hidden_state", "x", "h", "input", "state")
    listed: list[tuple[int | str, Any]] = [(k, keywords[k]) for k in usual if k in keywords]
    rest = [(k, v) for k, v in keywords.items() if k not in usual]
    return [*listed, *((k, v) for k, v in rest if isinstance(v, Tensor) and v.is_floating_point())]


def _part(output: Any, tap: Tap) -> tuple[int | str | None, Tensor]:
    if isinstance(output, Tensor) and tap.item in (None, 0):
        return None, output
    value: Any = None
    key: int | str | None = tap.item
    if isinstance(tap.item, str):
        value = output.get(key) if isinstance(output, Mapping) else getattr(output, tap.item, None)
    elif isinstance(tap.item, int):
        items = _items(output)
        key, value = items[tap.item] if tap.item < len(items) else (tap.item, None)
    else:
        key, value = next(
            ((k, v) for k, v in _items(output) if isinstance(v, Tensor)), (None, None)
        )
    if isinstance(value, Tensor):
        return key, value
    if value is None and isinstance(tap.item, int) and "attn" in tap.module:
        hint = " Attention that is fused returns no pattern: have it written out (eager)."
    else:
        hint = ""
    raise SiteError(
        f"there is no tensor at the {tap}: it returned {type(output).__name__} with "
        f"{len(_items(output))} parts.{hint}"
    )


def _items(output: Any) -> list[tuple[int | str, Any]]:
    if isinstance(output, Mapping):
        return list(output.items())
    if isinstance(output, tuple | list):
        return list(enumerate(output))
    return []


def _with_part(output: Any, key: int | str | None, new: Tensor) -> Any:
    if key is None:
        return new
    if isinstance(output, Mapping):  # Hugging Face outputs are ordered mappings
        changed = output.copy() if isinstance(output, dict) and type(output) is dict else output
        changed[key] = new  # type: ignore[index]
        return changed
    parts = list(output)
    parts[key] = new  # type: ignore[index]
    if hasattr(output, "_make"):  # a named tuple
        return output._make(parts)
    return type(output)(parts)
