"""The section and the numbers of the dynamics lab."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import xarray as xr

from looplens import analysis, reports
from looplens.analysis.dynamics import (
    WORDS,
    by_regime,
    dynamics_results,
    dynamics_summary,
    rates_agree,
)
from looplens.reports._sections.dynamics_facts import COMES_BACK, facts
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
    assert found["causes"]["cause_unexplained_share"] == 0
    assert found["lyapunov"]["leading_exponent_max"] < 0
    assert "arrives_median" not in found["fixed_points"]  # the number of a point


def test_words_are_those_of_the_experiments():
    from looplens.dynamics.eigen import causes
    from looplens.dynamics.exponents import averages
    from looplens.dynamics.pushing import returning, swapping

    of_causes = (
        *(causes.OWN, causes.DRIVEN, causes.BOTH, causes.TOGETHER),
        *(causes.RESTS, causes.UNEXPLAINED),
    )
    assert WORDS["causes", "cause"] == of_causes
    assert WORDS["lyapunov", "regime"] == averages.REGIMES
    assert WORDS["recovery", "outcome"] == tuple(returning.OUTCOMES)
    assert set(COMES_BACK) == set(returning.COMES_BACK)
    assert WORDS["swap_states", "ends"] == tuple(swapping.ENDS)


def test_findings_of_pushes_and_gains_are_one_line_each():
    def of(**variables):
        return xr.Dataset(
            {name: (dims, np.array(values)) for name, (dims, values) in variables.items()},
            coords={"token": [3, 8]},
        )

    nan, token = np.nan, ("token",)
    kinds = np.array(["flip", ""], object), np.array(["fold", "neimark_sacker"], object)
    continuation = of(
        onset_below=(token, [0.5, nan]),
        onset_above=(token, [1.2, 1.5]),
        onset_below_kind=(token, kinds[0]),
        onset_above_kind=(token, kinds[1]),
    ).assign_attrs(knob_part="state")
    recovery = of(outcome=(token, np.array(["back", "away"], object)))
    results = {
        "continuation": continuation,
        "recovery": recovery.assign_attrs(push={"size": 0.1}),
        "basin_radius": of(least_radius=(token, [0.25, nan])),
        "damage_cone": of(affected_share=(token, [0.5, nan])),
        "swap_states": of(ends=(("token", "swapped_at"), np.array([["own", "other"]] * 2, object))),
    }
    said = {fact.label: f"{fact.value} {fact.note}" for fact in facts(results)}
    assert said["Stability changes"] == (
        "2 of 2 tokens with a gain on state; token 3: fold at 1.2, token 8: neimark_sacker at 1.5"
    )
    assert said["Pushed states come back"].startswith("1 of 2 tokens after a push of 0.1")
    assert said["Basin radius"].startswith("0.25 of the norm, median over 1 tokens")
    assert said["Tokens that notice"].startswith("50")
    assert said["Foreign states are forgotten"].startswith("50")


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
