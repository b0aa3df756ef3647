"""The plan of a recording tells its bytes to the byte, and writes nothing."""

import pytest
from crashing import PROMPTS, make_model

import looplens as ll
from looplens.errors import InputError, StoreError


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"block_tokens": 64, "sites": ["resid_post", "k", "mlp_out"], "readout": False},
        {"layers": [1], "keep_iterations": "last:3", "tokens": "last", "dtype": "float16"},
        {"reduce": "random:4", "block_tokens": 32},
        {"iterations": 200, "block_tokens": 64, "readout": False},  # several chunks in a shard
    ],
)
def test_the_plan_is_exact(changes, tmp_path):
    options = {"iterations": 20, "restarts": 2, "out": tmp_path / "run"} | changes
    plan = ll.record(make_model(), PROMPTS, plan_only=True, **options)
    assert not (tmp_path / "run").exists()
    run = ll.record(make_model(), PROMPTS, progress=False, **options)
    for path, variable in plan.variables.items():
        files = [file for file in (tmp_path / "run" / path / "c").rglob("*") if file.is_file()]
        assert sum(file.stat().st_size for file in files) == variable.nbytes, path
        assert len(files) == variable.files, path
    assert plan.total_bytes == sum(variable.nbytes for variable in plan.variables.values())
    assert (plan.n_tokens, plan.n_blocks) == (run.n_tokens, run.n_blocks)
    assert plan.fits
    assert 0 < plan.seconds < 600
    text = str(plan)
    assert f"{plan.total_bytes:,}" in text
    assert "it fits" in text


def test_a_run_that_does_not_fit_is_refused_unless_told_otherwise(tmp_path, monkeypatch):
    from looplens.store.files.local import LocalFiles

    options = {"iterations": 4, "out": tmp_path / "run", "progress": False}
    monkeypatch.setattr(LocalFiles, "free_bytes", lambda self: 1000)
    plan = ll.record(make_model(), PROMPTS, plan_only=True, **options)
    assert not plan.fits
    assert "it does NOT fit" in str(plan)
    with pytest.raises(StoreError, match="free"):
        ll.record(make_model(), PROMPTS, **options)
    assert not (tmp_path / "run").exists()
    assert ll.record(make_model(), PROMPTS, check_space=False, **options).complete


def test_a_plan_checks_its_input_like_a_recording(tmp_path):
    with pytest.raises(InputError, match="layers names 9"):
        ll.record(make_model(), PROMPTS, out=tmp_path / "run", plan_only=True, layers=9)
