"""Where the restarts of a run end, in counts whose sums are known."""

import numpy as np
import pytest

from looplens import analysis
from looplens.analysis.restart_views import sampled_slabs
from looplens.errors import AnalysisError, InputError
from looplens.run import open_run
from looplens.testing import synthetic_run


@pytest.fixture(scope="module")
def run(synthetic_run_path):
    return open_run(synthetic_run_path)


def test_every_token_is_counted_once_in_its_regime(run):
    found = analysis.restart_overview(run)
    assert found.attrs["tokens"] == run.n_tokens
    for name in ("gap_count", "angle_count"):
        assert int(found[name].sum()) == run.n_tokens
        # Of eight tokens of a prompt two are orbits, and one slides.
        counts = found[name].values.sum(1).tolist()
        by_group = dict(zip(found["group"].values.tolist(), counts, strict=True))
        assert by_group["orbit"] == 2 * run.n_prompts
        assert by_group["slider"] == run.n_prompts


def test_the_token_with_two_basins_is_the_one_apart(run):
    found = analysis.restart_overview(run)
    apart = found["angle_count"].values[:, found["angle_edge"].values[:-1] >= 1e-3]
    assert int(apart.sum()) == run.n_prompts
    edges = found["gap_edge"].values
    np.testing.assert_allclose(np.diff(np.log10(edges)), 0.25, rtol=1e-9)
    gap = analysis.get(run, "path_independence")["final_gap"].values
    assert edges[-1] >= gap.max()


def test_curves_are_quantiles_of_the_tokens(run):
    curves = analysis.restart_curves(run, 1)
    found = analysis.get(run, "path_independence")
    gap = found["gap"].values
    np.testing.assert_allclose(curves["run"].sel(quantile=0.5).values, np.median(gap, axis=0))
    own = gap[run.token_range(1)]
    np.testing.assert_allclose(curves["prompt"].values, np.median(own, axis=0))
    assert curves.attrs == {"tokens": run.n_tokens, "sampled": run.n_tokens}
    shares = analysis.restart_curves(run, 1, of="readout_agreement")
    agreement = found["readout_agreement"].values[run.token_range(1)].mean(0)
    np.testing.assert_allclose(shares["prompt"].values[1:], agreement[1:])
    assert np.isnan(shares["run"].values[0])  # nothing is read out of the initial state
    with pytest.raises(InputError, match="of must be 'gap' or 'readout_agreement', got 'gaps'"):
        analysis.restart_curves(run, 1, of="gaps")


def test_long_runs_are_sampled_evenly():
    slabs = sampled_slabs(100_000, most=4096)
    assert sum(slab.stop - slab.start for slab in slabs) == 4096
    assert (slabs[0].start, slabs[-1].stop) == (0, 100_000)
    gaps = np.diff([slab.start for slab in slabs])
    assert gaps.max() - gaps.min() <= 1
    assert sampled_slabs(10, most=4096) == [slice(0, 10)]


def test_one_restart_has_nothing_to_compare(tmp_path):
    run = open_run(synthetic_run(tmp_path / "run", prompts=1, restarts=1))
    with pytest.raises(AnalysisError, match="Record with restarts=2 or more"):
        analysis.restart_overview(run)
