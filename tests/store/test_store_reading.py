from __future__ import annotations

import subprocess
import sys
import tracemalloc
import warnings

import numpy as np
import pytest
import xarray as xr
from store_help import make_arrays, make_prompts, make_spec, write_run

from looplens.errors import AnalysisError, InputError
from looplens.run import Run, open_run
from looplens.store import open_stored
from looplens.store.files import shard_reading


@pytest.mark.parametrize(
    "tokens", [0, -1, 20, slice(3, 11), slice(None, None, 5), [9, 1, 1, 20], np.arange(21) > 17, []]
)
@pytest.mark.parametrize(("restart", "layer"), [(None, None), (1, 0), (slice(1, 2), -1)])
def test_selecting_is_numpy_indexing_with_global_labels(pristine, tokens, restart, layer):
    run = open_stored(pristine.path)
    pick = slice(None) if restart is None else restart
    index = np.array(tokens, int) if isinstance(tokens, list) else tokens
    state = run.state(restart=restart, tokens=tokens)
    np.testing.assert_array_equal(state, pristine.arrays["loop/state"][pick][..., index, :, :])
    site = run.site("k", restart=restart, tokens=tokens, layer=layer)
    expected = xr.DataArray(
        pristine.arrays["states/k"],
        dims=("restart", "token", "layer", "iteration", "kv_head", "d_head"),
        coords={
            "restart": range(2),
            "token": range(21),
            "layer": range(2),
            "iteration": range(1, 5),
        },
    ).isel(restart=pick, token=index, layer=slice(None) if layer is None else layer)
    xr.testing.assert_equal(site, expected)
    assert state.coords["iteration"].values.tolist() == [0, 1, 2, 3, 4]
    np.testing.assert_array_equal(run.injected(tokens), pristine.arrays["loop/injected"][index])


def test_what_does_not_exist_is_refused_by_name(pristine):
    run = open_stored(pristine.path)
    for read, message in (
        (lambda: run.state(tokens=21), r"no token 21: this run has 21, counted 0 to 20"),
        (lambda: run.state(tokens=[0, -22]), r"no token -22"),
        (lambda: run.state(restart=2), r"no restart 2: this run has 2, counted 0 to 1"),
        (lambda: run.site(layer=5), r"no layer 5"),
        (
            lambda: run.state(tokens=[0.5]),
            r"tokens must be an int, a slice, a row of ints or one",
        ),
        (lambda: run.state(restart="a"), r"restart must be an int or a slice, but is a str"),
        (lambda: run.token_range(4), r"no prompt 4"),
    ):
        with pytest.raises(InputError, match=message):
            read()
    with pytest.raises(
        AnalysisError, match=r"no site 'resid_pos'; recorded are: resid_post, k.*Di"
    ):
        run.site("resid_pos")
    with pytest.raises(AnalysisError, match=r"no attention of prompt 1; prompts with attention: 0"):
        run.attention(1)


def test_a_run_without_options_says_what_to_record(tmp_path):
    spec = make_spec(sites=(), inject=False, readout_top_k=0, attention_prompts=())
    run = open_stored(write_run(tmp_path / "run", spec, make_arrays(spec)))
    assert list(run.tree.children) == ["prompts", "tokens", "loop"]
    with pytest.raises(AnalysisError, match=r"no readout.*readout=True"):
        _ = run.readout
    with pytest.raises(AnalysisError, match=r"'tiny' injects nothing"):
        run.injected()
    with pytest.raises(AnalysisError, match=r"recorded are: none"):
        run.site()


def test_tables_lay_prompts_end_to_end(pristine):
    run = open_stored(pristine.path)
    assert run.prompts["n_tokens"].values.tolist() == [5, 1, 7, 8]
    assert [run.token_range(i) for i in range(4)] == [
        slice(0, 5), slice(5, 6), slice(6, 13), slice(13, 21)
    ]  # fmt: skip
    assert run.prompts["text"].values[0] == "ééééé"
    assert run.prompts["task"].values.tolist() == ["", "task 1", "task 2", "task 3"]
    np.testing.assert_array_equal(run.prompts["level"], [3, np.nan, np.nan, np.nan])
    tokens = run.tokens.isel(token=run.token_range(2))
    assert (tokens["prompt"] == 2).all()
    assert tokens["position"].values.tolist() == list(range(7))
    assert (tokens["target"] == -1).all()
    assert run.tokens["target"].values[13:].tolist() == [0, 1, 2, 3, 4, 5, 6, -1]
    assert np.isnan(run.tokens["hops"].values[:5]).all()
    assert run.find_tokens("t6").tolist() == [12, 19]
    assert run.find_tokens("6", whole=False).tolist() == [12, 19]
    assert run.find_tokens("nowhere").size == 0


