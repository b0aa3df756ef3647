"""Which code made a number: what counts in the hashes, and the commit."""

import subprocess

import pytest

from looplens.gallery import sources

CODE = '"""Text."""\n\n\ndef f(x):\n    """Add."""\n    return x + 1\n'


@pytest.fixture
def package(tmp_path, monkeypatch):
    place = tmp_path / "looplens"
    for name in (
        "__init__",
        "training/loop",
        "training/card",
        "models/health/slow",
        "analysis/a",
        "plots/p",
    ):
        path = place / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(CODE)
    monkeypatch.setattr(sources, "PACKAGE", place)
    return place


def test_what_is_left_out_is_there():
    for part, names in sources.LEFT_OUT.items():
        for name in names.split():
            assert (sources.PACKAGE / part / f"{name}.py").is_file(), name


def test_code_that_trains_counts_and_its_comments_do_not(package):
    plain = sources.of_weights.__wrapped__
    before = plain()
    loop = package / "training/loop.py"
    loop.write_text(CODE.replace("Add", "Add one").replace("def", "# more\ndef"))
    for left_out in ("training/card", "models/health/slow"):
        (package / f"{left_out}.py").write_text("x = 2\n")
    (package / "analysis/a.py").write_text("x = 2\n")
    assert plain() == before
    loop.write_text(CODE.replace("1", "2"))
    assert plain() != before


def test_code_that_measures_counts_and_code_that_shows_does_not(package, tmp_path):
    plain, script = sources.of_measuring.__wrapped__, tmp_path / "c01_a.py"
    script.write_text("x = 1\n")
    before = plain(script)
    (package / "plots/p.py").write_text("x = 2\n")
    assert plain(script) == before
    (package / "analysis/a.py").write_text("x = 2\n")
    other = plain(script)
    script.write_text("x = 2\n")
    changed = plain(script)
    (tmp_path / "measures_c01.py").write_text("x = 2\n")
    assert len({before, other, changed, plain(script)}) == 4


def test_the_commit_is_that_of_a_checkout_of_looplens(package, tmp_path, monkeypatch):
    def git(*words):
        author = ("-c", "user.name=a", "-c", "user.email=a@b.c")
        return subprocess.run(
            ["git", *author, *words], cwd=tmp_path, check=True, capture_output=True, text=True
        ).stdout.strip()

    commit = sources.commit.__wrapped__
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert commit() == ""  # no repository
    git("init", "-q")
    git("commit", "-q", "--allow-empty", "-m", "of somebody else")
    assert commit() == ""  # installed into the folder of another project
    git("add", "looplens")
    git("commit", "-q", "-m", "looplens")
    assert commit() == git("rev-parse", "--short=7", "HEAD")
    (tmp_path / "docs.md").write_text("a page")
    assert "modified" not in commit()
    (package / "plots/p.py").write_text("x = 2\n")
    assert commit().endswith(", modified")
    monkeypatch.setenv("PATH", "")
    assert commit() == ""
