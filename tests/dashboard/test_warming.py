"""What is done before the address of the app is printed."""

from __future__ import annotations

import shutil
import threading

from looplens_dashboard import create_app
from looplens_dashboard.warming import warm_up

from looplens import open_run


def _wait():
    for thread in threading.enumerate():
        if thread.name == "looplens-first":
            thread.join(60)


def test_the_first_page_is_drawn_and_the_runs_are_counted(run_path, tmp_path):
    path = shutil.copytree(run_path, tmp_path / "run")
    open_run(path).analyze(["classify", "convergence"])
    shell = create_app(path).server.extensions["looplens-shell"]
    warm_up(shell)
    _wait()
    view, _, _ = shell.select({})
    assert {key[0] for key in view._made} >= {"regimes", "settling", "facts"}
    (entry,) = shell.views.workspace.entries(seconds=0)
    assert entry.size
    assert sum(entry.regimes.values()) == view.run.n_tokens * view.run.restarts


def test_a_damaged_run_does_not_keep_the_app_from_starting(bare_path, tmp_path):
    for name in ("one", "two"):
        (shutil.copytree(bare_path, tmp_path / name) / "zarr.json").write_text("{")
    warm_up(create_app(tmp_path).server.extensions["looplens-shell"])
    _wait()
