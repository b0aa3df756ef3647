"""A token that a reader has to know, taken once from the address and then kept in a cookie.

The address that is printed ends with ``?access=TOKEN``. The first visit puts a proof of the token
in a cookie that scripts cannot read and that the browser sends to no other site, and goes on to
the same view without the token, so that a copied link does not carry it.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from urllib.parse import parse_qsl, quote, urlencode

from flask import Request, Response
from markupsafe import escape

from looplens.errors import InputError

PARAMETER = "access"
SHORTEST = 12
"""Characters that a chosen token must have at least."""

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>looplens</title>{head}
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; margin: 15vh auto 0; max-width: 32rem; padding: 1rem;
  color: #1f2328; background: #fff }}
input, button {{ font: inherit; padding: .35rem .7rem }}
@media (prefers-color-scheme: dark) {{ body {{ color: #e6e8eb; background: #16181c }} }}
</style></head><body>{body}</body></html>
"""
_FORM = """<h1>looplens</h1><p role="status">{message}</p>
<form method="get" action="{path}">{hidden}
<label>Access token <input type="password" name="access" autocomplete="off" autofocus required>
</label> <button>Open</button></form>
<p>It is the end of the address that was printed where the app was started.</p>"""


class AccessToken:
    """What a reader has to know.

    Parameters
    ----------
    token : str, optional
        At least 12 characters; made at random if not given.

    Raises
    ------
    InputError
        If it is too short, or not of printable ASCII characters.
    """

    def __init__(self, token: str | None = None) -> None:
        self.text = secrets.token_urlsafe(24) if token is None else token
        if len(self.text) < SHORTEST or not (self.text.isascii() and self.text.isprintable()):
            raise InputError(
                f"An access token needs at least {SHORTEST} printable ASCII characters, got "
                f"{len(self.text)}. Leave it out to have one made."
            )
        self._proof = hmac.new(self.text.encode(), b"looplens", hashlib.sha256).hexdigest()

    def __repr__(self) -> str:
        return "AccessToken(…)"  # not to be found in a log

    def refuse(self, request: Request) -> Response | None:
        """Return what a reader gets instead of the app; None for one who may see it."""
        name = _cookie_name(request)
        given = request.args.get(PARAMETER)
        if given is not None and request.method == "GET":
            if not _equal(given, self.text):
                return _asking(request, "That token is not the right one.")
            # A redirect would count as coming from the page that held the link, and the browser
            # would not send the cookie with it. The next page is asked for by this one.
            response = _onwards(request)
            response.set_cookie(name, self._proof, httponly=True, samesite="Strict")
            return response
        if _equal(request.cookies.get(name, ""), self._proof):
            return None
        if _is_page(request) and request.headers.get("Sec-Fetch-Site") == "cross-site":
            return _onwards(request)  # a link elsewhere: the cookie comes with the second visit
        return _asking(request, "This app shows its runs to those who have its access token.")


def _cookie_name(request: Request) -> str:
    """Return a name of this port's own: cookies are shared by all ports of a machine."""
    port = request.host.rpartition(":")[2]
    return f"looplens-{port if port.isdigit() else 'access'}"


def _equal(given: str, expected: str) -> bool:
    """Compare in a time that does not tell how much of it is right."""
    return hmac.compare_digest(given.encode(errors="replace"), expected.encode())


def _is_page(request: Request) -> bool:
    return request.method == "GET" and request.headers.get("Sec-Fetch-Mode") == "navigate"


def _others(request: Request) -> list[tuple[str, str]]:
    """Return the parts of the address that are no token."""
    parts = parse_qsl(request.query_string.decode(errors="replace"), keep_blank_values=True)
    return [(name, value) for name, value in parts if name != PARAMETER]


def _path(request: Request) -> str:
    """Return the path, so written that it cannot be taken for the name of another machine."""
    return f"/{quote(request.path.lstrip('/'))}"


def _onwards(request: Request) -> Response:
    """Return a page that goes on to the view that was asked for."""
    query = urlencode(_others(request))
    address = f"{_path(request)}?{query}" if query else _path(request)
    head = f'<meta http-equiv="refresh" content="0; url={escape(address)}">'
    body = f'<p><a href="{escape(address)}">Open looplens</a></p>'
    return Response(_PAGE.format(head=head, body=body), mimetype="text/html")


def _asking(request: Request, message: str) -> Response:
    """Return a page that asks for the token and keeps the view; a text for anything but a page."""
    accepted = request.accept_mimetypes
    if request.method != "GET" or not accepted.accept_html:
        return Response(f"{message}\n", 401, mimetype="text/plain")
    hidden = "".join(
        f'<input type="hidden" name="{escape(name)}" value="{escape(value)}">'
        for name, value in _others(request)
    )
    form = _FORM.format(message=escape(message), path=_path(request), hidden=hidden)
    return Response(_PAGE.format(head="", body=form), 401, mimetype="text/html")
