"""The command `dynamics`: the model of a run, tokens in words, what is printed and stored."""

from __future__ import annotations

import json
import shutil

import pytest

from looplens.cli import main
from looplens.dynamics.laboratory.parts import PARTS
from looplens.errors import AnalysisError
from looplens.plots._dynamics._stored import stored
from looplens.run import open_run


@pytest.fixture
def cli(monkeypatch, capsys):
    """Run one command; return (exit code, standard output, standard error)."""

    def run(*arguments) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["looplens", *map(str, arguments)])
        monkeypatch.setenv("COLUMNS", "200")
        try:
            main()
            code = 0
        except SystemExit as stop:
            code = stop.code or 0
        out, err = capsys.readouterr()
        return int(code), out, err

    return run


@pytest.fixture
def run_path(lab_path, tmp_path):
    return shutil.copytree(lab_path, tmp_path / "run")


def test_tokens_are_added_to_what_is_stored(cli, run_path):
    code, out, err = cli(
        "dynamics", run_path, "--tokens", "4:7", "--parts", "spectra,causes", "--no-progress"
    )
    assert code == 0
    assert "3 of 9 tokens, by their numbers" in err
    assert "spectra: 2 of 3 tokens are stored already" in err
    assert "Tokens that move: 2 of 4 (1 by themselves (token 6); 1 driven by another" in out
    assert "unstable point" in out
    assert f"next: looplens app {run_path}" in out
    run = open_run(run_path)
    assert run.analysis("dynamics/spectra")["token"].values.tolist() == [4, 5, 6, 7]
    facts = json.loads(cli("info", run_path, "--json")[1])
    assert {"dynamics/causes", "dynamics/lyapunov"} <= set(facts["analyses"])


def test_a_choice_in_words_and_one_part(cli, run_path):
    code, out, err = cli(
        *("dynamics", run_path, "--tokens", "orbit", "--max-tokens", 1),
        *("--parts", "spectra", "--again", "--prompt", 0),
    )
    assert code == 0
    assert "1 of 9 tokens: 1 of 3 orbit" in err
    assert "causes" in out  # of an earlier call


def test_conditions_on_what_is_stored(cli, run_path):
    passed = "dynamics.spectra.rate_agreement_share < 0.95"
    failed = "dynamics.causes.cause_own_share > 0.1"
    code, out, err = cli("report", run_path, "--format", "md", "--fail-if", passed)
    assert code == 0
    assert "## Dynamics lab" in out
    code, _, err = cli("report", run_path, "--format", "json", "--fail-if", failed)
    assert code == 1
    assert f"{failed} (it is 0.333333)" in err
    never = "dynamics.causes.cause_unexplained_share > 0"  # a word that no token has
    assert cli("report", run_path, "--format", "json", "--fail-if", never)[0] == 0


def test_a_condition_on_what_is_not_stored_names_the_command(cli, synthetic_run_path):
    condition = "dynamics.causes.cause_own_share > 0"
    code, _, err = cli("report", synthetic_run_path, "--format", "json", "--fail-if", condition)
    assert code == 2
    assert "looplens dynamics" in " ".join(err.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tokens", "moveing"], "Did you mean 'moving'"),
        (["--tokens", "3,x"], "--tokens expects numbers such as 0,3,-1; got 'x'"),
        (["--tokens", "5:5"], "names no token"),
        (["--tokens", "99"], "99 is not in this run"),
        (["--parts", "spectrum"], "Did you mean 'spectra'"),
        (["--model", "affine-huginn-mini"], "The weights of affine-huginn-mini"),
        (["--model", "nowhere"], "no model called 'nowhere'"),
        (["--restart", "7"], "restarts 0 to 1"),
        (["--restart", "1"], "dynamics/fixed_points of 3 tokens, made with restart=0"),
    ],
)
def test_mistakes_end_in_one_message(cli, run_path, arguments, message):
    code, _, err = cli("dynamics", run_path, *arguments)
    assert code == 2
    assert message in " ".join(err.split())
    assert "Traceback" not in err


def test_every_part_is_named_in_the_help(cli):
    shown = cli("dynamics", "--help")[1]
    assert not [name for name in PARTS if name not in shown]


def test_tokens_without_a_result_are_named_and_a_part_without_any_ends_in_code_2(cli, run_path):
    parts = ("recovery", "swap_states")
    code, out, err = cli("dynamics", run_path, "--tokens", 6, "--parts", ",".join(parts))
    assert code == 2
    assert "swap_states: 1 of 1 tokens have no result." in err
    assert "Pushed states come back: 1 of 1 tokens (after a push of 0.1 of the norm" in out
    run = open_run(run_path)
    assert "dynamics/recovery" in run.analyses
    assert "dynamics/swap_states" not in run.analyses
    with pytest.raises(AnalysisError, match=f"looplens dynamics {run_path} --parts swap_states"):
        stored(run, "swap_states")


def test_an_interrupted_command_says_how_to_go_on(cli, run_path, monkeypatch):
    def interrupted(*_args, **_named):
        raise KeyboardInterrupt

    monkeypatch.setattr("looplens.dynamics.investigate", interrupted)
    code, _, err = cli("dynamics", run_path, "--tokens", 6)
    assert code == 130
    assert "the same command goes on from there" in err


def test_a_run_of_another_model_asks_for_it(cli, synthetic_run_path):
    code, _, err = cli("dynamics", synthetic_run_path)
    assert code == 2
    assert "--model" in err
