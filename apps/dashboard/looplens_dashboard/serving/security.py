"""The rim of the app: which requests are answered, and what the browser is told to refuse.

Nothing is loaded from elsewhere and nothing is sent anywhere. All scripts are served from here, and
a content security policy tells the browser to refuse any other address.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from dash import Dash
from flask import Response, request
from werkzeug.exceptions import HTTPException

from looplens_dashboard.serving.access import AccessToken
from looplens_dashboard.serving.hosts import OWN_NAMES, foreign_page, strange_host

LARGEST_REQUEST = 4 * 2**20
"""Bytes of the body of a request; what the page sends is a thousand times smaller."""

NOTEBOOKS = (
    "http://localhost:* http://127.0.0.1:* http://[::1]:* https://localhost:* https://127.0.0.1:* "
    "vscode-webview:"
)
"""Where the notebooks of this machine are shown, which may hold the app in a frame."""

_POLICY = {
    "default-src": "'self'",
    # WebGL figures compile their shaders' wrappers; the hashes of Dash's own lines are added.
    "script-src": "'self' 'unsafe-eval'",
    "style-src": "'self' 'unsafe-inline'",
    "img-src": "'self' data: blob:",
    "font-src": "'self' data:",
    "connect-src": "'self'",
    "worker-src": "'self' blob:",
    "object-src": "'none'",
    "base-uri": "'none'",
    "form-action": "'self'",
}
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=(), payment=(), usb=()",
}
_METHODS = ("GET", "HEAD", "POST")
_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Rules:
    """Who is answered. It can be changed until the app is served.

    Attributes
    ----------
    access : AccessToken or None
        What a reader has to know.
    hosts : tuple of str or None
        Names that the app answers to; None for any, which is safe only with a token.
    framed : bool
        Whether notebooks of this machine may show the app in a frame.
    """

    access: AccessToken | None = None
    hosts: tuple[str, ...] | None = OWN_NAMES
    framed: bool = False


def secure(
    app: Dash,
    *,
    access: str | AccessToken | None = None,
    hosts: Iterable[str] | None = OWN_NAMES,
    framed: bool = False,
) -> Rules:
    """Put the checks and headers around an app; call it once, where the app is made.

    Parameters
    ----------
    app : dash.Dash
        The app; its debug mode and upload of files stay off.
    access : str or AccessToken, optional
        A token that a reader has to know.
    hosts : iterable of str or None
        Names that the app answers to, without ports; by default this machine's own. None answers
        to any.
    framed : bool
        Let notebooks of this machine show the app in a frame.

    Returns
    -------
    Rules
        What was set; `rules_of` finds it again.

    Raises
    ------
    InputError
        If the token is too short.
    """
    rules = Rules(
        access=AccessToken(access) if isinstance(access, str) else access,
        hosts=None if hosts is None else tuple(hosts),
        framed=framed,
    )
    server = app.server
    server.extensions["looplens"] = rules
    server.config.update(
        MAX_CONTENT_LENGTH=LARGEST_REQUEST,
        MAX_FORM_MEMORY_SIZE=LARGEST_REQUEST,
        MAX_FORM_PARTS=0,
    )

    def check() -> Response | None:
        if request.method not in _METHODS:
            return _refusal(f"{request.method} is no request of this app.", 405)
        if problem := strange_host(request, rules.hosts):
            return _refusal(problem, 400)
        if problem := foreign_page(request, framed=rules.framed):
            return _refusal(problem, 403)
        return rules.access.refuse(request) if rules.access else None

    def finish(response: Response) -> Response:
        return _finished(response, app, rules)

    server.before_request_funcs.setdefault(None, []).insert(0, check)
    server.after_request(finish)
    server.register_error_handler(Exception, _failed)
    return rules


def rules_of(app: Dash) -> Rules:
    """Return what `secure` put around an app."""
    return app.server.extensions["looplens"]


def _finished(response: Response, app: Dash, rules: Rules) -> Response:
    """Add the headers that keep the browser from talking to anyone else."""
    policy = dict(_POLICY)
    if response.mimetype == "text/html":
        policy["script-src"] += "".join(f" {found}" for found in app.csp_hashes())
    policy["frame-ancestors"] = f"'self' {NOTEBOOKS}" if rules.framed else "'none'"
    response.headers.update(_HEADERS)
    response.headers["Content-Security-Policy"] = "; ".join(map(" ".join, policy.items()))
    if "max-age" not in response.headers.get("Cache-Control", ""):
        response.headers["Cache-Control"] = "no-store"  # numbers of a run stay in the run
    return response


def _refusal(message: str, status: int) -> Response:
    return Response(f"{message}\n", status, mimetype="text/plain")


def _failed(error: Exception) -> Any:
    """Answer an error without its traceback, which is printed where the app was started."""
    if isinstance(error, HTTPException):
        return error
    _log.error("%s %s failed", request.method, request.path, exc_info=error)
    return _refusal("The app failed on this request. Where it was started it says why.", 500)
