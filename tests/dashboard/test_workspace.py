"""The list of runs: what is found, what is refused, and that nothing outside can be reached."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from looplens_dashboard import finding, workspace
from looplens_dashboard.workspace import Workspace

from looplens import open_run
from looplens.errors import CorruptRunError, InputError, NotARunError, StoreError
from looplens.testing import synthetic_run


@pytest.fixture
def folder(tmp_path: Path, bare_path: Path) -> Path:
    """``runs/one``, ``runs/group/two`` and what is no run."""
    runs = tmp_path / "runs"
    shutil.copytree(bare_path, runs / "one")
    shutil.copytree(bare_path, runs / "group" / "two")
    (runs / "other").mkdir()
    (runs / "other" / "zarr.json").write_text('{"node_type": "group", "attributes": {}}')
    shutil.copytree(bare_path, runs / ".hidden")
    return runs


def test_runs_are_found_below_folders_and_described(folder: Path) -> None:
    space = Workspace(folder)
    listed = {entry.key: entry for entry in space.entries()}
    assert list(listed) == ["group/two", "one"]
    one, run = listed["one"], open_run(folder / "one")
    assert (one.tokens, one.iterations, one.restarts) == (run.n_tokens, run.iterations, 1)
    assert one.model == run.model_name
    assert one.created == run.attrs["created"]
    assert one.complete
    files = [file for file in (folder / "one").rglob("*") if file.is_file()]
    assert one.size == sum(file.stat().st_size for file in files)
    assert one.regimes is None
    assert space.default_key == "group/two"
    assert Workspace([folder / "one", folder]).default_key == "one"


def test_stored_regimes_are_counted(folder: Path) -> None:
    space = Workspace(folder)
    assert space.entry("one").regimes is None
    run = open_run(folder / "one")
    run.analyze(["classify"])
    counted = space.entry("one").regimes
    assert counted is not None
    assert sum(counted.values()) == run.n_tokens


def test_a_run_is_opened_once_until_it_changes(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workspace, "MOST_OPEN", 1)
    space = Workspace(folder)
    run = space.open("one")
    assert space.open("one") is run
    document = json.loads((folder / "one" / "zarr.json").read_text())
    document["attributes"]["complete"] = False
    (folder / "one" / "zarr.json").write_text(json.dumps(document))
    changed = space.open("one")
    assert not changed.complete
    assert not space.entry("one").complete
    space.open("group/two")
    assert space.open("one") is not changed  # only one was kept


def test_runs_that_appear_and_go_are_noticed(
    folder: Path, bare_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workspace, "_RESCAN_SECONDS", 0.0)
    space = Workspace(folder)
    shutil.copytree(bare_path, folder / "three")
    assert space.open("three").n_tokens  # without a look at the list before
    shutil.rmtree(folder / "one")
    assert [entry.key for entry in space.entries()] == ["group/two", "three"]
    with pytest.raises(InputError, match=r"no run 'one' here\. .*group/two and three"):
        space.open("one")


@pytest.mark.parametrize(
    "key", ["../runs/one", "/etc", "..", "", "one/../one", "one\x00", "group", "file:///etc"]
)
def test_what_is_not_listed_cannot_be_opened(folder: Path, key: str) -> None:
    space = Workspace(folder)
    with pytest.raises(InputError, match="There is no run"):
        space.open(key)
    with pytest.raises(InputError, match="Did you mean 'one'"):
        space.open("onee")


def test_links_that_lead_outside_are_listed_and_not_followed(
    folder: Path, bare_path: Path, tmp_path: Path
) -> None:
    outside = tmp_path / "elsewhere"
    shutil.copytree(bare_path, outside)
    (folder / "link").symlink_to(outside)
    (folder / "again").symlink_to(folder / "one")  # is found as itself
    os.rename(folder / "group" / "two" / "tokens", tmp_path / "tokens")
    (folder / "group" / "two" / "tokens").symlink_to(tmp_path / "tokens")
    space = Workspace(folder)
    listed = {entry.key: entry for entry in space.entries()}
    assert list(listed) == ["group/two", "link", "one"]
    assert "leads out of the opened folders" in (listed["link"].problem or "")
    for key in ("link", "group/two"):
        with pytest.raises(StoreError, match="leads out of the opened folders"):
            space.open(key)
    both = Workspace([folder, outside])
    assert both.open("elsewhere").n_tokens
    (tmp_path / "named").symlink_to(outside)
    assert Workspace(tmp_path / "named").open("elsewhere").n_tokens


def test_metadata_that_cannot_be_read_are_listed_as_damage(folder: Path) -> None:
    (folder / "one" / "zarr.json").write_text("{")
    listed = {entry.key: entry.problem for entry in Workspace(folder).entries()}
    assert "cannot be read" in (listed["one"] or "")
    assert listed["group/two"] is None


def test_damage_is_said_of_one_among_many_and_raised_of_the_only_one(folder: Path) -> None:
    shutil.rmtree(folder / "one" / "tokens" / "text")
    space = Workspace(folder)
    problem = {entry.key: entry.problem for entry in space.entries()}["one"]
    assert problem is not None
    assert "tokens/text" in problem
    with pytest.raises(CorruptRunError, match="tokens/text"):
        space.open("one")
    with pytest.raises(CorruptRunError, match="tokens/text"):
        Workspace(folder / "one")


def test_paths_without_a_run_are_refused_unless_some_will_be_recorded(tmp_path: Path) -> None:
    with pytest.raises(NotARunError, match=r"There is no run in .*, down to 4 folders deep"):
        Workspace(tmp_path)
    with pytest.raises(NotARunError, match="does not exist"):
        Workspace([tmp_path, tmp_path / "absent"])
    with pytest.raises(InputError, match="nothing to show"):
        Workspace([])
    space = Workspace(tmp_path, may_be_empty=True)
    assert space.entries() == []
    assert space.default_key is None
    with pytest.raises(InputError, match=r"No run lies in .* yet"):
        space.open("one")


def test_a_run_can_be_added_and_taken_away(folder: Path, tmp_path: Path) -> None:
    space = Workspace(folder)
    path = synthetic_run(tmp_path / "live", prompts=1, iterations=32, restarts=1, attention=False)
    assert space.add(path, "live").key == "live"
    assert space.open("live").path == path
    with pytest.raises(InputError, match="There is a run 'one' already"):
        space.add(path.parent / "other", "one")
    with pytest.raises(InputError, match="stays listed"):
        space.remove("one")
    space.remove("live")
    assert "live" not in {entry.key for entry in space.entries()}
    assert path.exists()


def test_equal_names_get_keys_of_their_own(folder: Path, bare_path: Path, tmp_path: Path) -> None:
    shutil.copytree(bare_path, tmp_path / "more" / "one")
    space = Workspace([folder, tmp_path / "more"])
    assert [entry.key for entry in space.entries()] == ["group/two", "one", "one~2"]
    assert space.open("one~2").path == tmp_path / "more" / "one"


def test_a_large_tree_is_looked_into_up_to_a_limit(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finding, "MOST_FOLDERS", 1)
    space = Workspace(folder)
    assert [entry.key for entry in space.entries()] == ["one"]
    assert "folders in" in space.notes[0]
