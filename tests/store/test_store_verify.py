from __future__ import annotations

import json
import shutil

import pytest
from store_help import make_arrays, make_spec, tokens_of

from looplens.errors import CorruptRunError, NotARunError
from looplens.store import RunWriter, open_stored
from looplens.store.files.location import RunLocation
from looplens.store.reading.verifying import verify


def flip(file, offset=0):
    content = bytearray(file.read_bytes())
    content[offset] ^= 1
    file.write_bytes(content)


def test_a_whole_run_is_read_to_the_last_byte(tiny):
    seen = []
    report = verify(tiny.path, progress=lambda *numbers: seen.append(numbers))
    assert report.ok
    assert (report.n_blocks, report.checked, report.uncommitted) == (3, 3, ())
    assert seen == [(1, 3), (2, 3), (3, 3)]
    recorded = [f for g in ("loop", "states", "readout", "attention") for f in
                (tiny.path / g).glob("**/c/**/*")]  # fmt: skip
    coordinates = {"iteration", "layer"}
    assert report.nbytes == sum(
        f.stat().st_size
        for f in recorded
        if f.is_file() and not coordinates & set(f.relative_to(tiny.path).parts)
    )
    assert str(report).endswith("ok")


@pytest.mark.parametrize("offset", [0, 500, -30, -1], ids=["first", "number", "index", "last"])
def test_a_flipped_byte_anywhere_in_a_file_is_found_and_its_block_named(tiny, offset):
    flip(tiny.path / "states/resid_post/c/1/1/0/0/0", offset)
    report = verify(tiny.path)
    (damage,) = report.damaged
    assert (damage.block, damage.file) == (1, "states/resid_post/c/1/1/0/0/0")
    assert "does not match its checksum" in damage.what
    assert not report.ok
    assert "Restore the blocks 1 from a copy" in str(report)


def test_every_other_damage_is_named_too(tiny):
    path = tiny.path
    flip(path / "attention/2/pattern/c/0/0/0/0/0/0", 9)
    (path / "loop/injected/c/1/0").unlink()
    (path / "loop/state/c/0/2/0/0").write_bytes(b"short")
    # Whole and with a right checksum, but of other tokens.
    shutil.copy(path / "states/k/c/0/0/0/0/0/0", path / "states/k/c/0/1/0/0/0/0")
    flip(path / "tokens/text/c/0", 40)
    found = {(d.block, d.file, d.what.split(" (")[0]) for d in verify(path).damaged}
    missing = (None, "tokens/text")
    assert {f for f in found if f[:2] != missing} == {
        (0, "attention/2/pattern/c/0/0/0/0/0/0", "does not match its checksum"),
        (1, "loop/injected/c/1/0", "is missing"),
        (1, "states/k/c/0/1/0/0/0/0", "does not match its checksum"),
        (2, "loop/state/c/0/2/0/0", "has 5 bytes, less than the 36 of its index"),
    }
    assert missing in {f[:2] for f in found}
    (path / "blocks/000000.json").write_text("{")
    (path / "blocks/000002.json").unlink()
    report = verify(path)
    assert report.damaged_blocks == (0, 1, 2)
    with pytest.raises(NotARunError):
        verify(path / "loop" / "state" / "c")


def test_an_incomplete_run_reads_what_is_committed_and_is_whole_so_far(tmp_path, small_chunks):
    spec = make_spec()
    arrays = make_arrays(spec)
    path = tmp_path / "run"
    hashes = []
    for block in (2, 0):
        with RunWriter(path, spec, resume=True) as writer:
            start, stop = writer.block_range(block)
            columns = {
                key: tokens_of(array, spec, key, start, stop)
                for key, array in arrays.items()
                if not key.startswith("attention/")
            }
            patterns = {i: arrays[f"attention/{i}/pattern"] for i in writer.patterns_of(block)}
            writer.write_block(block, columns, patterns)
        run = open_stored(path)
        hashes.append((run.input_hash(), run.block_hash(2)))
        if block == 2:
            with pytest.raises(CorruptRunError, match=r"attention of prompt 2 is not recorded yet"):
                run.attention(2)
            with pytest.raises(CorruptRunError, match=r"pattern.*is not recorded yet"):
                run.tree["attention/2/pattern"].load()
    assert hashes[0] == hashes[1]
    assert (run.complete, run.committed, run.n_blocks) == (False, {0, 2}, 3)
    assert run.committed_tokens.tolist() == [True] * 8 + [False] * 8 + [True] * 5
    assert (run.state(tokens=run.committed_tokens) == arrays["loop/state"][
        :, run.committed_tokens]).all()  # fmt: skip
    assert (run.attention(2) == arrays["attention/2/pattern"]).all()
    assert "INCOMPLETE 2 of 3 blocks are recorded; go on with resume=True" in repr(run)
    for read in (run.state, run.site, run.injected, run.readout.load):
        with pytest.raises(
            CorruptRunError,
            match=r"is not recorded yet: block 1 \(tokens 8 to 15\) is missing, 2 of 3 blocks",
        ):
            read()
    with pytest.raises(CorruptRunError, match="block 1 is not recorded yet"):
        run.block_hash(1)
    report = verify(path)
    assert (report.ok, report.checked, report.uncommitted) == (True, 2, (1,))
    assert "not recorded yet: 1 (go on with resume=True)" in str(report)
    # What was written of a block that was never committed is nobody's business.
    RunLocation(path).write_atomic("loop/state/c/0/1/0/0", b"half")
    assert verify(path).ok
    # A run that says it is complete has a record of every block.
    document = json.loads((path / "zarr.json").read_text())
    document["attributes"]["complete"] = True
    (path / "zarr.json").write_text(json.dumps(document))
    assert [str(d) for d in verify(path).damaged] == ["block 1: blocks/000001.json is missing"]


def test_changed_attributes_are_found(tiny):
    file = tiny.path / "zarr.json"
    document = json.loads(file.read_text())
    assert verify(tiny.path).ok
    document["attributes"]["restart_seeds"][0] = 7
    file.write_text(json.dumps(document))
    report = verify(tiny.path)
    assert not report.ok
    assert "zarr.json has other attributes (model, seeds, settings, sizes)" in str(report)
