from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from store_help import make_arrays, make_prompts, make_spec, write_blocks, write_run

from looplens.errors import CorruptRunError, InputError, RunExistsError, StoreError
from looplens.store import RunWriter, open_stored
from looplens.store.files.location import RunLocation


@pytest.mark.parametrize(
    "bounds", [[0, 21], list(range(22)), [0, 3, 4, 13, 21], [0, 8, 16, 20, 21], [0, 20, 21]]
)
def test_tokens_in_any_portions_make_the_same_run_of_whole_files(
    tmp_path, small_chunks, monkeypatch, bounds
):
    spec = make_spec()
    arrays = make_arrays(spec)
    written = []
    to_disk = RunLocation.write

    def spy(self, variable, region, data):
        if variable.path in spec.layout.variables() and variable.token_axis is not None:
            tokens = region[variable.token_axis]
            written.append((variable.path, tokens.start))
            assert tokens.start % 8 == 0
            assert tokens.stop == min(tokens.start + 8, 21)
        return to_disk(self, variable, region, data)

    monkeypatch.setattr(RunLocation, "write", spy)
    run = open_stored(write_run(tmp_path / "run", spec, arrays, bounds))
    assert len(set(written)) == len(written)
    assert run.complete
    np.testing.assert_array_equal(run.state(), arrays["loop/state"])
    np.testing.assert_array_equal(run.injected(), arrays["loop/injected"])
    for name in ("resid_post", "k"):
        np.testing.assert_array_equal(run.site(name), arrays[f"states/{name}"])
    for name, column in run.readout.data_vars.items():
        np.testing.assert_array_equal(column, arrays[f"readout/{name}"])
    for prompt in (0, 2):
        np.testing.assert_array_equal(run.attention(prompt), arrays[f"attention/{prompt}/pattern"])


def test_a_block_is_one_file_of_each_restart_and_layer(tmp_path, small_chunks):
    spec = make_spec(attention_prompts=())
    path = write_run(tmp_path / "run", spec, make_arrays(spec))
    names = {f.relative_to(path).as_posix() for f in path.glob("states/resid_post/c/**/*.*")}
    files = [f for f in (path / "states/resid_post/c").rglob("*") if f.is_file()]
    assert not names
    assert len(files) == 2 * 3 * 2  # restarts x blocks x layers
    # The last block has 5 of 8 tokens, so two of its four-token chunks, the second padded.
    sizes = {f.relative_to(path).as_posix(): f.stat().st_size for f in files}
    chunk, index = 4 * 4 * 6 * 4 + 4, 2 * 16 + 4
    assert sizes["states/resid_post/c/0/0/0/0/0"] == 2 * chunk + index
    assert sizes["states/resid_post/c/1/2/1/0/0"] == 2 * chunk + index


def test_memory_does_not_grow_with_the_run(tmp_path):
    prompts = make_prompts([200] * 5)
    spec = make_spec(
        prompts=prompts, iterations=64, d_model=64, sites=("resid_post",), attention_prompts=(),
        inject=False, readout_top_k=0, block_tokens=64,
    )  # fmt: skip
    total = sum(spec.nbytes().values())
    block = total / 1000 * 64
    states = np.ones((2, 7, 65, 64), np.float32)
    layers = np.ones((2, 7, 2, 64, 64), np.float32)
    tracemalloc.start()
    try:
        with RunWriter(tmp_path / "run", spec) as writer:
            for start in range(0, 1000, 7):
                stop = min(start + 7, 1000)
                count = stop - start
                writer.write(
                    start,
                    stop,
                    {"loop/state": states[:, :count], "states/resid_post": layers[:, :count]},
                )
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2.5 * block < total / 5


def test_a_recording_that_stops_early_keeps_its_blocks_and_says_so(tmp_path, small_chunks):
    spec = make_spec(attention_prompts=())
    arrays = make_arrays(spec)

    def stop_at_token_18():
        with RunWriter(tmp_path / "run", spec) as writer:
            write_blocks(writer, arrays, [0, 3, 18])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stop_at_token_18()
    run = open_stored(tmp_path / "run")
    assert not run.complete
    assert run.committed == {0, 1}
    np.testing.assert_array_equal(run.state(tokens=slice(0, 16)), arrays["loop/state"][:, :16])
    with pytest.raises(CorruptRunError, match=r"not recorded yet"):
        run.state(tokens=17)


def test_closing_early_names_what_is_missing(tmp_path):
    spec = make_spec()
    writer = RunWriter(tmp_path / "run", spec)
    write_blocks(writer, make_arrays(spec), [0, 5])
    with pytest.raises(
        CorruptRunError,
        match=r"5 of 21 tokens were written; attention/0/pattern is missing; .*"
        r"0 of 3 blocks are committed\. It is kept and marked incomplete; go on with resume=True",
    ):
        writer.close()
    assert not open_stored(tmp_path / "run").complete
    with pytest.raises(StoreError, match="this run is closed"):
        writer.write(5, 6, {})


