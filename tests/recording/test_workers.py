"""Whoever records which block of a run, its bytes are the same."""

import pytest
from crashing import OPTIONS, PROMPTS, files_of, make_model

import looplens as ll
from looplens.errors import InputError, StoreError


@pytest.mark.parametrize(
    "changes",
    [
        {"attention": [0, 5, 20, 39]},
        {
            "layers": [1],
            "keep_iterations": "every:3",
            "tokens": lambda prompt: [0, len(prompt) - 1],
            "attention": [3, 30],
        },
        {"reduce": "pca:8", "restarts": 3},
        {"dtype": "float16", "sites": ["resid_post", "k", "mlp_out"], "readout": False},
    ],
    ids=["attention", "selected", "reduced", "float16"],
)
def test_workers_together_write_what_one_writes(changes, tmp_path):
    options = {"iterations": 9, "block_tokens": 32, "progress": False} | changes
    whole = ll.record(make_model(), PROMPTS, out=tmp_path / "whole", **options)
    assert whole.complete
    for worker in ("2/3", (0, 3), "1/3"):  # in any order
        run = ll.record(make_model(), PROMPTS, out=tmp_path / "shared", worker=worker, **options)
        assert run.complete == (worker == "1/3")
    assert files_of(tmp_path / "shared") == files_of(tmp_path / "whole")
    again = ll.record(make_model(), PROMPTS, out=tmp_path / "shared", worker="0/3", **options)
    assert again.complete


@pytest.mark.parametrize(
    ("worker", "message"),
    [
        ("3/3", "there is no worker 3 of 3: workers are counted from 0 to 2"),
        ((-1, 2), "there is no worker -1 of 2"),
        ("2", "a number and a count such as '0/4'"),
        ("a/b", "a number and a count"),
        (1, "a number and a count"),
    ],
)
def test_a_worker_that_does_not_exist_is_refused(worker, message, tmp_path):
    with pytest.raises(InputError, match=message):
        ll.record(make_model(), PROMPTS, out=tmp_path / "run", worker=worker)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_dask_records_the_same_bytes(tmp_path):
    distributed = pytest.importorskip("distributed")
    ll.record(make_model(), PROMPTS, out=tmp_path / "whole", **OPTIONS)
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        run = ll.record(make_model(), PROMPTS, out=tmp_path / "dask", client=client, **OPTIONS)
        assert run.complete
        with pytest.raises(StoreError, match="does not see the run at memory://elsewhere"):
            ll.record(make_model(), PROMPTS, out="memory://elsewhere", client=client, **OPTIONS)
        with pytest.raises(InputError, match="two ways to share"):
            ll.record(make_model(), PROMPTS, out=tmp_path / "x", client=client, worker="0/2")
    assert files_of(tmp_path / "dask") == files_of(tmp_path / "whole")
