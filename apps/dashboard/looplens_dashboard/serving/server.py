"""A threaded HTTP server for one app: listens, prints where, and stops.

It is the server of Werkzeug with limits: connections at once, and seconds that an idle one is kept.
"""

from __future__ import annotations

import contextlib
import signal
import socket
import threading
import webbrowser
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

from dash import Dash
from werkzeug.serving import ThreadedWSGIServer, WSGIRequestHandler

from looplens.errors import InputError
from looplens_dashboard.serving.access import PARAMETER, AccessToken
from looplens_dashboard.serving.hosts import OWN_NAMES, is_loopback, with_brackets
from looplens_dashboard.serving.security import rules_of

MOST_CONNECTIONS = 512
IDLE_SECONDS = 30
"""Limits of the server: browsers keep six connections each, and open new ones when they need to."""


class _Handler(WSGIRequestHandler):
    """Answers requests without printing a line for each."""

    protocol_version = "HTTP/1.1"  # connections are kept for the next request
    timeout = IDLE_SECONDS

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Print nothing: a page makes hundreds of requests, and errors have lines of their own."""

    def version_string(self) -> str:
        """Name the program only; versions are nobody's business."""
        return "looplens"


class _HTTPServer(ThreadedWSGIServer):
    """One thread for each connection, and not more of them than allowed."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._free = threading.BoundedSemaphore(MOST_CONNECTIONS)

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()


class Server:
    """An app that is listened for, on a port of this machine.

    Parameters
    ----------
    app : dash.Dash
        An app that `secure` was called on.
    host : str
        Address to listen on. The default is reachable from this machine only.
    port : int
        1 to 65535; 0 takes any free one.
    access : str, optional
        A token that a reader has to know. On an address that others can reach one is made if none
        is given.

    Attributes
    ----------
    host, port : str, int
        Where it listens.
    url : str
        What to open, with the token if there is one.

    Raises
    ------
    InputError
        If the address cannot be listened on, or the token is too short.
    """

    def __init__(
        self, app: Dash, *, host: str = "127.0.0.1", port: int = 8050, access: str | None = None
    ) -> None:
        rules, host = rules_of(app), host.strip("[]")
        if access is not None or (rules.access is None and not is_loopback(host)):
            rules.access = AccessToken(access)
        if is_loopback(host):
            # A page elsewhere whose name is made to point here must not be able to read the runs.
            rules.hosts = (*OWN_NAMES, host)
        elif rules.hosts == OWN_NAMES:
            rules.hosts = None  # this machine has names that nobody knows here; the token guards
        self._server = _listening(app, host, port)
        self._thread: threading.Thread | None = None
        self.host, self.port = host, self._server.port
        reachable = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
        query = f"?{PARAMETER}={quote(rules.access.text, safe='')}" if rules.access else ""
        self.address = f"http://{with_brackets(reachable)}:{self.port}/"
        self.url = f"{self.address}{query}"

    def serve_forever(self) -> None:
        """Answer until `stop` is called in another thread, or the process is interrupted."""
        try:
            self._server.serve_forever(poll_interval=0.1)
        finally:
            self._server.server_close()

    def start(self) -> Server:
        """Answer in a thread that ends with the process; return the server."""
        self._thread = threading.Thread(
            target=self.serve_forever, name=f"looplens-app-{self.port}", daemon=True
        )
        self._thread.start()
        return self

    @property
    def is_running(self) -> bool:
        """Whether the thread of `start` answers."""
        return self._thread is not None and self._thread.is_alive()

    def stop(self) -> None:
        """Stop answering, and give the port back."""
        if self._thread is None:
            self._server.server_close()
        elif self.is_running:
            self._server.shutdown()
            self._thread.join()


@contextlib.contextmanager
def running(app: Dash, **options: Any) -> Iterator[str]:
    """Serve an app on a free port for a ``with`` block; give the address to open.

    Parameters
    ----------
    app : dash.Dash
        An app that `secure` was called on.
    **options
        Of `Server`.
    """
    server = Server(app, **{"port": 0, **options}).start()
    try:
        yield server.url
    finally:
        server.stop()


def serve_http(app: Dash, *, open_browser: bool = False, **options: Any) -> None:
    """Serve an app until it is interrupted, and print where.

    Parameters
    ----------
    app : dash.Dash
        An app that `secure` was called on.
    open_browser : bool
        Open the page in a browser.
    **options
        Of `Server`: host, port, access.

    Raises
    ------
    InputError
        If the address cannot be listened on, or the token is too short.
    """
    server = Server(app, **options)
    with contextlib.suppress(ValueError):  # not the main thread, which alone hears signals
        # Being ended is an interruption too: what is being recorded ends and leaves nothing behind.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    print(f"looplens app: {server.url} (Ctrl+C stops)", flush=True)
    if not is_loopback(server.host):
        print(
            f"It listens on {server.host}, unencrypted: whoever has this address with its token "
            "can read the runs. Keep it to networks that you trust.",
            flush=True,
        )
    if open_browser:
        threading.Timer(0.5, webbrowser.open, args=(server.url,)).start()
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        print("stopped")


def _listening(app: Dash, host: str, port: int) -> _HTTPServer:
    """Return a server that listens already."""
    if not 0 <= port <= 65535:
        raise InputError(f"port must lie between 0 and 65535, got {port}.")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((host, port))
            listener.listen(128)
        except OSError as error:
            raise InputError(
                f"Cannot listen on {host}, port {port}: {error.strerror or error}. Choose another "
                "port, for example port=0 for any free one."
            ) from error
        # The server takes a copy of the descriptor.
        return _HTTPServer(host, port, app.server, handler=_Handler, fd=listener.fileno())
