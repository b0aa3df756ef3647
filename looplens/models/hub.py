"""Checkpoints on the Hugging Face hub: fetched as data, never as code."""

from __future__ import annotations

import re
from pathlib import Path

from looplens.errors import InputError

# Weights, configuration and tokenizer: no Python, and no pickles.
PATTERNS = ("*.safetensors", "*.safetensors.index.json", "config.json", "card.json", "token*.json")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def is_hub_id(source: str) -> bool:
    """Whether this could be ``owner/name`` on the hub."""
    return _HUB_ID.fullmatch(source) is not None


def fetch(hub_id: str, revision: str | None = None) -> Path:
    """Fetch a checkpoint, or find it in the local cache.

    Parameters
    ----------
    hub_id : str
        ``owner/name``.
    revision : str, optional
        Branch, tag or commit; by default the main branch.

    Returns
    -------
    Path
        A directory with the checkpoint's safetensors, configuration and tokenizer.

    Raises
    ------
    InputError
        If it cannot be fetched: there is no network, no such repository, or no access.
    """
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
    except ImportError:
        raise InputError(
            f"fetching {hub_id} needs the package huggingface_hub; or download the checkpoint "
            "and pass its directory"
        ) from None
    try:
        return Path(snapshot_download(hub_id, revision=revision, allow_patterns=list(PATTERNS)))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        reason = str(error).strip().splitlines()
        raise InputError(
            f"no directory {hub_id!r} here, and fetching it from the Hugging Face hub failed "
            f"({type(error).__name__}: {reason[0] if reason else 'no reason given'}). Check the "
            "name and the network, or download the checkpoint elsewhere and pass its directory"
        ) from None
