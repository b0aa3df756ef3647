"""The ways to start the app: in a terminal until it is interrupted, or inside a notebook."""

from __future__ import annotations

import os
import sys
from typing import Any

from looplens.run import Run
from looplens_dashboard.app import Runs, create_app
from looplens_dashboard.serving import Server, serve_http
from looplens_dashboard.serving.security import rules_of
from looplens_dashboard.warming import warm_up

_shown: dict[Any, App] = {}  # what is served from this process, by what it was asked for


def serve(
    runs: Runs,
    *,
    host: str = "127.0.0.1",
    port: int = 8050,
    access: str | None = None,
    open_browser: bool = False,
    **options: Any,
) -> None:
    """Serve runs until interrupted.

    Parameters
    ----------
    runs : path, looplens.Run, or several
        Runs, and folders of runs.
    host : str
        Address to listen on. The default is reachable from this machine only.
    port : int
        1 to 65535; 0 takes any free one. The address is printed.
    access : str, optional
        A token that a reader has to know, of at least 12 characters. For a host that others can
        reach one is made if none is given.
    open_browser : bool
        Open the page in a browser.
    **options
        Of `create_app`.

    Raises
    ------
    InputError
        If the address cannot be listened on, or the token is too short.
    NotARunError, SchemaVersionError, CorruptRunError
        If there is no run, or the only one cannot be opened.
    """
    app = create_app(runs, **options)
    warm_up(app.server.extensions["looplens-shell"])
    serve_http(app, host=host, port=port, access=access, open_browser=open_browser)


class App:
    """An app that runs beside the cells of a notebook, and ends with its kernel.

    Attributes
    ----------
    url : str
        Its address, to open it in a page of its own.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self.url = server.url

    @property
    def is_running(self) -> bool:
        """Whether it still answers."""
        return self._server.is_running

    def stop(self) -> None:
        """Stop it and give its port back."""
        self._server.stop()

    def __repr__(self) -> str:
        return f"<looplens app at {self._server.address}{'' if self.is_running else ', stopped'}>"


def show(
    runs: Runs,
    *,
    height: int = 900,
    host: str = "127.0.0.1",
    port: int = 0,
    access: str | None = None,
    **options: Any,
) -> App:
    """Show runs below a cell of a notebook, from a server in a thread of its kernel.

    The browser has to be on the machine of the kernel, or its port forwarded to there. The same
    runs shown again are shown by the same server.

    Parameters
    ----------
    runs : path, looplens.Run, or several
        Runs, and folders of runs.
    height : int
        Pixels.
    host, access
        As for `serve`.
    port : int
        1 to 65535; 0 takes any free one.
    **options
        Of `create_app`.

    Returns
    -------
    App
        With its address as ``url``, and ``stop()``.

    Raises
    ------
    InputError
        If the address cannot be listened on, or the token is too short.
    NotARunError, SchemaVersionError, CorruptRunError
        If there is no run, or the only one cannot be opened.
    """
    from IPython.display import IFrame, display

    several = [runs] if isinstance(runs, str | os.PathLike | Run) else list(runs)
    paths = [os.fspath(run.path if isinstance(run, Run) else run) for run in several]
    asked = repr((paths, host, port, access, sorted(options.items())))
    app = _shown.get(asked)
    if app is None or not app.is_running:
        made = create_app(paths, **options)
        rules_of(made).framed = True
        app = _shown[asked] = App(Server(made, host=host, port=port, access=access).start())
    display(IFrame(app.url, width="100%", height=height))
    return app


def launch(runs: Runs, *, port: int | None = None, **options: Any) -> App | None:
    """Show runs where this is called: below a cell of a notebook, else until interrupted.

    Parameters
    ----------
    runs : path, looplens.Run, or several
        Runs, and folders of runs.
    port : int, optional
        By default any free one in a notebook, and 8050 elsewhere.
    **options
        Of `show` in a notebook, of `serve` elsewhere.

    Returns
    -------
    App or None
        What runs, in a notebook.
    """
    if in_notebook():
        return show(runs, port=port or 0, **options)
    return serve(runs, port=8050 if port is None else port, **options)


def in_notebook() -> bool:
    """Return whether this process is the kernel of a notebook."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return getattr(shell, "kernel", None) is not None
