"""The dashboard without a browser: what is served, what a choice does, how a bad run looks."""

from __future__ import annotations

import base64
import json
import re
import shutil
import socket
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import looplens_dashboard
import numpy as np
import pytest
from dashboard_driver import CONTROLS, Client
from looplens_dashboard.app import create_app, is_loopback, make_http_server
from looplens_dashboard.panels import PANELS, attention
from looplens_dashboard.panels.overview import recorded
from looplens_dashboard.panels.strip import BORDERS, SYMBOLS
from looplens_dashboard.view import View
from plotly.utils import PlotlyJSONEncoder
from werkzeug.serving import BaseWSGIServer

from looplens import plots
from looplens.errors import InputError, NotARunError
from looplens.run import Run
from looplens.testing.runs import synthetic_run


def texts(component: Any) -> str:
    """Return all text of a component, titles included."""
    if isinstance(component, dict):
        return " ".join(texts(value) for value in component.values())
    if isinstance(component, list):
        return " ".join(map(texts, component))
    return str(component)


def plain(components: Any) -> Any:
    """Return components the way that the browser gets them."""
    return json.loads(json.dumps(components, cls=PlotlyJSONEncoder))


def decoded(values: Any) -> np.ndarray:
    """Return an array of a figure, which may travel as base64, with NaN for missing numbers."""
    if isinstance(values, dict):
        flat = np.frombuffer(base64.b64decode(values["bdata"]), dtype=values["dtype"])
        return flat.reshape([int(n) for n in str(values.get("shape", len(flat))).split(",")])
    return np.array(values, dtype=float)


def test_the_page_loads_nothing_from_elsewhere_and_offers_no_upload(client: Client) -> None:
    page = client.http.get("/")
    html = page.get_data(as_text=True)
    sources = re.findall(r"""(?:src|href)=["']([^"']+)["']""", html)
    assert len(sources) > 10
    assert [source for source in sources if urlsplit(source).netloc] == []
    policy = page.headers["Content-Security-Policy"]
    assert "default-src 'self'" in policy
    assert "http" not in policy
    layout = client.http.get("/_dash-layout").get_data(as_text=True)
    assert "Upload" not in layout
    assert '"showSendToCloud":false' in layout.replace(" ", "")
    config = json.loads(re.search(r'id="_dash-config"[^>]*>(.*?)</script>', html).group(1))
    assert not config["ui"]
    for script in (Path(looplens_dashboard.__file__).parent / "assets").iterdir():
        assert "://" not in script.read_text(encoding="utf-8")


def test_every_panel_and_every_part_of_the_selection_is_on_the_page(client: Client) -> None:
    layout = client.http.get("/_dash-layout").get_data(as_text=True)
    for panel in PANELS:
        assert f'"{panel.name}-panel"' in layout
    found = re.findall(r'"id": ?\{"control": ?"(\w+)"\}', layout)
    assert sorted(found) == sorted(CONTROLS)


def test_opening_an_address_restores_selection_controls_and_scrubber(client: Client) -> None:
    query = (
        "?prompt=1&token=12&restart=1&layer=0&attention_layer=1&head=1&colour=settling&dims=3"
        "&theme=dark&figure=settling&iteration=7"
    )
    response = client.select(query)
    expected = dict(part.split("=") for part in query[1:].split("&"))
    iteration = expected.pop("iteration")
    assert response["selection"]["data"] == expected
    assert response["iteration"]["data"] == int(iteration)
    assert response["note"]["hide"] is True
    for name in CONTROLS:
        key = json.dumps({"control": name}, separators=(",", ":"))
        assert response[key]["value"] == expected[name]


def test_bad_values_in_the_address_are_replaced_and_named(client: Client) -> None:
    response = client.select("?prompt=x&head=7&iteration=-3&evil=<script>")
    assert response["note"]["hide"] is False
    note = response["note"]["children"]
    assert "prompt='x' cannot be shown: this run has prompt 0 to 2. Showing 0." in note
    assert "head='7' cannot be shown: expected mean or 0 to 1." in note
    assert "iteration='-3' cannot be shown: this run has iteration 0 to 32." in note
    assert "'evil' is not a part of the view" in note
    assert response["selection"]["data"]["prompt"] == "0"


