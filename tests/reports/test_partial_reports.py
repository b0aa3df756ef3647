"""Reports of runs that keep a part, of which a part is there, or of which a part is damaged."""

import json

import pytest
from selecting_runs import select_run

from looplens import reports
from looplens.run import open_run


def test_a_report_says_what_was_kept_and_what_that_hides(selected_run_path):
    run = open_run(selected_run_path)
    made = reports.build(run)
    said = {statement.key: statement.text for statement in made.not_concluded}
    assert "keep_iterations='all'" in said["kept_iterations"]
    assert "of 4, 1, 3 were kept" in said["kept_layers"]
    assert "of 24 tokens, 9 were kept" in said["kept_tokens"]
    assert "6 dimensions" in said["reduced"]
    assert made.metadata["recorded_layers"] == [1, 3]
    assert made.metadata["stored_width"] == 6
    assert json.loads(made.to_json())
    assert "layers kept: 1, 3" in made.to_markdown()


def test_a_report_of_an_incomplete_run_is_of_the_part_that_is_there(part_run_path):
    made = reports.build(open_run(part_run_path))
    said = {statement.key: statement.text for statement in made.not_concluded}
    assert "2 of 3 blocks are recorded" in said["incomplete"]
    assert "16 tokens of 24" in said["incomplete"]
    assert "not recorded" in said["unresolved"]
    assert made.section("regimes") is not None


@pytest.mark.filterwarnings("ignore")
def test_a_report_counts_what_cannot_be_read(four_layer_path, tmp_path):
    path = select_run(four_layer_path, tmp_path / "damaged", block_tokens=8)
    files = sorted(file for file in (path / "loop/state/c").rglob("*") if file.is_file())
    files[1].write_bytes(files[1].read_bytes()[:-100])  # restart 0, tokens 8 to 15
    made = reports.build(open_run(path))
    said = {statement.key: statement.text for statement in made.not_concluded}
    assert "8 tokens could not be read" in said["unreadable"]
    assert made.section("regimes") is not None
