"""The page Live: a recording is asked for, watched, cancelled, looked at, kept and thrown away."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

import pytest
from dashboard_driver import serving
from looplens_dashboard.live import LiveSession, LiveShelf
from looplens_dashboard.pages.live.recording import LOOK_EVERY
from looplens_dashboard.workspace import Workspace

from looplens.errors import InputError
from looplens.testing.runs import synthetic_run

ASKED = {"model": "affine-huginn-mini", "text": "3+4*2"}
# Stands in for the process that records: it writes a run of formulas.
RECORDS = """
import json, sys
asked = json.loads(sys.stdin.readline())
def say(**message): print(json.dumps(message), flush=True)
say(stage="recording", share=0.5)
from looplens.testing.runs import synthetic_run
synthetic_run(asked["out"], prompts=1, iterations=8, attention=False)
say(stage="done")
"""


@pytest.fixture(autouse=True)
def own_temp(tmp_path, monkeypatch):
    (tmp_path / "temp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temp"))


@pytest.fixture
def folder(tmp_path) -> Path:
    """A folder with one run, ``first``, in it."""
    synthetic_run(tmp_path / "opened" / "first", prompts=1, iterations=8, attention=False)
    return tmp_path / "opened"


def test_recordings_join_and_leave_the_list_of_runs(folder) -> None:
    session = LiveSession(command=(sys.executable, "-c", RECORDS))
    workspace = Workspace(folder)
    shelf = LiveShelf(session, workspace)

    def recorded() -> str:
        id = session.start(ASKED).id
        assert session._job(id).wait(60).stage == "done"
        shelf.states()
        return id

    def keys() -> list[str]:
        return [entry.key for entry in workspace.entries()]

    one, other = recorded(), recorded()
    assert keys() == ["first", "live-1", "live-2"]
    assert workspace.open("live-2").iterations == 8
    with pytest.raises(InputError, match="There is a 'first' in opened already"):
        shelf.keep(one, 0, "first")
    with pytest.raises(InputError, match="That folder is not open any more"):
        shelf.keep(one, 1, "mine")
    assert keys() == ["first", "live-1", "live-2"]  # it stays where it is
    assert shelf.keep(one, 0, "mine") == "mine"
    assert sorted(keys()) == ["first", "live-2", "mine"]
    assert workspace.open("mine").path == folder / "mine"
    assert shelf.discard(other) == "live-2"
    assert sorted(keys()) == ["first", "mine"]
    session.close()
    alone = LiveShelf(session, Workspace(folder / "first"))
    with pytest.raises(InputError, match="No folder is open to keep it in"):
        alone.keep(one, 0, "mine")


@pytest.mark.browser
def test_the_page_says_what_is_wrong_and_how_far_it_is(visit, folder, monkeypatch) -> None:
    waits = 'import sys, time; sys.stdin.readline(); print(\'{"stage": "recording", '
    waits += '"share": 0.5}\', flush=True); time.sleep(60)'
    monkeypatch.setattr(
        "looplens_dashboard.app.LiveSession",
        lambda models: LiveSession(models, command=(sys.executable, "-c", waits)),
    )
    # A click is answered later than the page looks; what the answer says is shown all the same.
    monkeypatch.setattr(
        "looplens_dashboard.live.session.check_memory",
        lambda *_: time.sleep(2.5 * LOOK_EVERY / 1000),
    )
    page = visit.page
    with serving(folder) as address:
        visit.open(f"{address}live")
        page.wait_for_selector("#live-record")
        page.click("#live-record")
        page.wait_for_selector("#live-said:has-text('There is no prompt yet')")
        page.click("#live-example")
        page.wait_for_function("document.querySelector('#live-text').value.length > 3")
        page.fill("#live-text", "3-4")
        page.keyboard.press("Tab")
        page.click("#live-record")
        page.wait_for_selector("#live-said:has-text(\"does not know the character '-'\")")
        page.fill("#live-text", "3+4")
        page.click("#live-record")
        page.wait_for_selector("#live-now:has-text('recording, 50%')")
        assert page.get_attribute("#live-now [role=progressbar]", "aria-valuenow") == "38"
        page.click("#live-record")
        page.wait_for_selector("#live-said:has-text('is running (recording, 50%)')")
        page.click("text=Dark")
        visit.wait_for_query(theme="dark")
        page.wait_for_selector("#live-now:has-text('recording, 50%')")
        assert page.input_value("#live-text") == "3+4"  # what was typed stays
        page.click("#live-now button:has-text('Cancel')")
        page.wait_for_selector("#live-now:has-text('Cancelled after')")
        assert visit.complaints == []


@pytest.mark.browser
@pytest.mark.slow
def test_the_first_run_is_recorded_looked_at_and_kept(visit, tmp_path) -> None:
    """From a folder without any run: record, look, keep, and throw another one away."""
    pytest.importorskip("torch")
    folder = tmp_path / "mine"
    folder.mkdir()
    page = visit.page
    with serving(folder) as address:
        visit.open(f"{address}live")
        page.fill("#live-text", "3+4*2")
        page.fill("#live-iterations", "8")
        page.click("#live-record")
        page.wait_for_selector("text=Look at it", timeout=120_000)
        page.click("text=Look at it")
        visit.wait_for_query(run="live-1")
        visit.drawn()
        assert visit.graph("trajectory", "graph.data.length") > 2
        page.click("#to-live")
        page.wait_for_selector("button:has-text('Keep')")
        page.fill("[aria-label='Name to keep live-1 under']", "../up")
        page.click("button:has-text('Keep')")
        page.wait_for_selector("#live-said:has-text('A name has 1 to 64 letters')")
        page.fill("[aria-label='Name to keep live-1 under']", "kept")
        page.click("button:has-text('Keep')")
        visit.wait_for_query(run="kept")
        assert json.loads((folder / "kept" / "zarr.json").read_text())["node_type"] == "group"
        page.wait_for_selector("text=What is recorded here is listed")
        visit.settle()
        page.click("#to-trajectories")
        visit.drawn()
        assert visit.query["run"] == "kept"
        assert visit.complaints == []
