"""What the first reader would wait for, done before the address is printed."""

from __future__ import annotations

import contextlib
import importlib
import threading
from typing import TYPE_CHECKING

from looplens.errors import LoopLensError
from looplens_dashboard.panels.drawing import attempt, fitted

if TYPE_CHECKING:
    from looplens_dashboard.shell.wiring import Shell


def warm_up(shell: Shell) -> None:
    """Open the run that is shown first; its first page is drawn meanwhile, in a thread.

    A run that cannot be opened says so on the page.
    """
    with contextlib.suppress(ImportError):
        importlib.import_module("dask.array")  # which xarray imports at the first table with texts
    with contextlib.suppress(LoopLensError):
        shell.select({})
        threading.Thread(target=_draw, args=(shell,), daemon=True, name="looplens-first").start()


def _draw(shell: Shell) -> None:
    """Draw the panels of the first page, which are remembered; then look at the listed runs."""
    with contextlib.suppress(LoopLensError):
        view, selection, _ = shell.select({})
        for panel in (*shell.bar_panels, *shell.pages[selection.page].panels):
            if panel.body is not None:
                attempt(lambda panel=panel: panel.body(view, selection))
            elif panel.call is not None:
                attempt(lambda panel=panel: fitted(panel, view, selection))
    for entry in shell.views.workspace.entries(seconds=0):
        with contextlib.suppress(LoopLensError):  # one by one: others read in between
            shell.views.workspace.entry(entry.key)