def test_a_choice_changes_one_part_and_leaves_the_scrubber_alone(client: Client) -> None:
    before = client.select("?token=3&layer=1")["selection"]["data"]
    clicked = client.select(selection=before, picked={"token": "5"})
    assert clicked["selection"]["data"] == {**before, "token": "5"}
    assert "iteration" not in clicked
    chosen = client.select(selection=before, control=("prompt", "2"))
    assert chosen["selection"]["data"] == {**before, "prompt": "2", "token": "23"}
    assert chosen["next-prompt"]["disabled"] is True
    forged = client.select(selection=before, picked={"token": "'; drop"})
    assert forged["selection"]["data"]["token"] in map(str, range(8))
    assert "cannot be shown" in forged["note"]["children"]


def test_figures_are_those_of_looplens_plots(client: Client, run: Run) -> None:
    query = "?token=4&layer=1&iteration=9&restart=1"
    drawn = client.panel("trajectory", "graph.figure", query)["trajectory-graph"]["figure"]
    figure = plots.trajectory(run, 4, restart=1, layer=1, iteration=9)
    assert [trace["x"] for trace in drawn["data"]] == [list(trace.x) for trace in figure.data]
    drawn = client.panel("heatmap", "graph.figure", query)["heatmap-graph"]["figure"]
    expected = plots.convergence_heatmap(run, 0, 1).data[0].z
    np.testing.assert_allclose(decoded(drawn["data"][0]["z"]), expected)
    drawn = client.panel("restarts", "graph.figure", query)["restarts-graph"]["figure"]
    assert len(drawn["data"]) == len(plots.restarts(run, 4, 1).data)
    drawn = client.panel("steps", "graph.figure", query)["steps-graph"]["figure"]
    expected = run.results("convergence")["layer_relative_step"].isel(restart=1, token=4, layer=1)
    np.testing.assert_allclose(decoded(drawn["data"][0]["y"]), expected.values)


@pytest.mark.parametrize("head", ["mean", "1"])
def test_the_attention_sent_to_the_browser_is_that_of_the_run(
    client: Client, run: Run, head: str
) -> None:
    query = f"?prompt=1&attention_layer=1&head={head}&restart=1"
    sent = client.panel("attention", "graph.figure", query)["attention-frames"]["data"]
    codes = np.frombuffer(base64.b64decode(sent["weights"]), dtype="<u2")
    codes = codes.reshape(len(sent["iterations"]), sent["size"], sent["size"])
    weights = np.where(codes == 65535, np.nan, codes / 65534 * sent["scale"])
    assert sent["iterations"] == list(range(1, 33))
    for iteration in (1, 20, 32):
        figure = plots.attention(
            run, 1, iteration, layer=1, head=None if head == "mean" else 1, restart=1
        )
        np.testing.assert_allclose(weights[iteration - 1], figure.data[0].z, atol=1e-5)


def test_long_attention_is_thinned_and_says_so(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "MOST_WEIGHTS", 8 * 8 * 12)
    response = client.panel("attention", "graph.figure")
    sent = response["attention-frames"]["data"]
    assert sent["iterations"] == list(range(2, 33, 3))
    assert len(base64.b64decode(sent["weights"])) == 2 * 8 * 8 * len(sent["iterations"])
    assert "one of 3 iterations" in response["attention-caption"]["children"]


def test_the_readout_sent_to_the_browser_is_that_of_the_run(client: Client, run: Run) -> None:
    sent = client.panel("readout", "data.data", "?token=10&restart=1")["readout-data"]["data"]
    readout = run.readout.isel(restart=1, token=10)
    np.testing.assert_array_equal(sent["ids"], readout["topk_ids"].values)
    np.testing.assert_allclose(
        sent["probabilities"], np.exp(readout["topk_logprobs"].values), rtol=1e-4
    )
    assert sent["change"][0] is None
    assert set(sent["texts"].values()) <= set("abcdefghijkl") | {
        f"id {number}" for number in range(12)
    }


def test_tokens_tell_their_regime_by_colour_symbol_border_and_words(
    client: Client, run: Run
) -> None:
    regimes = run.results("classify")["regime"].isel(restart=0, token=slice(0, 8)).values
    response = client.panel("strip", "tokens.children", "?token=2")
    buttons = response["strip-tokens"]["children"]["props"]["children"]
    assert len(buttons) == 8
    for regime, button in zip(regimes, buttons, strict=True):
        props = button["props"]
        style = plots.palette("light").regimes[str(regime)]
        assert props["style"] == {
            "--token-colour": style.colour,
            "borderBottomStyle": BORDERS[str(regime)],
        }
        assert SYMBOLS[str(regime)] in texts(props["children"])
        assert str(regime).replace("_", " ") in props["title"]
    assert [button["props"]["aria-pressed"] for button in buttons].count("true") == 1
    assert buttons[2]["props"]["aria-pressed"] == "true"
    by_settling = client.panel("strip", "tokens.children", "?colour=settling")
    assert "never" in texts(by_settling["strip-tokens"]["children"])


