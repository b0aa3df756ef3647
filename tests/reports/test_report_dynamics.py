"""The section and the numbers of the dynamics lab."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from looplens import analysis, reports
from looplens.analysis.dynamics import by_regime, dynamics_results, dynamics_summary, rates_agree
from looplens.run import open_run


@pytest.fixture(scope="module")
def lab_run(lab_path):
    return open_run(lab_path)


def test_the_section_names_the_token_that_moves_by_itself(lab_run):
    report = reports.build(lab_run)
    section = report.section("dynamics")
    assert "3 of 9 tokens" in section.text[0]
    facts = {fact.label: f"{fact.value} {fact.note}" for fact in section.facts}
    assert facts["Verified fixed points"].startswith("3 of 3 tokens 1 of them unstable")
    assert "1 by themselves (token 6)" in facts["Tokens that move"]
    assert {"dynamics-spectra", "dynamics-causes"} <= {p.name for p in section.pictures}
    assert {row[0] for row in section.tables[0].rows} == {"fixed point", "orbit"}
    assert "Eigenvalues" in report.to_html()


def test_a_run_without_it_has_no_section(run):
    assert reports.build(run).section("dynamics") is None
    assert "dynamics" not in analysis.summary(run)


def test_the_summary_has_numbers_of_every_result(lab_run):
    found = analysis.summary(lab_run)["dynamics"]
    assert found == dynamics_summary(lab_run)
    assert found["causes"]["n_tokens"] == 3
    assert found["causes"]["cause_comes_to_rest_share"] == pytest.approx(1 / 3)
    assert found["causes"]["radius_max"] > 1
    assert found["spectra"]["rate_agreement_share"] == 1.0
    assert not [key for key in found["causes"] if key.startswith("driver")]


def test_rates_agree_counts_settled_tokens_with_both_rates(lab_run):
    spectra = dynamics_results(lab_run)["spectra"]
    changed = spectra.copy(deep=True)
    changed["regime"].values[:] = "fixed_point"
    changed["measured_rate"].values[:] = [1.0, 1.0, np.nan]
    changed["predicted_rate"].values[:] = [0.96, 0.94, 0.5]
    assert rates_agree(changed).values.tolist() == [True, False]
    assert rates_agree(changed, tolerance=0.1).values.tolist() == [True, True]


def test_regimes_are_counted(lab_run):
    rows = by_regime(dynamics_results(lab_run))
    assert rows["orbit"]["tokens"] == 2
    assert (rows["orbit"]["own"], rows["orbit"]["driven"]) == (1, 1)
    assert rows["fixed_point"]["comes to rest"] == 1
    assert rows["fixed_point"]["exponent"] < 0


def test_damaged_results_and_those_of_another_recording_are_left_out(lab_path, tmp_path):
    run = open_run(shutil.copytree(lab_path, tmp_path / "run"))
    for file in (run.path / "analysis/dynamics/causes/cause/c").rglob("*"):
        if file.is_file():
            file.write_bytes(b"?")
    document = run.path / "analysis/dynamics/lyapunov/zarr.json"
    document.write_text(document.read_text().replace(run.input_hash(), "another"))
    assert sorted(dynamics_results(run)) == ["fixed_points", "spectra"]
    assert reports.build(run).section("dynamics") is not None
