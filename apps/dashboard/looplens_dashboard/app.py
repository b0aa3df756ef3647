"""Makes the Dash app of a run and serves it on this machine.

Nothing is loaded from elsewhere and nothing is sent anywhere: all scripts are served from here, and
a content security policy tells the browser to refuse any other address. The app only reads the run.
"""

from __future__ import annotations

import os
import socket
import threading
import webbrowser
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from dash import Dash
from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server

from looplens.errors import InputError
from looplens.run import Run
from looplens_dashboard import layout, wiring
from looplens_dashboard.view import View

CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'self'",
        # Dash starts from an inline script, and WebGL figures compile their shaders' wrappers.
        "script-src 'self' 'unsafe-inline' 'unsafe-eval'",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "font-src 'self' data:",
        "connect-src 'self'",
        "worker-src 'self' blob:",
        "object-src 'none'",
        "base-uri 'none'",
        "form-action 'none'",
    )
)
"""Sent with every response, so that the browser itself refuses requests to anywhere else."""

_LARGEST_REQUEST = 4 * 2**20


class _QuietHandler(WSGIRequestHandler):
    """Answers requests without printing a line for each."""

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Print nothing: a page makes hundreds of requests, and errors have lines of their own."""


def create_app(run: str | os.PathLike[str] | Run) -> Dash:
    """Return the dashboard of a run, ready to be served.

    Parameters
    ----------
    run : path or looplens.Run
        The directory of a recorded run, or the opened run.

    Returns
    -------
    dash.Dash
        The app; its Flask server is ``app.server``.

    Raises
    ------
    NotARunError, SchemaVersionError, CorruptRunError
        If the run cannot be opened. Damage that shows only when a part is read is reported in the
        panel that reads it.
    """
    view = View(run.path if isinstance(run, Run) else run)
    app = Dash(
        "looplens_dashboard",
        assets_folder=str(Path(__file__).parent / "assets"),
        serve_locally=True,
        external_scripts=[],
        external_stylesheets=[],
        title=f"{view.name} · looplens",
        update_title="",
        add_log_handler=False,
        enable_mcp=False,
        use_async=False,  # by default it depends on what else happens to be installed
    )
    app.enable_dev_tools(debug=False, dev_tools_disable_version_check=True)
    app.server.config["MAX_CONTENT_LENGTH"] = _LARGEST_REQUEST
    app.server.after_request(_secure)
    app.layout = layout.page(view)
    wiring.register(app, view)
    return app


def serve(
    run: str | os.PathLike[str] | Run,
    *,
    host: str = "127.0.0.1",
    port: int = 8050,
    open_browser: bool = False,
    debug: bool = False,
) -> None:
    """Serve the dashboard of a run until interrupted.

    Parameters
    ----------
    run : path or looplens.Run
        The run to show.
    host : str
        Address to listen on. The default is reachable from this machine only.
    port : int
        Port, 1 to 65535; 0 takes any free one. The address is printed.
    open_browser : bool
        Open the page in a browser.
    debug : bool
        Dash's tools for developing the dashboard itself; not for looking at runs.

    Raises
    ------
    InputError
        If the address cannot be listened on.
    NotARunError, SchemaVersionError, CorruptRunError
        If the run cannot be opened.
    """
    app = create_app(run)
    if debug:
        app.run(host=host, port=port, debug=True, use_reloader=False)
        return
    server = make_http_server(app, host=host, port=port)
    address = f"http://{f'[{host}]' if ':' in host else host}:{server.port}/"
    print(
        f"looplens dashboard of {app.title.removesuffix(' · looplens')}: {address} (Ctrl+C stops)"
    )
    if not is_loopback(host):
        print(f"It listens on {host}: everyone who can reach this machine can read the run.")
    if open_browser:
        threading.Timer(0.5, webbrowser.open, args=(address,)).start()
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        print("stopped")
    finally:
        server.server_close()


def make_http_server(app: Dash, *, host: str = "127.0.0.1", port: int = 8050) -> BaseWSGIServer:
    """Return a server that listens already; run it with ``serve_forever()``.

    Raises
    ------
    InputError
        If the address cannot be listened on.
    """
    if not 0 <= port <= 65535:
        raise InputError(f"port must lie between 0 and 65535, got {port}.")
    if is_loopback(host):
        # A page elsewhere whose name is made to point here must not be able to read the run.
        app.server.config["TRUSTED_HOSTS"] = ["localhost", "127.0.0.1", "[::1]", host]
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise InputError(
            f"Cannot listen on {host}, port {port}: {error.strerror or error}. Choose another "
            "port, for example port=0 for any free one."
        ) from error
    with listener:
        return make_server(
            host,
            port,
            app.server,
            threaded=True,
            request_handler=_QuietHandler,
            fd=os.dup(listener.fileno()),
        )


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach an address."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _secure(response: Any) -> Any:
    """Add the headers that keep the browser from talking to anyone else."""
    response.headers["Content-Security-Policy"] = CONTENT_SECURITY_POLICY
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Referrer-Policy"] = "no-referrer"
    return response
