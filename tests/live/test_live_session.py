"""Recording from the page, without the page: what is refused, progress, ends, and what is left."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from looplens_dashboard.live import LiveLimits, LiveSession, find_models
from looplens_dashboard.live import session as live_session
from looplens_dashboard.live.job import WORKER
from looplens_dashboard.live.session import PREFIX, remove_leftovers

import looplens
from looplens.errors import InputError
from looplens.testing.runs import synthetic_run

ASKED = {"model": "affine-huginn-mini", "text": "3+4*2", "iterations": 8, "restarts": 2}

RECORDS = """
import json, os, sys
asked = json.loads(sys.stdin.readline())
def say(**message): print(json.dumps(message), flush=True)
say(stage="recording", share=0.25)
say(note="one thing to know")
os.mkdir(asked["out"])
open(os.path.join(asked["out"], "zarr.json"), "w").write("{}")
say(stage="done")
"""
WAITS = """
import json, subprocess, sys, time
asked = json.loads(sys.stdin.readline())
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
print(json.dumps({"stage": "recording", "share": 0.5}), flush=True)
print(json.dumps({"note": str(child.pid)}), flush=True)
time.sleep(60)
"""


def program(text: str) -> tuple[str, ...]:
    return sys.executable, "-c", text


@pytest.fixture(autouse=True)
def own_temp(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


@pytest.fixture
def session():
    """Return a maker of sessions, all of which are closed in the end."""
    made: list[LiveSession] = []

    def make(text: str = RECORDS, **limits) -> LiveSession:
        made.append(LiveSession(limits=LiveLimits(**limits), command=program(text)))
        return made[-1]

    yield make
    for one in made:
        one.close()


def ended(session: LiveSession, id: str):
    return session._job(id).wait(60)


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_bundled_models_are_described_without_torch() -> None:
    models = find_models()
    assert set(models) == set(looplens.bundled_models())
    affine = models["affine-huginn-mini"]
    assert (affine.characters, affine.n_ctx, affine.iterations) == ("0123456+*", 64, 16)
    assert set(affine.example(3)) <= set(affine.characters)
    assert affine.example(3) == affine.example(3) != affine.example(4)


def test_directories_are_checkpoints_or_folders_of_them(tmp_path) -> None:
    bundled = find_models()["affine-huginn-mini"].path
    (tmp_path / "mine").mkdir()
    shutil.copytree(bundled, tmp_path / "mine" / "affine-huginn-mini")
    (tmp_path / "mine" / "elsewhere").symlink_to(bundled)
    found = find_models([tmp_path / "mine"])
    added = [name for name in found if name not in looplens.bundled_models()]
    assert added == ["affine-huginn-mini (2)"]  # a link out of the folder is no model
    assert not found["affine-huginn-mini (2)"].bundled
    with pytest.raises(InputError, match=r"holds no model: expected a checkpoint directory \(with"):
        find_models([tmp_path / "nothing"])


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"model": "affine-hugin"}, "no model 'affine-hugin' here.*Did you mean 'affine-hu"),
        ({"model": "/etc"}, "There is no model '/etc' here"),
        ({"model": ["x"]}, "There is no model"),
        ({"text": "  "}, "There is no prompt yet"),
        ({"text": None}, "There is no prompt yet"),
        ({"text": "1" * 4001}, "has 4001 characters; at most 4000"),
        ({"text": "3-4"}, "affine-huginn-mini does not know the character '-'. It knows these: 0"),
        ({"text": "1" * 65}, "has 65 tokens; affine-huginn-mini takes at most 64"),
        ({"text": "1\n" * 33, "lines": True}, "33 prompts; at most 32"),
        ({"iterations": 257}, "Iterations must lie between 1 and 256, not 257"),
        ({"iterations": "8"}, "Iterations must be a whole number, not '8'"),
        ({"restarts": True}, "Restarts must be a whole number"),
        ({"restarts": 2.5}, "Restarts must be a whole number"),
        ({"seed": -1}, "The seed must lie between 0"),
        ({"start": "elsewhere"}, "start must be one of own, noise, perturbed, zeros"),
    ],
)
def test_what_cannot_be_recorded_is_said_before_a_process_starts(session, changed, message) -> None:
    one = session()
    with pytest.raises(InputError, match=message):
        one.start(ASKED | changed)
    assert one.states() == []


def test_memory_and_torch_are_checked_before_a_process_starts(session, monkeypatch) -> None:
    one = session(memory_bytes=2**20)
    with pytest.raises(InputError, match=r"needs about 1.0 GiB of memory, and .* 1.0 MiB on this"):
        one.start(ASKED)
    monkeypatch.setattr(live_session.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"needs torch .*pip install 'looplens-interp\[record\]'"):
        session().start(ASKED)


def test_a_recording_is_kept_under_a_plain_name_or_thrown_away(session, tmp_path) -> None:
    one, folder = session(), tmp_path / "opened"
    folder.mkdir()
    state = ended(one, one.start(ASKED).id)
    assert (state.stage, state.notes, state.prompt) == ("done", ("one thing to know",), "3+4*2")
    path = one.path(state.id)
    for name in ("", "../up", ".hidden", "a/b", "a" * 65, None):
        with pytest.raises(InputError, match="A name has 1 to 64 letters"):
            one.keep(state.id, folder, name)
    (folder / "taken").mkdir()
    with pytest.raises(InputError, match="There is a 'taken' in opened already"):
        one.keep(state.id, folder, "taken")
    with pytest.raises(InputError, match=r"cannot be kept in nowhere.*It is still here"):
        one.keep(state.id, tmp_path / "nowhere", "mine")
    assert one.keep(state.id, folder, "mine") == folder / "mine"
    assert (folder / "mine" / "zarr.json").exists()
    assert not path.parent.exists()
    with pytest.raises(InputError, match="not here any more"):
        one.path(state.id)
    other = ended(one, one.start(ASKED).id)
    one.discard(other.id)
    assert one.states() == []
    one.close()
    assert not list(tmp_path.glob(f"{PREFIX}*"))
    assert {path.name for path in folder.iterdir()} == {"mine", "taken"}


def test_cancelling_ends_the_whole_group_and_leaves_nothing(session, tmp_path) -> None:
    one = session(WAITS)
    id = one.start(ASKED).id
    while not one.state(id).notes:
        time.sleep(0.02)
    assert (one.state(id).words, one.state(id).running) == ("recording, 50%", True)
    with pytest.raises(InputError, match=r"of affine-huginn-mini is running \(recording, 50%\)"):
        one.start(ASKED)
    with pytest.raises(InputError, match="not finished: recording, 50%"):
        one.path(id)
    child = int(one.state(id).notes[0])
    assert is_alive(child)
    assert one.cancel(id).stage == "cancelled"
    deadline = time.monotonic() + 10
    while is_alive(child) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not is_alive(child)
    (folder,) = tmp_path.glob(f"{PREFIX}*")
    assert [path.name for path in folder.iterdir()] == ["lock"]
    assert one.start(ASKED).running  # the next one may begin


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import os; os.kill(os.getpid(), 9)", "most likely because memory ran out"),
        ("import os; os.kill(os.getpid(), 11)", r"crashed \(signal 11\)"),
        ("raise SystemExit(3)", r"without a result \(exit code 3\)"),
        ('print(\'{"error": "too much"}\'); raise SystemExit(2)', "too much"),
        ("print('[]'); print('no JSON'); print('{\"stage\": 7}')", "without a result"),
    ],
)
def test_a_process_that_fails_is_explained(session, tmp_path, text, message) -> None:
    one = session(text)
    state = ended(one, one.start(ASKED).id)
    assert state.stage == "failed"
    assert re.search(message, state.message)
    assert [path.name for path in tmp_path.glob(f"{PREFIX}*/*")] == ["lock"]


def test_time_and_the_number_of_recordings_are_bounded(session) -> None:
    one = session(WAITS, seconds=0.5)
    state = ended(one, one.start(ASKED).id)
    assert (state.stage, state.message[:41]) == (
        "failed",
        "It took longer than 0.00833 minutes, whic",
    )
    few = session(waiting=1)
    ended(few, few.start(ASKED).id)
    with pytest.raises(InputError, match=r"1 recordings wait to be kept. Keep or throw away"):
        few.start(ASKED)


def test_leftovers_of_a_killed_app_are_removed_and_those_of_a_living_one_stay(
    session, tmp_path
) -> None:
    living = session(WAITS)
    living.start(ASKED)
    dead = tmp_path / f"{PREFIX}dead"
    dead.mkdir()
    (dead / "lock").touch()
    for folder in tmp_path.glob(f"{PREFIX}*"):
        os.utime(folder / "lock", (0, 0))
    remove_leftovers()
    assert not dead.exists()
    assert len(list(tmp_path.glob(f"{PREFIX}*"))) == 1


def test_the_worker_ends_with_the_app(tmp_path) -> None:
    """Standard input that closes is an app that is gone."""
    pytest.importorskip("torch")
    asked = {"model": str(tmp_path), "memory_bytes": 2**31}
    worker = subprocess.Popen(
        WORKER, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    )
    worker.stdin.write(json.dumps(asked).encode() + b"\n")
    worker.stdin.close()
    assert worker.wait(30) == -9
    worker.stdout.close()


@pytest.mark.slow
def test_a_model_is_recorded_and_analysed_for_real(tmp_path) -> None:
    pytest.importorskip("torch")
    one = LiveSession(limits=LiveLimits(run_bytes=2**24))
    state = ended(one, one.start(ASKED | {"model": "phop-ouro-mini", "text": "abcab"}).id)
    assert state.stage == "done", state.message
    assert "always starts from its embedding; the restarts are that" in state.notes[0]
    run = looplens.open_run(one.path(state.id))
    assert (run.n_tokens, run.iterations, run.restarts) == (5, 8, 2)
    assert run.name == "live-1"
    assert "classify" in run.analyses
    assert list(run.attention_prompts) == [0]
    large = {"text": "3+4*2" * 8, "iterations": 256, "restarts": 8}
    refused = ended(one, one.start(ASKED | large).id)
    assert "would take" in refused.message
    assert "the attention alone takes" in refused.message
    one.close()
    assert not list(tmp_path.glob(f"{PREFIX}*"))


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_an_app_that_is_ended_leaves_nothing_behind(tmp_path, how) -> None:
    run = synthetic_run(tmp_path / "run", prompts=1, iterations=8, attention=False)
    serves = (
        "import signal, sys\n"
        # A shell that starts the tests in the background has them ignore interruptions.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "import looplens_dashboard.app as app\n"
        "from looplens_dashboard.live import LiveSession\n"
        "from looplens_dashboard.serving import serve_http\n"
        f"session = LiveSession(command=(sys.executable, '-c', {WAITS!r}))\n"
        "app.LiveSession = lambda models: session\n"
        f"made = app.create_app({str(run)!r})\n"
        f"id = session.start({ASKED!r}).id\n"
        "while not session.state(id).notes: pass\n"
        "print(session.state(id).notes[0], flush=True)\n"
        "serve_http(made, port=0)\n"
    )
    temp = tmp_path / "temp"
    temp.mkdir()
    app = subprocess.Popen(
        program(serves), stdout=subprocess.PIPE, text=True, env=os.environ | {"TMPDIR": str(temp)}
    )
    child = int(app.stdout.readline())
    assert "looplens app: http" in app.stdout.readline()
    assert is_alive(child)
    assert len(list(temp.iterdir())) == 1
    app.send_signal(how)
    app.wait(30)
    app.stdout.close()
    deadline = time.monotonic() + 10
    while is_alive(child) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not is_alive(child)
    assert list(temp.iterdir()) == []
