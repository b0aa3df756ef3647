"""Checkpoints: bundled models, directories in the Hugging Face layout, and the hub.

looplens writes ``config.json`` with the fields of :class:`LoopedConfig` beside ``model_type``, the
weights as safetensors, the tokenizer as ``tokenizer.json``. It reads that, and the published
checkpoints of the families it knows. No code is ever loaded from a checkpoint.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from looplens.errors import InputError, near_matches
from looplens.models.adaptive import AdaptiveTransformer
from looplens.models.hub import fetch, is_hub_id
from looplens.models.inputs import check_device
from looplens.models.loading import CONFIG as _CONFIG
from looplens.models.loading import MODEL_TYPE, load_directory
from looplens.models.looped import LoopedTransformer

_BUNDLED = Path(__file__).parent / "bundled"
_WEIGHTS = "model.safetensors"
_CARD = "card.json"


def bundled_models() -> dict[str, Path]:
    """Return the checkpoints that ship with looplens, by name."""
    return {path.parent.name: path.parent for path in sorted(_BUNDLED.glob(f"*/{_CONFIG}"))}


def model_card(source: str | Path) -> dict[str, Any]:
    """Return what training wrote about a model: task, accuracy by iteration, recipe.

    Parameters
    ----------
    source : str or Path
        The name of a bundled model, or a checkpoint directory.

    Returns
    -------
    dict
        The content of ``card.json``; empty where the checkpoint has none.

    Raises
    ------
    InputError
        If there is no such model.
    """
    path = _find(source) / _CARD
    return json.loads(path.read_text()) if path.exists() else {}


def load_model(
    source: str | Path,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
    loop: tuple[int, int] | None = None,
    revision: str | None = None,
) -> LoopedTransformer:
    """Load a looped model.

    Parameters
    ----------
    source : str or Path
        The name of a bundled model, a checkpoint directory, or ``owner/name`` on the Hugging Face
        hub. Published families are listed by ``looplens models``.
    device, dtype : optional
        Where to put the weights, and in which precision; by default as stored.
    loop : (int, int), optional
        For an ordinary decoder: layers ``start:stop`` are looped; ``(0, n_layers)`` loops the
        whole stack.
    revision : str, optional
        Branch, tag or commit on the hub.

    Returns
    -------
    LoopedTransformer
        In evaluation mode, with its tokenizer where the checkpoint has one. A saved
        :class:`~looplens.models.adaptive.AdaptiveTransformer` comes back as one.

    Raises
    ------
    InputError
        If there is no such model, a file is missing or unreadable, the configuration holds an
        unknown key or a value that is not supported (named), or weights are missing, unexpected
        or of the wrong shape (all listed).

    Notes
    -----
    Weights are read one tensor at a time into their final place: memory beyond that of the model
    is one tensor, and only where ``dtype`` asks for a cast.

    Examples
    --------
    >>> import looplens as ll
    >>> ll.load_model("affine-huginn-mini").cfg.family
    'huginn'
    """
    device = check_device(device)
    if isinstance(source, str) and _is_remote(source):
        directory, name = fetch(source, revision), source.rpartition("/")[-1]
    else:
        directory = _find(source)
        name = directory.resolve().name
    return load_directory(directory, device=device, dtype=dtype, loop=loop, name=name)


def save_model(
    model: LoopedTransformer | AdaptiveTransformer,
    directory: str | Path,
    *,
    card: str | None = None,
) -> Path:
    """Write a model as a checkpoint directory in the Hugging Face layout.

    Parameters
    ----------
    model : LoopedTransformer or AdaptiveTransformer
        What to write.
    directory : str or Path
        Made where it does not exist; files of an earlier checkpoint in it are replaced.
    card : str, optional
        Text of the model card, written as ``README.md``.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    config = {
        "model_type": MODEL_TYPE,
        "architectures": [type(model).__name__],
        **model.cfg.to_dict(),
    }
    (directory / _CONFIG).write_text(json.dumps(config, indent=2) + "\n")
    weights = {name: value.detach().contiguous() for name, value in model.state_dict().items()}
    save_file(weights, directory / _WEIGHTS, metadata={"format": "pt"})
    # safetensors writes for the owner alone, which would make an installed model unreadable.
    (directory / _WEIGHTS).chmod((directory / _CONFIG).stat().st_mode)
    if model.tokenizer is not None:
        model.tokenizer.save(directory)
    if card is not None:
        (directory / "README.md").write_text(card)
    return directory


def _find(source: str | Path) -> Path:
    bundled = bundled_models()
    if str(source) in bundled:
        return bundled[str(source)]
    path = Path(source).expanduser()
    if (path / _CONFIG).is_file():
        return path
    if path.is_dir():
        raise InputError(f"{path} is a directory without a {_CONFIG}: not a checkpoint")
    raise InputError(
        f"no model called {str(source)!r}: expected a checkpoint directory or one of "
        f"{', '.join(bundled) or '(no bundled models)'}.{near_matches(str(source), bundled)}"
    )


def _is_remote(source: str) -> bool:
    return (
        is_hub_id(source)
        and source not in bundled_models()
        and not Path(source).expanduser().is_dir()
    )
