from __future__ import annotations

import shutil
from types import SimpleNamespace

import pytest
from store_help import make_arrays, make_spec, write_run

from looplens.store.format import schema

# Four tokens of states, so that a run of 21 tokens has six chunks, the last of them ragged.
SMALL_CHUNK = 4 * 5 * 6 * 4


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(schema, "CHUNK_BYTES", SMALL_CHUNK)


@pytest.fixture(scope="session")
def pristine(tmp_path_factory):
    """A run to read only: its path, spec and arrays."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(schema, "CHUNK_BYTES", SMALL_CHUNK)
        spec = make_spec()
        arrays = make_arrays(spec)
        path = write_run(tmp_path_factory.mktemp("tiny") / "run", spec, arrays)
    return SimpleNamespace(path=path, spec=spec, arrays=arrays)


@pytest.fixture
def tiny(tmp_path, pristine):
    """The same to change: a copy of the run."""
    path = shutil.copytree(pristine.path, tmp_path / "run")
    return SimpleNamespace(path=path, spec=pristine.spec, arrays=pristine.arrays)