def test_the_overview_counts_the_regimes_of_all_trajectories(client: Client, run: Run) -> None:
    shown = texts(client.panel("overview", "found.children")["overview-found"]["children"])
    regimes = run.results("classify")["regime"].values
    for name, style in plots.palette("light").regimes.items():
        assert f"{int((regimes == name).sum()):,} {style.label}" in shown
    assert f"of {regimes.size:,} trajectories" in shown


def test_the_overview_warns_of_an_incomplete_run_and_of_lost_numbers(run_path: Path) -> None:
    view = View(run_path)
    assert "warn" not in texts(plain(recorded(view)))
    view.run.complete = False
    view.run.non_finite = {"loop/state": 1234}
    shown = texts(plain(recorded(view)))
    assert "no: " in shown
    assert "1,234 in loop/state" in shown
    assert "warn" in shown


@pytest.mark.parametrize(
    ("panel", "expected"),
    [
        ("restarts", "Record with restarts=2 or more"),
        ("attention", "Record it again with the option attention=True"),
    ],
)
def test_what_was_not_recorded_is_explained(bare_client: Client, panel: str, expected: str) -> None:
    response = bare_client.panel(panel, "graph.figure")
    message = response[f"{panel}-message"]["children"]
    assert expected in texts(message)
    assert message["props"]["role"] == "status"
    assert "hidden" in response[f"{panel}-figure"]["className"]


def test_damage_is_a_text_in_the_panel_and_the_others_still_work(tmp_path: Path) -> None:
    path = synthetic_run(tmp_path / "damaged", prompts=1, iterations=32)
    for chunks in path.glob("readout/*/c"):
        shutil.rmtree(chunks)
    client = Client(path)
    response = client.panel("readout", "data.data")
    message = response["readout-message"]["children"]
    assert message["props"]["role"] == "alert"
    assert "readout/" in texts(message)
    assert "Traceback" not in texts(message)
    assert response["readout-data"]["data"] is None
    assert "figure" in client.panel("attention", "graph.figure")["attention-graph"]


def test_a_bug_is_a_text_in_the_panel_too(
    client: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_arguments: Any, **_options: Any) -> None:
        raise RuntimeError("no such thing")

    monkeypatch.setattr(plots, "trajectory", broken)
    response = client.panel("trajectory", "graph.figure")
    shown = texts(response["trajectory-message"]["children"])
    assert "This panel could not be drawn (RuntimeError: no such thing)" in shown
    assert "no such thing" in caplog.text


def test_a_path_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotARunError):
        create_app(tmp_path)


def test_a_taken_port_and_an_impossible_one_are_named(client: Client) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=f"Cannot listen on 127.0.0.1, port {port}"):
            make_http_server(client.app, port=port)
    with pytest.raises(InputError, match="port must lie between 0 and 65535, got 70000"):
        make_http_server(client.app, port=70000)


def test_serving_says_where_and_warns_beyond_this_machine(
    run_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(_server: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(BaseWSGIServer, "serve_forever", interrupted)
    looplens_dashboard.serve(run_path, port=0)
    printed = capsys.readouterr().out
    assert re.search(r"looplens dashboard of whole: http://127\.0\.0\.1:\d+/", printed)
    assert "everyone" not in printed
    looplens_dashboard.serve(run_path, host="0.0.0.0", port=0)
    assert "everyone who can reach this machine can read the run" in capsys.readouterr().out


def test_only_this_machine_is_served_under_its_own_names(run_path: Path) -> None:
    app = create_app(run_path)
    make_http_server(app, port=0).server_close()
    http = app.server.test_client()
    assert http.get("/", headers={"Host": "127.0.0.1:8050"}).status_code == 200
    assert http.get("/", headers={"Host": "evil.example"}).status_code == 400
    assert is_loopback("localhost")
    assert is_loopback("::1")
    assert not is_loopback("0.0.0.0")
