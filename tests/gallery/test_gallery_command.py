"""The command line of the gallery."""

import subprocess
import sys

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
    place = tmp_path / "examples" / "gallery"
    place.mkdir(parents=True)
    for number, line in ((81, "pass"), (82, "raise ValueError('broken')"), (83, "pass")):
        script = SCRIPT.format(number=number, line=line)
        (place / f"c{number}_of_the_command.py").write_text(script)
    monkeypatch.setattr("looplens.gallery.scripts.folder", lambda: place)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
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
    assert "1 against; " in listed
    assert "not run here" in listed


def test_a_broken_claim_does_not_stop_the_others(three):
    done = looplens("gallery", "run", "--all", "--smoke")
    assert done.exit_code == 1
    assert "for the reasons above: claims 82." in done.output
    assert sorted(path.name for path in (three / "runs/gallery/smoke").glob("*.md")) == [
        "81-s81.md", "83-s83.md", "index.md"
    ]  # fmt: skip


def test_what_cannot_be_run_is_said(three):
    for arguments, text in (
        (["run"], "Say which claims: their numbers, or --all"),
        (["run", "81", "--all"], "Say which claims"),
        (["show", "5"], "There is no claim 5 in the gallery. The claims are 81, 82, 83"),
        (["run", "81", "--out", "examples/gallery/c81_of_the_command.py"], "command.py is a file"),
        (
            ["run", "81", "--cache", "examples/gallery/c81_of_the_command.py"],
            "command.py is a file",
        ),
        (["run", "81", "--device", "nothing"], "This machine has no device 'nothing' (Expected"),
        (["run", "5"], "There is no claim 5 in the gallery. The claims are 81, 82, 83"),
        (["run", "81", "--quick", "--full"], "Choose one of --smoke, --quick and --full"),
    ):
        error = looplens("gallery", *arguments).exception
        assert isinstance(error, InputError)
        assert text in str(error)


def test_a_smaller_size_takes_no_page_away_silently(three):
    assert looplens("gallery", "run", "81", "--full").exit_code == 0
    page = three / "runs/gallery/pages/81-s81.md"
    error = looplens("gallery", "run", "81", "--smoke", "--out", "runs/gallery/pages").exception
    assert "81-s81.md was made with --full, and a smoke run has no verdict" in str(error)
    assert "run 81 --full" in page.read_text()
    assert looplens("gallery", "run", "81", "--smoke").exit_code == 0
    assert "run 81 --full" in page.read_text()
    done = looplens("gallery", "run", "81", "--quick")
    assert "was made with --full; this run replaces it by a page of --quick" in done.output
    assert "run 81 --quick" in page.read_text()


def test_a_claim_can_be_read_before_and_after_it_was_run(three):
    before = looplens("gallery", "show", "83").output
    assert "What is run: d" in before
    assert "Run it: looplens gallery run 83 --quick" in before
    looplens("gallery", "run", "83")
    after = looplens("gallery", "show", "83").output
    for part in ("Verdict: not reproduced. Nothing of it.", "  against  a", "83-s83.md"):
        assert part in after


def test_pages_of_the_checkout_are_shown_where_nothing_was_run(three):
    looplens("gallery", "run", "81", "--out", "docs/gallery")
    assert "page: docs/gallery/81-s81.md" in looplens("gallery", "show", "81").output
    looplens("gallery", "run", "81")
    assert "page: runs/gallery/pages/81-s81.md" in looplens("gallery", "show", "81").output


def test_listing_loads_neither_torch_nor_plotly():
    code = (
        "import sys; from looplens.cli import main; sys.argv = ['looplens', 'gallery']\n"
        "try: main()\nexcept SystemExit: pass\n"
        "sys.exit(', '.join({'torch', 'plotly', 'scipy'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "looplens gallery show NUMBER" in done.stdout
