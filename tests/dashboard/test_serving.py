"""Who is answered: names, origins, tokens, limits; and how a server starts and stops."""

from __future__ import annotations

import http.client
import re
import socket
import urllib.request
from html import unescape
from typing import Any

import pytest
from dash import Dash, Input, Output, html
from looplens_dashboard import serving
from looplens_dashboard.serving import AccessToken, Server, is_loopback, running, secure
from looplens_dashboard.serving import server as http_server
from looplens_dashboard.serving.security import LARGEST_REQUEST, rules_of
from werkzeug.serving import BaseWSGIServer

from looplens.errors import InputError

TOKEN = "correct horse/battery&staple"
CALLBACK = {
    "output": "b.children",
    "outputs": {"id": "b", "property": "children"},
    "inputs": [{"id": "a", "property": "n_clicks", "value": 1}],
    "changedPropIds": ["a.n_clicks"],
}


def small_app(**options: Any) -> Dash:
    """An app with one callback, which fails at the second click."""
    app = Dash("small", serve_locally=True, use_async=False)
    app.layout = html.Div([html.Button("A", id="a"), html.Div(id="b")])

    @app.callback(Output("b", "children"), Input("a", "n_clicks"), prevent_initial_call=True)
    def click(clicks: int) -> str:
        if clicks == 2:
            raise RuntimeError("a secret path /home/someone")
        return f"clicked {clicks}"

    secure(app, **options)
    return app


def test_every_answer_tells_the_browser_to_stay_here() -> None:
    client = small_app().server.test_client()
    page = client.get("/")
    policy = dict(
        part.split(" ", 1) for part in page.headers["Content-Security-Policy"].split("; ")
    )
    assert policy["default-src"] == "'self'"
    assert re.fullmatch(r"'self' 'unsafe-eval' 'sha256-[\w+/=]+'", policy["script-src"])
    assert policy["frame-ancestors"] == "'none'"
    assert not any("http" in sources for sources in policy.values())
    for address in ("/", "/_dash-layout", "/absent.js"):
        answer = client.get(address)
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert answer.headers["Cache-Control"] == "no-store"
    script = re.search(r'src="(/_dash-component-suites/[^"]+)"', page.get_data(as_text=True))
    assert script is not None
    assert "max-age" in client.get(script.group(1)).headers["Cache-Control"]
    framed = small_app(framed=True).server.test_client().get("/")
    assert "frame-ancestors 'self' http://localhost:*" in framed.headers["Content-Security-Policy"]


