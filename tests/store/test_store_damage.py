from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import xarray as xr
from store_help import make_spec

from looplens.errors import CorruptRunError, NotARunError, SchemaVersionError
from looplens.store import RunWriter, open_stored


def flip_a_bit(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 4] ^= 16
    file.write_bytes(content)


def truncate(file):
    file.write_bytes(file.read_bytes()[:20])


DAMAGES = [
    (lambda file: file.unlink(), r"the chunk file {file} is missing"),
    (truncate, r"has 20 bytes|does not match its checksum|bytes are damaged"),
    (flip_a_bit, r"does not match its checksum|stored bytes are damaged"),
]


@pytest.mark.parametrize(("damage", "message"), DAMAGES, ids=["deleted", "truncated", "flipped"])
@pytest.mark.parametrize(
    ("file", "where", "read"),
    [
        ("loop/state/c/1/2/0/0", "'loop/state' at restart 1, token 16:20", lambda r: r.state()),
        ("loop/state/c/0/2/0/0", "'loop/state' at restart 0, token 16", lambda r: r.state(0, 16)),
        ("loop/injected/c/0/0", "'loop/injected' at token 0:", lambda r: r.injected(3)),
        (
            "states/resid_post/c/0/2/1/0/0",
            "'states/resid_post' at restart 0, token 16:20, layer 1",
            lambda r: r.site(tokens=17),
        ),
        (
            "attention/2/pattern/c/1/0/3/0/0/0",
            "'attention/2/pattern' at restart 1, layer 0, iteration 3",
            lambda r: r.attention(2),
        ),
        ("readout/entropy/c/0/0/0", "'readout/entropy' at ", lambda r: r.readout["entropy"].load()),
        ("tokens/text/c/0", "'tokens/text' at token 0:21", lambda r: r.tokens),
    ],
)
def test_damage_is_found_when_the_part_is_read(tiny, file, where, read, damage, message):
    damage(tiny.path / file)
    run = open_stored(tiny.path)
    with pytest.raises(CorruptRunError, match=message.format(file=file)) as caught:
        read(run)
    assert where in str(caught.value)
    assert "record it again" in str(caught.value)
    # All else is still there.
    np.testing.assert_array_equal(run.state(tokens=slice(4, 8)), tiny.arrays["loop/state"][:, 4:8])


def change_metadata(path, change):
    document = json.loads((path / "zarr.json").read_text())
    change(document)
    (path / "zarr.json").write_text(json.dumps(document))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda path: shutil.rmtree(path / "states/resid_post"),
            r"the array 'states/resid_post' is missing",
        ),
        (
            lambda path: change_metadata(
                path / "loop/state", lambda d: d["shape"].__setitem__(1, 9)
            ),
            r"'loop/state' should have the shape \[2, 21, 5, 6\] by the attributes.*\[2, 9, 5, 6\]",
        ),
        (
            lambda path: change_metadata(path, lambda d: d["attributes"].update(n_tokens=22)),
            r"should have the shape \[2, 22, 5, 6\]",
        ),
        (
            lambda path: change_metadata(path, lambda d: d["attributes"].pop("iterations")),
            r"values that they cannot have: iterations is 'missing'",
        ),
        (
            lambda path: change_metadata(
                path, lambda d: d["attributes"].update(store_dtype="float61", sites=["x"])
            ),
            r"cannot have: store_dtype is 'float61', sites is \['x'\]",
        ),
        (
            lambda path: change_metadata(
                path, lambda d: d["attributes"].update(layers=[0, 9], width="wide")
            ),
            r"cannot have: layers is \[0, 9\], width is 'wide'",
        ),
        (
            lambda path: change_metadata(path, lambda d: d["attributes"].update(schema_version=0)),
            r"the schema version is 0",
        ),
        (
            lambda path: change_metadata(
                path, lambda d: d["attributes"].update(attention_prompts=[0, 77])
            ),
            r"attention_prompts names prompts that are not there",
        ),
        (lambda path: truncate(path / "zarr.json"), r"zarr\.json cannot be read"),
        (lambda path: truncate(path / "loop/state/zarr.json"), r"state.zarr\.json cannot be read"),
    ],
)
def test_a_damaged_run_does_not_open(tiny, damage, message):
    damage(tiny.path)
    with pytest.raises(CorruptRunError, match=message):
        open_stored(tiny.path)


@pytest.mark.parametrize(
    ("version", "what_to_do"),
    [(3, "Update looplens"), (1, r"Record the run again, or read it with looplens 9\.9")],
)
def test_a_run_of_another_schema_says_what_to_do(tiny, version, what_to_do):
    change_metadata(
        tiny.path, lambda d: d["attributes"].update(schema_version=version, looplens_version="9.9")
    )
    message = rf"version {version} \(written by looplens 9\.9\), but .* version 2\. {what_to_do}"
    with pytest.raises(SchemaVersionError, match=message):
        open_stored(tiny.path)


def test_what_is_not_a_run_is_called_so(tmp_path):
    with pytest.raises(NotARunError, match="the directory does not exist"):
        open_stored(tmp_path / "nowhere")
    (tmp_path / "file").write_text("x")
    with pytest.raises(NotARunError, match="a run is a directory, this is a file"):
        open_stored(tmp_path / "file")
    with pytest.raises(NotARunError, match=r"the directory has no zarr\.json"):
        open_stored(tmp_path)
    xr.Dataset({"a": ("x", [1.0])}).to_zarr(tmp_path / "other", zarr_format=3, consolidated=False)
    with pytest.raises(NotARunError, match="another program wrote it"):
        open_stored(tmp_path / "other")


def test_writing_where_no_directory_can_be_is_an_error_of_the_store(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(NotARunError.__base__, match="cannot be made"):
        RunWriter(tmp_path / "file" / "run", make_spec())
