"""The command line of the gallery."""

import pytest
from typer.testing import CliRunner

from looplens.cli.main import app
from looplens.errors import InputError

SCRIPT = """
from looplens.gallery import Claim, Outcome


def run(scale):
    {line}
    return Outcome(checks={{"a": False}}, summary="Nothing of it.")


CLAIM = Claim(
    number={number}, slug="s{number}", title="Claim {number}", paper="P",
    says="s", does="d", run=run,
)
"""


@pytest.fixture
def three(tmp_path, monkeypatch):
    place = tmp_path / "scripts"
    place.mkdir()
    for number, line in ((81, "pass"), (82, "raise ValueError('broken')"), (83, "pass")):
        script = SCRIPT.format(number=number, line=line)
        (place / f"c{number}_of_the_command.py").write_text(script)
    monkeypatch.setattr("looplens.gallery.scripts.folder", lambda: place)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def looplens(*arguments):
    return CliRunner().invoke(app, arguments)


def test_a_claim_that_is_not_reproduced_is_no_error(three):
    done = looplens("gallery", "run", "81", "--quick")
    assert done.exit_code == 0, done.output
    assert "not reproduced" in done.output
    assert (three / "runs/gallery/pages/81-s81.md").is_file()
    listed = looplens("gallery").output
    assert "Claim 81" in listed
    assert "not reproduced, " in listed
    assert "not run here" in listed


def test_a_broken_claim_does_not_stop_the_others(three):
    done = looplens("gallery", "run", "--all", "--smoke", "--out", "pages")
    assert done.exit_code == 1
    assert "for the reasons above: claims 82." in done.output
    assert sorted(path.name for path in (three / "pages").glob("*.md")) == [
        "81-s81.md", "83-s83.md", "index.md"
    ]  # fmt: skip


def test_what_cannot_be_run_is_said(three):
    for arguments, text in (
        (["run"], "Say which claims: their numbers, or --all"),
        (["run", "81", "--all"], "Say which claims"),
        (["run", "5"], "There is no claim 5 in the gallery. The claims are 81, 82, 83"),
        (["run", "81", "--quick", "--full"], "Choose one of --smoke, --quick and --full"),
    ):
        error = looplens("gallery", *arguments).exception
        assert isinstance(error, InputError)
        assert text in str(error)
