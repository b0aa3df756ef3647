"""Checkpoints: directories in the Hugging Face layout, and the models that ship with looplens.

``config.json`` holds the fields of :class:`LoopedConfig` beside ``model_type``, the weights are
safetensors, the tokenizer is a ``tokenizer.json``. No code is ever loaded from a checkpoint.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from looplens.errors import InputError, near_matches
from looplens.models.config import LoopedConfig
from looplens.models.looped import LoopedTransformer
from looplens.models.tokenizer import Tokenizer

MODEL_TYPE = "looplens"
_BUNDLED = Path(__file__).parent / "bundled"
_CONFIG = "config.json"
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
    source: str | Path, *, device: str | torch.device = "cpu", dtype: torch.dtype | None = None
) -> LoopedTransformer:
    """Load a looped model.

    Parameters
    ----------
    source : str or Path
        The name of a bundled model, or a checkpoint directory.
    device, dtype : optional
        Where to put the weights, and in which precision; by default as stored.

    Returns
    -------
    LoopedTransformer
        In evaluation mode, with its tokenizer where the checkpoint has one.

    Raises
    ------
    InputError
        If there is no such model, a file is missing or unreadable, the configuration holds an
        unknown key, or weights are missing, unexpected or of the wrong shape (all listed).
    """
    directory = _find(source)
    config = _read_config(directory)
    cfg = LoopedConfig.from_dict(config)
    model = LoopedTransformer(cfg, Tokenizer.load(directory), name=directory.name)
    try:
        weights = load_file(directory / _WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise InputError(f"cannot read the weights {directory / _WEIGHTS}: {error}") from None
    _check_weights(model, weights, directory)
    model.load_state_dict(weights)
    if dtype is not None:
        model = model.to(dtype)
    return model.to(device).eval()


def save_model(model: LoopedTransformer, directory: str | Path, *, card: str | None = None) -> Path:
    """Write a model as a checkpoint directory in the Hugging Face layout.

    Parameters
    ----------
    model : LoopedTransformer
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


def _read_config(directory: Path) -> dict[str, Any]:
    try:
        config = json.loads((directory / _CONFIG).read_text())
    except json.JSONDecodeError as error:
        raise InputError(f"{directory / _CONFIG} is not valid JSON: {error}") from None
    if config.pop("model_type", None) != MODEL_TYPE:
        raise InputError(
            f"{directory / _CONFIG} has no model_type {MODEL_TYPE!r}: this checkpoint format is "
            "not supported"
        )
    config.pop("architectures", None)
    return config


def _check_weights(
    model: LoopedTransformer, weights: dict[str, torch.Tensor], directory: Path
) -> None:
    expected = model.state_dict()
    problems = [f"missing {name}" for name in expected if name not in weights]
    problems += [f"unexpected {name}" for name in weights if name not in expected]
    problems += [
        f"{name} has shape {tuple(weights[name].shape)}, expected {tuple(value.shape)}"
        for name, value in expected.items()
        if name in weights and weights[name].shape != value.shape
    ]
    if problems:
        raise InputError(
            f"the weights in {directory} do not fit its configuration: " + "; ".join(problems)
        )
