"""What a visitor asks to be recorded, held against the model and the limits of the app.

Everything that can be said without loading the model is said here, before a process is started.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from looplens.errors import InputError, near_matches
from looplens_dashboard.live.models import LiveModel

STARTS = {
    "own": "the model's own",
    "noise": "noise",
    "perturbed": "its own plus 10 % noise",
    "zeros": "zeros",
}
"""How the loop can be started, with words for people."""

GIB = 2**30
_LARGEST_SEED = 2**31 - 1
_FRAMEWORK_BYTES = GIB  # what torch and its threads take before there is a model


@dataclass(frozen=True, kw_only=True, slots=True)
class LiveLimits:
    """Bounds of what may be recorded from the page.

    Attributes
    ----------
    characters, prompts, tokens : int
        Most characters typed, prompts of a recording, and tokens of all of them.
    iterations, restarts : int
        Most of each.
    run_bytes : int
        Largest run on the disk.
    memory_bytes : int
        Most memory of the recording process, the model included; 0 stands for seven tenths of what
        is free when it starts.
    seconds : float
        Longest time, analysis included.
    waiting : int
        Most recordings that are neither kept nor thrown away.
    """

    characters: int = 4000
    prompts: int = 32
    tokens: int = 1024
    iterations: int = 256
    restarts: int = 8
    run_bytes: int = GIB
    memory_bytes: int = 0
    seconds: float = 600.0
    waiting: int = 8

    def memory(self) -> int:
        """Return the most memory that a recording that starts now may take, in bytes."""
        return self.memory_bytes or int(0.7 * free_memory())


@dataclass(frozen=True, kw_only=True, slots=True)
class LiveRequest:
    """A checked request.

    Attributes
    ----------
    model : LiveModel
        Which model.
    prompts : tuple of str
        What it is given.
    iterations : int or None
        Passes of the loop; None for the model's own depth.
    restarts : int
        Initial states for each prompt.
    start : str
        One of `STARTS`.
    seed : int
        Of the first restart.
    attention : bool
        Whether attention patterns are kept.
    """

    model: LiveModel
    prompts: tuple[str, ...]
    iterations: int | None = None
    restarts: int = 1
    start: str = "own"
    seed: int = 0
    attention: bool = True

    def options(self) -> dict[str, Any]:
        """Return what the recording process is told, apart from limits and paths."""
        return {
            "prompts": list(self.prompts),
            "iterations": self.iterations,
            "restarts": self.restarts,
            "initial_state": None if self.start == "own" else self.start,
            "seed": self.seed,
            "attention": self.attention,
        }


def read_request(
    values: Mapping[str, Any], models: Mapping[str, LiveModel], limits: LiveLimits
) -> LiveRequest:
    """Check what a page sent.

    Parameters
    ----------
    values : mapping
        ``model`` (a key), ``text``, and optionally ``lines`` (each line is a prompt of its own),
        ``iterations``, ``restarts``, ``start``, ``seed``, ``attention``.
    models : mapping of str to LiveModel
        Those that there are.
    limits : LiveLimits
        The bounds.

    Raises
    ------
    InputError
        If a value is none that can be used, or out of bounds; the message says which.
    """
    key = values.get("model")
    if not isinstance(key, str) or key not in models:
        raise InputError(
            f"There is no model {str(key)[:80]!r} here. Choose one of: {', '.join(models)}."
            f"{near_matches(str(key)[:80], models)} Other checkpoint directories are named when "
            "the app is started, with --models."
        )
    model = models[key]
    start = values.get("start") or "own"
    if start not in STARTS:
        raise InputError(f"The start must be one of {', '.join(STARTS)}, not {str(start)[:80]!r}.")
    iterations = values.get("iterations")
    return LiveRequest(
        model=model,
        prompts=_prompts(values, model, limits),
        iterations=None
        if iterations in (None, "")
        else _number(iterations, "Iterations", 1, limits.iterations),
        restarts=_number(values.get("restarts", 1), "Restarts", 1, limits.restarts),
        start=start,
        seed=_number(values.get("seed", 0), "The seed", 0, _LARGEST_SEED),
        attention=bool(values.get("attention", True)),
    )


def check_memory(model: LiveModel, limits: LiveLimits) -> None:
    """Refuse a model that does not fit into memory, before anything is started.

    Raises
    ------
    InputError
        With how much it needs and how much there is.
    """
    needed, room = model.weights + _FRAMEWORK_BYTES, limits.memory()
    if needed > room:
        raise InputError(
            f"{model.key} needs about {shown(needed)} of memory, and a recording may take "
            f"{shown(room)} on this machine now. Close other programs, or choose a smaller model."
        )


def _prompts(values: Mapping[str, Any], model: LiveModel, limits: LiveLimits) -> tuple[str, ...]:
    text = values.get("text")
    if not isinstance(text, str) or not text.strip():
        raise InputError("There is no prompt yet: type one, or take an example.")
    if len(text) > limits.characters:
        raise InputError(
            f"The prompt has {len(text)} characters; at most {limits.characters} can be recorded "
            "from this page. The command `looplens record` has no such limit."
        )
    lines = [line.strip("\r") for line in text.split("\n")] if values.get("lines") else [text]
    prompts = tuple(line for line in lines if line.strip())
    if len(prompts) > limits.prompts:
        raise InputError(
            f"These are {len(prompts)} prompts; at most {limits.prompts} can be recorded at once."
        )
    for prompt in prompts:
        _check_text(prompt, model)
    return prompts


def _check_text(prompt: str, model: LiveModel) -> None:
    """Refuse what the tokenizer would, where its files say so by themselves."""
    if any(0xD800 <= ord(character) < 0xE000 for character in prompt):
        raise InputError("The prompt holds half of a character; type it again.")
    unknown = [character for character in prompt if character not in model.characters]
    if model.characters and unknown:
        raise InputError(
            f"{model.key} does not know the character {unknown[0]!r}. It knows these: "
            f"{' '.join(model.characters)}"
        )
    words = prompt.split()
    strange = [word for word in words if word not in model.words]
    if model.words and strange:
        raise InputError(
            f"{model.key} does not know the word {strange[0]!r}. It knows these, with spaces "
            f"between them: {' '.join(model.words)}"
        )
    tokens = len(prompt) if model.characters else len(words) if model.words else 0
    if model.n_ctx is not None and tokens > model.n_ctx:
        raise InputError(
            f"The prompt has {tokens} tokens; {model.key} takes at most {model.n_ctx}."
        )


def _number(value: Any, name: str, least: int, most: int) -> int:
    whole = isinstance(value, float) and value.is_integer()
    if isinstance(value, bool) or not (isinstance(value, int) or whole):
        raise InputError(f"{name} must be a whole number, not {str(value)[:40]!r}.")
    if not least <= value <= most:
        raise InputError(f"{name} must lie between {least} and {most}, not {int(value)}.")
    return int(value)


def free_memory() -> int:
    """Return the memory that a new process could take, in bytes, as far as the system says."""
    found = []
    for path, pick in _MEMORY_FILES:
        try:
            found.append(pick(Path(path).read_text()))
        except (OSError, ValueError, IndexError):
            continue
    if found:
        return max(0, min(found))
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    except (AttributeError, ValueError, OSError):  # not a POSIX system
        return 4 * GIB


def _available(text: str) -> int:
    return int(text.split("MemAvailable:")[1].split()[0]) * 1024


def _left_in_group(text: str) -> int:
    limit = int(text)  # "max" is no number: there is no limit
    group = Path("/sys/fs/cgroup")
    used = int((group / "memory.current").read_text())
    cached = (group / "memory.stat").read_text().split("inactive_file ")[1].split()[0]
    return limit - used + int(cached)  # files that were read are given up when room is needed


_MEMORY_FILES = (
    ("/proc/meminfo", _available),
    ("/sys/fs/cgroup/memory.max", _left_in_group),
)


def shown(nbytes: float) -> str:
    """Return a size for people."""
    for unit, size in (("GiB", GIB), ("MiB", 2**20)):
        if nbytes >= size:
            return f"{nbytes / size:.1f} {unit}"
    return f"{nbytes / 1024:.0f} KiB"


def summary(prompts: Sequence[str], most: int = 60) -> str:
    """Return the first prompt, cut, and how many others there are."""
    first = " ".join(prompts[0].split()) or prompts[0]
    first = first if len(first) <= most else first[: most - 1] + "…"
    return first if len(prompts) == 1 else f"{first} and {len(prompts) - 1} more"
