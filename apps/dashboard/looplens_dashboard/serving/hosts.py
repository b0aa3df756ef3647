"""Which addresses are this machine's own, and whether a request comes from a page of the app.

A page elsewhere can make the reader's browser send requests here, and can have its own name point
here. Browsers say in headers where a request comes from; other programs, such as a script of the
reader's own, say nothing and are not kept out by this.
"""

from __future__ import annotations

from ipaddress import ip_address
from urllib.parse import urlsplit

from flask import Request

OWN_NAMES = ("localhost", "127.0.0.1", "[::1]")
"""The names under which a page on this machine is asked for."""


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach an address."""
    if host == "localhost":
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def with_brackets(host: str) -> str:
    """Return an address as it is written in front of a port: IPv6 in brackets."""
    return f"[{host}]" if ":" in host and not host.startswith("[") else host


def strange_host(request: Request, names: tuple[str, ...] | None) -> str | None:
    """Return what is wrong with the name that the app is asked for by; None if nothing.

    Parameters
    ----------
    request : flask.Request
        What is asked.
    names : tuple of str or None
        The names without a port that are answered; None answers to any.
    """
    if names is None:
        return None
    asked = request.headers.get("Host", "")
    try:
        name = urlsplit(f"//{asked}").hostname or ""
    except ValueError:
        name = ""
    if any(with_brackets(name) == with_brackets(known.lower()) for known in names):
        return None
    return (
        f"The app was asked for as {asked!r} and answers to {', '.join(names)} only. Open the "
        "address that was printed when it started."
    )


def foreign_page(request: Request, *, framed: bool) -> str | None:
    """Return why a request is not one of the app's own pages or a reader's visit; None if it is.

    Parameters
    ----------
    request : flask.Request
        What is asked.
    framed : bool
        Whether pages elsewhere, such as notebooks, may show the app in a frame.
    """
    origin = request.headers.get("Origin")
    if origin is not None and urlsplit(origin).netloc != request.headers.get("Host"):
        return f"A page of {origin!r} asked for this; only the app's own pages may."
    site = request.headers.get("Sec-Fetch-Site", "none")
    if site in ("none", "same-origin"):
        return None
    visits = ("document", "iframe") if framed else ("document",)
    visit = (
        request.method == "GET"
        and request.headers.get("Sec-Fetch-Mode") == "navigate"
        and request.headers.get("Sec-Fetch-Dest") in visits
    )
    return None if visit else "A page elsewhere asked for this; only the app's own pages may."
