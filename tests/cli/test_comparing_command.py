"""`looplens compare` and `looplens analyze --by`, in process, through the real entry point."""

from __future__ import annotations

import json

import pytest

from looplens.cli import main
from looplens.testing.runs import synthetic_run


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    """Two runs of the same prompts, and one of others."""
    made = tmp_path_factory.mktemp("compare")
    sizes = {"iterations": 24, "attention": False}
    return (
        synthetic_run(made / "one", **sizes),
        synthetic_run(made / "two", seed=1, **sizes),
        synthetic_run(made / "three", tokens=5, **sizes),
    )


@pytest.fixture
def cli(monkeypatch, capsys):
    """Run one command; return (exit code, standard output, standard error)."""

    def run(*arguments) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["looplens", *map(str, arguments)])
        monkeypatch.setenv("COLUMNS", "200")
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        return code, *capsys.readouterr()

    return run


def test_it_shows_the_differences_and_writes_a_report(cli, paths, tmp_path):
    out = tmp_path / "compared.json"
    code, text, said = cli(
        *("compare", *paths[:2], "--only", "convergence", "--only", "classify"),
        *("--by", "difficulty", "--n-boot", 100, "--out", out),
    )
    assert code == 0
    assert "a: one, b: two: 3 prompts, 24 tokens in both" in text
    assert "classify.regime: the same for" in text
    assert f"wrote {out}" in said
    sent = json.loads(out.read_text())
    assert sent["run"]["by"] == "difficulty"
    assert "groups.1.convergence" in sent["summary"]


@pytest.mark.parametrize(
    ("condition", "code"),
    [("compared.tokens == 24", 1), ("agreement.classify.regime.share > 1", 0), ("nothing > 1", 2)],
)
def test_conditions_set_the_exit_code(cli, paths, condition, code):
    found = cli(
        *("compare", *paths[:2], "--only", "classify", "--n-boot", 100, "--fail-if", condition)
    )
    assert found[0] == code


def test_some_of_the_prompts(cli, paths):
    code, text, said = cli(
        *("compare", *paths[:2], "--only", "classify", "--n-boot", 100, "--most-tokens", 12)
    )
    assert code == 0
    assert "1 prompts, 8 tokens in both" in text
    assert "1 of the 3 shared prompts are compared" in " ".join(said.split())


def test_runs_without_a_common_prompt_name_the_first_difference(cli, paths):
    code, _, said = cli("compare", paths[0], paths[2])
    assert code == 2
    words = " ".join(said.split())
    assert "no prompt in common" in words
    assert "in prompt 0, of which 8 tokens are recorded against 5" in words


def test_analyze_by_a_column(cli, paths):
    code, text, _ = cli("analyze", paths[0], "--only", "classify", "--by", "difficulty")
    assert code == 0
    assert "median or share by difficulty" in text
    assert "classify.regime.orbit" in text
    code, _, said = cli("analyze", paths[0], "--by", "dificulty")
    assert code == 2
    assert "Did you mean 'difficulty'" in " ".join(said.split())
