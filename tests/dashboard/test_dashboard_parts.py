"""The dashboard of runs that keep only a part, or of which only a part is there yet."""

from __future__ import annotations

import json
from pathlib import Path

from dashboard_driver import Client


def test_a_run_that_keeps_a_part_is_shown_by_number(
    selected_run_path: Path, few_layers_path: Path
) -> None:
    client = Client(selected_run_path)
    page = json.dumps(client.http.get("/_dash-layout").get_json())
    assert '"data-kept": "4,8,12' in page
    assert "after layer 3" in page
    assert "after layer 0" not in page
    assert "layers 1, 3; iterations 4, 8" in page
    note = client.select("?iteration=5&layer=2")["note"]["children"]
    assert "iteration='5' cannot be shown" in note
    assert "layer='2' cannot be shown" in note
    sent = client.panel("attention", "graph.figure", "?prompt=1&attention_layer=3")
    assert sent["attention-frames"]["data"]["iterations"] == list(range(4, 65, 4))
    readout = client.panel("readout", "data.data", "?token=4")["readout-data"]["data"]
    assert readout["iterations"] == list(range(4, 65, 4))
    drawn = client.panel("strip", "tokens.children", "?token=4")
    assert "position 5 of 8" in json.dumps(drawn)
    assert "keep_iterations='all'" in json.dumps(drawn)  # why there are no regimes
    everything = Client(few_layers_path)
    for name in ("heatmap", "trajectory", "steps", "restarts"):
        output, query = "graph.figure", "?token=4&layer=3&iteration=8"
        assert "could not be drawn" not in json.dumps(client.panel(name, output, query))
        assert everything.panel(name, output, query)[f"{name}-graph"]["figure"]["data"]


def test_an_incomplete_run_says_what_is_missing(part_run_path: Path) -> None:
    client = Client(part_run_path)
    assert "2 of 3 blocks are recorded" in json.dumps(client.http.get("/_dash-layout").get_json())
    for name, output in (("attention", "graph.figure"), ("readout", "data.data")):
        assert "not recorded yet" in json.dumps(client.panel(name, output, "?prompt=1"))
        assert "not recorded yet" not in json.dumps(client.panel(name, output, "?prompt=0"))
    for name in ("heatmap", "trajectory", "steps", "restarts", "strip"):
        output = "tokens.children" if name == "strip" else "graph.figure"
        assert "could not be drawn" not in json.dumps(client.panel(name, output, "?prompt=1"))
