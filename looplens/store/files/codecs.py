"""Which code turns arrays into chunk files: Rust where it is installed, Python for the rest.

Both write the same bytes. Nothing is set for good: importing looplens leaves Zarr as it was.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Iterator

import zarr

PYTHON_CODECS = "zarr.core.codec_pipeline.BatchedCodecPipeline"
RUST_CODECS = "zarrs.ZarrsCodecPipeline"

_settings_lock = threading.Lock()


@functools.cache
def fast_codecs() -> str:
    """Return the name of the Rust codecs where they are installed; they take numbers only."""
    try:
        import zarrs  # noqa: F401  (registers the pipeline)
    except ImportError:
        return PYTHON_CODECS
    return RUST_CODECS


@contextlib.contextmanager
def pipeline(name: str) -> Iterator[None]:
    """Set how arrays opened inside read and write.

    Zarr looks at its settings, which are of the whole process, when an array is opened; the array
    keeps what it found.
    """
    settings = {"codec_pipeline.path": name, "array.write_empty_chunks": True}
    with _settings_lock, zarr.config.set(settings):
        yield