def test_plain_xarray_reads_all_of_it_without_a_warning(tiny):
    run = open_stored(tiny.path)
    run.write_analysis(
        "verdicts",
        xr.Dataset({"regime": ("token", np.array(["orbit"] * 21)), "gap": ("token", np.ones(21))}),
        version=2,
        parameters={},
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tree = xr.open_datatree(tiny.path, engine="zarr")
        for key, array in tiny.arrays.items():
            np.testing.assert_array_equal(tree[key], array)
        assert tree["tokens/text"].values[0] == " t0"
        assert tree["prompts/text"].values[0] == "ééééé"
        assert tree["analysis/verdicts/regime"].values.tolist() == ["orbit"] * 21
    assert tree.attrs["schema_version"] == 2
    assert tree.attrs["complete"] is True
    assert tree["loop"]["iteration"].values.tolist() == [0, 1, 2, 3, 4]
    assert tree["states"]["iteration"].values.tolist() == [1, 2, 3, 4]
    assert tree["attention/0"]["layer"].values.tolist() == [0, 1]
    for node in (tree["loop/state"], tree["readout/entropy"], tree["tokens/target"]):
        assert node.attrs["long_name"]
        assert node.attrs["units"]
    ours = run.tree
    assert set(ours.children) == set(tree.children)
    xr.testing.assert_equal(ours["attention/0"].to_dataset(), tree["attention/0"].to_dataset())


def test_one_token_touches_one_chunk_of_each_restart_and_layer(pristine, monkeypatch):
    run = open_stored(pristine.path)
    touched = []
    read = shard_reading._read_chunk

    def spy(reader, fmt, key, chunk, *others):
        touched.append((key, chunk))
        read(reader, fmt, key, chunk, *others)

    monkeypatch.setattr(shard_reading, "_read_chunk", spy)
    run.state(restart=0, tokens=9)
    assert touched == [("loop/state/c/0/1/0/0", (0, 2, 0, 0))]
    touched.clear()
    run.site(restart=1, tokens=9)
    assert touched == [
        ("states/resid_post/c/1/1/0/0/0", (1, 2, 0, 0, 0)),
        ("states/resid_post/c/1/1/1/0/0", (1, 2, 1, 0, 0)),
    ]


def test_tokens_from_all_over_a_run_do_not_bring_all_of_it_into_memory(tmp_path):
    prompts = make_prompts([500])
    spec = make_spec(
        prompts=prompts, iterations=64, d_model=64, restarts=1, sites=(), attention_prompts=(),
        inject=False, readout_top_k=0,
    )  # fmt: skip
    shape = (1, 500, 65, 64)
    states = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    run = open_stored(write_run(tmp_path / "run", spec, {"loop/state": states}))
    run.state(tokens=0)
    tracemalloc.start()
    try:
        picked = run.state(restart=0, tokens=np.arange(0, 500, 50))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    np.testing.assert_array_equal(picked, states[0, ::50])
    assert peak < 3 * 2**20 < states.nbytes


def test_blocks_cover_all_tokens_along_chunks(pristine):
    run = open_stored(pristine.path)
    largest = 2 * 2 * 4 * 6 * 4  # bytes of one token's resid_post: restarts, layers, T, d_model
    for size, expected in ((1, 4), (largest * 9, 8), (2**26, 21)):
        blocks = list(run.blocks(size))
        assert np.concatenate([np.arange(21)[block] for block in blocks]).tolist() == list(
            range(21)
        )
        assert blocks[0] == slice(0, expected)


def test_the_hash_tells_recordings_apart(pristine, tmp_path):
    run = open_stored(pristine.path)
    assert run.input_hash() == open_stored(pristine.path).input_hash()
    again = write_run(tmp_path / "again", pristine.spec, pristine.arrays)
    assert run.input_hash() != open_stored(again).input_hash()


def test_opening_a_run_needs_no_torch(synthetic_run_path):
    code = (
        "import sys, looplens; run = looplens.open_run(sys.argv[1]); run.state(tokens=0);"
        "sys.exit(bool({'torch', 'transformer_lens', 'plotly', 'dash'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", code, str(synthetic_run_path)], check=True)


def test_open_run_gives_the_facade(synthetic_run_path):
    run = open_run(synthetic_run_path)
    assert isinstance(run, Run)
    assert run.model_name == "synthetic"
    assert (run.n_prompts, run.n_tokens, run.restarts, run.iterations) == (3, 24, 2, 64)
    assert run.attention_prompts == (0, 1, 2)
    assert repr(run).startswith("<Run ")