def test_wrong_tokens_are_refused(tmp_path):
    spec = make_spec()
    arrays = make_arrays(spec)
    tokens = {key: array for key, array in arrays.items() if not key.startswith("attention")}
    writer = RunWriter(tmp_path / "run", spec)
    for prompt in (0, 2):
        writer.write_attention(prompt, arrays[f"attention/{prompt}/pattern"])
    state = arrays["loop/state"]
    some = {"loop/state": state}
    for start, stop, given, message in (
        (0, 5, {"loop/stat": state}, r"no array 'loop/stat'.*Did you mean 'loop/state'"),
        (0, 21, some, r"are written together .* but states/resid_post, .*kl_to_last is not given"),
        (0, 4, tokens,
         r"\(2, 4, 5, 6\) \(restart 2, token 4, iteration 5, d_model 6\), but \(2, 21, 5, 6\) was"),
        (5, 6, tokens, r"arrive in order: the next one is 0, but 5:6 was given"),
        (0, 22, tokens, r"has 21 tokens, but 0:22 was given"),
        (0, 21, tokens | {"readout/target_rank": arrays["readout/entropy"]},
         r"readout/target_rank is stored as int32, but float32 was given"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=message):
            writer.write(start, stop, given)
    with pytest.raises(
        InputError, match=r"prompt 1 was not declared; attention_prompts is \(0, 2\)"
    ):
        writer.write_attention(1, arrays["attention/0/pattern"])
    with pytest.raises(InputError, match="was written already"):
        writer.write_attention(0, arrays["attention/0/pattern"])


def test_float16_refuses_what_does_not_fit(tmp_path):
    spec = make_spec(dtype="float16", attention_prompts=(), sites=(), inject=False, readout_top_k=0)
    state = make_arrays(spec)["loop/state"]
    state[0, 3] = np.inf  # was infinite in the model: kept, and counted
    state[1, 2, 0, 0] = -7e4
    message = r"loop/state holds 1 numbers too large for float16: the largest is 70000.*65504.*32'"
    writer = RunWriter(tmp_path / "run", spec)
    with pytest.raises(StoreError, match=message):
        writer.write_block(0, {"loop/state": state[:, :8]})
    assert not list((tmp_path / "run" / "loop" / "state").glob("c/*/*/*/*"))
    state[1, 2, 0, 0] = 6e4
    writer.write(0, 21, {"loop/state": state})
    writer.close()
    assert open_stored(tmp_path / "run").non_finite == {"loop/state": 5 * 6}


def test_non_finite_numbers_are_counted_and_kept(tmp_path, small_chunks):
    spec = make_spec()
    arrays = make_arrays(spec)
    arrays["states/resid_post"][:] = np.nan  # equal to the fill value, and still on disk
    arrays["loop/state"][0, 20, 1:3] = np.inf
    arrays["loop/state"][0, 2, 1] = np.inf
    arrays["readout/target_logprob"][:] = np.nan  # says "no target" and is no accident
    arrays["readout/target_rank"][:] = -1
    arrays["attention/0/pattern"][0, 0, 0, 0, 0, 0] = np.nan
    run = open_stored(write_run(tmp_path / "run", spec, arrays))
    assert run.non_finite == {
        "states/resid_post": arrays["states/resid_post"].size,
        "loop/state": 18,  # of two blocks
        "attention/0/pattern": 1,
    }
    assert "NaN or infinite numbers: " in repr(run)
    assert np.isnan(run.site()).all()
    assert (run.readout["target_rank"] == -1).all()


def test_only_a_run_is_ever_replaced(tiny, tmp_path):
    with pytest.raises(RunExistsError, match=r"exists already at .*pass overwrite=True"):
        RunWriter(tiny.path, tiny.spec)
    (tmp_path / "link").symlink_to(tiny.path)
    with pytest.raises(RunExistsError, match="symbolic link"):
        RunWriter(tmp_path / "link", tiny.spec, overwrite=True)
    (tiny.path / "notes.txt").write_text("mine")
    with pytest.raises(
        RunExistsError, match=r"also holds notes\.txt, which looplens did not write"
    ):
        RunWriter(tiny.path, tiny.spec, overwrite=True)
    (tiny.path / "notes.txt").unlink()
    assert open_stored(tiny.path).complete
    writer = RunWriter(tiny.path, tiny.spec, overwrite=True)
    assert not writer.finish()  # though the run in its final place is complete, and the same
    assert open_stored(tiny.path).complete  # the old run stays until the new one is whole
    assert not open_stored(writer.location.path).complete

    other = tmp_path / "photos"
    other.mkdir()
    RunWriter(other, tiny.spec)  # an empty directory is free
    for name, content in (("a.jpg", "x"), ("zarr.json", '{"attributes": {"schema_version": 1}}')):
        foreign = tmp_path / f"foreign {name}"
        foreign.mkdir()
        (foreign / name).write_text(content)
        with pytest.raises(RunExistsError, match="is not a looplens run, so it is left alone"):
            RunWriter(foreign, tiny.spec, overwrite=True)
        assert (foreign / name).read_text() == content


def test_a_full_disk_is_noticed_before_recording(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 1000}))
    with pytest.raises(StoreError, match=r"The run needs .* MiB, but only 0\.0 MiB are free at"):
        RunWriter(tmp_path / "run", make_spec())
    RunWriter(tmp_path / "run", make_spec(), check_space=False)