@pytest.mark.parametrize(
    ("name", "answered"),
    [
        ("127.0.0.1:8050", True),
        ("localhost:9000", True),
        ("LOCALHOST", True),
        ("[::1]:8050", True),
        ("evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("localhost@evil.example:8050", False),
        ("[::1", False),
    ],
)
def test_only_own_names_are_answered(name: str, answered: bool) -> None:
    client = small_app().server.test_client()
    answer = client.get("/_dash-layout", headers={"Host": name})
    assert answer.status_code == (200 if answered else 400)
    if not answered:
        assert "answers to localhost, 127.0.0.1, [::1] only" in answer.get_data(as_text=True)


@pytest.mark.parametrize(
    ("headers", "answered"),
    [
        ({}, True),
        ({"Origin": "http://127.0.0.1:8050", "Sec-Fetch-Site": "same-origin"}, True),
        ({"Origin": "http://127.0.0.1:8888"}, False),
        ({"Origin": "https://evil.example"}, False),
        ({"Origin": "null"}, False),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}, False),
        ({"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "cors"}, False),
    ],
)
def test_pages_elsewhere_get_nothing(headers: dict[str, str], answered: bool) -> None:
    client = small_app().server.test_client()
    headers = {"Host": "127.0.0.1:8050", **headers}
    expected = 200 if answered else 403
    assert client.get("/_dash-layout", headers=headers).status_code == expected
    posted = client.post("/_dash-update-component", json=CALLBACK, headers=headers)
    assert posted.status_code == expected


def test_a_link_elsewhere_opens_the_page_and_a_frame_only_where_it_may() -> None:
    visit = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    for framed, kind, status in (
        (False, "document", 200),
        (False, "iframe", 403),
        (True, "iframe", 200),
        (True, "script", 403),
    ):
        client = small_app(framed=framed).server.test_client()
        assert client.get("/", headers={**visit, "Sec-Fetch-Dest": kind}).status_code == status


def test_the_token_is_asked_for_taken_once_and_left_out_of_the_address() -> None:
    client = small_app(access=TOKEN, hosts=None).server.test_client()
    asked = client.get("/?run=demo&token=3&note=%22%3E%3Cb", headers={"Accept": "text/html"})
    assert asked.status_code == 401
    form = asked.get_data(as_text=True)
    assert 'name="token" value="3"' in form
    assert "&#34;&gt;&lt;b" in form
    for address in ("/_dash-layout", "/_dash-dependencies", "/assets/page.css"):
        assert client.get(address).status_code == 401
    assert client.post("/_dash-update-component", json=CALLBACK).status_code == 401
    wrong = client.get("/", query_string={"access": TOKEN[:-1]})
    assert (wrong.status_code, "Set-Cookie" in wrong.headers) == (401, False)
    right = client.get("/", query_string={"run": "demo", "access": TOKEN, "iteration": "4"})
    assert right.status_code == 200
    cookie = right.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    shown = right.get_data(as_text=True)
    assert 'url=/?run=demo&iteration=4"' in unescape(shown)
    assert TOKEN not in unescape(shown) + cookie
    assert client.get("/_dash-layout").status_code == 200
    assert client.post("/_dash-update-component", json=CALLBACK).status_code == 200
    client.set_cookie("looplens-access", "0" * 64)
    assert client.get("/_dash-layout").status_code == 401


def test_the_way_on_never_leaves_the_app() -> None:
    client = small_app(access=TOKEN, hosts=None).server.test_client()
    for path in ("//evil.example/x", "/\\evil.example"):
        answer = client.get(path, query_string={"access": TOKEN})
        address = re.search(r'url=([^"]+)"', unescape(answer.get_data(as_text=True)))
        assert address is not None
        assert re.match(r"/[^/\\]", address.group(1))


def test_a_token_that_is_too_short_is_refused_and_none_is_written_in_a_log() -> None:
    with pytest.raises(InputError, match="at least 12 printable ASCII characters, got 5"):
        AccessToken("short")
    assert AccessToken().text != AccessToken().text
    assert TOKEN not in repr(AccessToken(TOKEN))


def test_limits_and_failures_say_so_without_a_traceback(caplog: pytest.LogCaptureFixture) -> None:
    client = small_app().server.test_client()
    large = client.post(
        "/_dash-update-component",
        data=b" " * (LARGEST_REQUEST + 1),
        content_type="application/json",
    )
    assert large.status_code == 413
    assert client.put("/").status_code == 405
    assert client.options("/").status_code == 405
    twice = {**CALLBACK, "inputs": [{**CALLBACK["inputs"][0], "value": 2}]}  # type: ignore[index]
    failed = client.post("/_dash-update-component", json=twice)
    assert failed.status_code == 500
    assert failed.get_data(as_text=True) == (
        "The app failed on this request. Where it was started it says why.\n"
    )
    assert "a secret path" in caplog.text
    for path in ("/assets/../../app.py", "/assets/%2e%2e/%2e%2e/app.py", "/assets//etc/passwd"):
        assert b"import" not in client.get(path).data


def test_a_server_starts_keeps_connections_and_gives_its_port_back() -> None:
    with running(small_app()) as address:
        port = int(address.rpartition(":")[2].strip("/"))
        connection = http.client.HTTPConnection("127.0.0.1", port)
        for _ in range(2):
            connection.request("GET", "/_dash-layout")
            answer = connection.getresponse()
            assert (answer.status, answer.getheader("Server")) == (200, "looplens")
            assert answer.version == 11
            answer.read()
        with pytest.raises(InputError, match=f"Cannot listen on 127.0.0.1, port {port}"):
            Server(small_app(), port=port)
        connection.close()
    Server(small_app(), port=port).stop()
    with pytest.raises(InputError, match="port must lie between 0 and 65535, got 70000"):
        Server(small_app(), port=70000)


def test_another_interface_needs_a_token_and_answers_to_any_name() -> None:
    app = small_app()
    with running(app, host="0.0.0.0") as url:
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/\?access=[\w-]{32}", url)
        assert rules_of(app).hosts is None
        bare = url.partition("?")[0]
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(bare)
        assert urllib.request.urlopen(url).status == 200
    app = small_app(access=TOKEN)
    server = Server(app, port=0)
    server.stop()
    assert server.url.endswith("/?access=correct%20horse%2Fbattery%26staple")
    assert rules_of(app).hosts is not None


def test_connections_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "MOST_CONNECTIONS", 1)
    with running(small_app()) as address:
        port = int(address.rpartition(":")[2].strip("/"))
        with socket.create_connection(("127.0.0.1", port)) as first:
            first.sendall(b"GET / HTTP/1.1\r\n")  # never ends
            with socket.create_connection(("127.0.0.1", port), timeout=10) as second:
                second.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
                assert second.recv(1) == b""  # closed at once


def test_serving_says_where(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(_server: Any, **_options: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(BaseWSGIServer, "serve_forever", interrupted)
    serving.serve_http(small_app(), port=0)
    printed = capsys.readouterr().out
    assert re.search(r"looplens app: http://127\.0\.0\.1:\d+/ \(Ctrl\+C stops\)", printed)
    assert "unencrypted" not in printed
    serving.serve_http(small_app(), host="0.0.0.0", port=0)
    assert "It listens on 0.0.0.0, unencrypted" in capsys.readouterr().out


def test_what_is_this_machine() -> None:
    assert all(map(is_loopback, ("localhost", "::1", "[::1]", "127.1.2.3")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "example.org", "10.0.0.1")))
