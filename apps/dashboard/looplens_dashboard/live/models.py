"""The models that can be recorded from the page: bundled ones, and directories named at the start.

They are described by their files alone, without loading one: no torch is imported, and what a
request names is looked up among these, so that no request reaches another path.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import looplens
from looplens.errors import InputError
from looplens.tasks import prompts_trained_on

CONFIG = "config.json"
_WEIGHTS = (".safetensors", ".bin", ".pt")
_LARGEST_FILE = 32 * 2**20
_MOST_IN_A_FOLDER = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class LiveModel:
    """A checkpoint that can be recorded.

    Attributes
    ----------
    key : str
        What a request calls it.
    path : Path
        Its directory.
    bundled : bool
        Whether it ships with looplens.
    title : str
        A line for people.
    iterations : int or None
        The depth that its card or configuration recommends.
    n_ctx : int or None
        Most tokens of a prompt, where the configuration says so.
    characters : str
        The characters that it knows, of a model with one token for each; else empty.
    words : tuple of str
        The words that it knows, of a model with one token for each; else empty.
    weights : int
        Bytes of its weight files.
    card : mapping
        What training wrote about it; empty where nothing did.
    """

    key: str
    path: Path
    bundled: bool
    title: str
    iterations: int | None
    n_ctx: int | None
    characters: str
    weights: int
    card: Mapping[str, Any]
    words: tuple[str, ...] = ()

    def example(self, seed: int = 0) -> str:
        """Return a prompt of the kind that the model was trained on; empty where none is known."""
        try:
            return prompts_trained_on(self.card, 1, seed)[0].text
        except (InputError, LookupError, TypeError, ValueError):  # no card, or not one of ours
            return ""


def find_models(directories: Iterable[str | os.PathLike[str]] = ()) -> dict[str, LiveModel]:
    """Describe the bundled models and those in some directories, by key.

    Parameters
    ----------
    directories : iterable of path
        Checkpoint directories, or folders of them.

    Raises
    ------
    InputError
        If one of the directories is neither.
    """
    bundled = Path(looplens.__file__).parent / "models" / "bundled"
    found = {path.name: _describe(path.name, path, bundled=True) for path in _inside(bundled)}
    for directory in directories:
        root = Path(directory).expanduser().resolve()
        places = [root] if (root / CONFIG).is_file() else _inside(root)
        if not places:
            raise InputError(
                f"{directory} holds no model: expected a checkpoint directory (with a {CONFIG}), "
                "or a folder of such directories."
            )
        known = {model.path for model in found.values()}
        for path in places:
            if path not in known:
                key = _free_key(path.name, found)
                found[key] = _describe(key, path, bundled=False)
    return found


def _inside(folder: Path) -> list[Path]:
    """Return the checkpoints in a folder; what a link leads to outside of it is left out."""
    if not folder.is_dir():
        return []
    inside = [path for path in sorted(folder.iterdir()) if (path / CONFIG).is_file()]
    return [path for path in inside if path.resolve().parent == folder][:_MOST_IN_A_FOLDER]


def _free_key(name: str, taken: Mapping[str, Any]) -> str:
    key, number = name, 2
    while key in taken:
        key, number = f"{name} ({number})", number + 1
    return key


def _describe(key: str, path: Path, *, bundled: bool) -> LiveModel:
    config, card = _json(path / CONFIG), _json(path / "card.json")
    weights = sum(
        file.stat().st_size for file in path.iterdir() if file.suffix in _WEIGHTS and file.is_file()
    )
    summary = card.get("summary")
    vocabulary, in_words = _vocabulary(path)
    kind = config.get("family") or config.get("model_type") or "unknown kind"
    return LiveModel(
        key=key,
        path=path,
        bundled=bundled,
        title=f"{key}: {summary}" if isinstance(summary, str) else f"{key} ({kind})",
        iterations=_count(card.get("recommended_iterations"))
        or _count(config.get("default_iterations")),
        n_ctx=_count(config.get("n_ctx")) or _count(config.get("max_position_embeddings")),
        characters="" if in_words else "".join(vocabulary),
        words=vocabulary if in_words else (),
        weights=weights,
        card=card,
    )


def _json(path: Path) -> dict[str, Any]:
    """Read a JSON object; an empty one where it cannot be read: loading the model says why."""
    try:
        if path.stat().st_size > _LARGEST_FILE:
            return {}
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def _vocabulary(path: Path) -> tuple[tuple[str, ...], bool]:
    """Return the tokens of a tokenizer with one for each character or word, and if it is words."""
    tokenizer = _json(path / "tokenizer.json")
    model, split = tokenizer.get("model"), tokenizer.get("pre_tokenizer")
    words = model.get("vocab") if isinstance(model, dict) else None
    if not isinstance(words, dict) or not words or model.get("type") != "WordLevel":
        return (), False
    if not all(isinstance(number, int) for number in words.values()):
        return (), False
    in_words = isinstance(split, dict) and split.get("type") == "WhitespaceSplit"
    if not in_words and not all(len(word) == 1 for word in words):
        return (), False
    return tuple(sorted(words, key=lambda word: words[word])), in_words
