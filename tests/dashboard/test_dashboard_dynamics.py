"""What the dynamics lab stored is shown beside the trajectories, without the model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from dashboard_driver import Client

from looplens import plots
from looplens.run import open_run

OF_THE_LAB = [name for name, f in plots.FIGURES.items() if "._dynamics." in f.__module__]


def test_stored_results_are_drawn_and_others_name_the_command(lab_path: Path) -> None:
    client = Client(lab_path)
    assert set(OF_THE_LAB) <= set(client.limits.figures)
    drawn = set()
    for name in OF_THE_LAB:
        sent = client.panel("analyses", "graph.figure", f"?figure={name}&token=6")
        if "analyses-graph" in sent:
            drawn.add(name)
            continue
        text = json.dumps(sent["analyses-message"]["children"])
        assert "does not hold dynamics/" in text, (name, text)
        assert "looplens dynamics" in text
    assert {"fixed_points", "spectra", "causes", "lyapunov"} <= drawn
    sent = client.panel("analyses", "graph.figure", "?figure=spectra&token=1")
    assert "does not hold token 1" in json.dumps(sent["analyses-message"]["children"])


def test_numbers_of_the_lab_are_listed(lab_path: Path) -> None:
    client = Client(lab_path)
    shown = json.dumps(client.panel("numbers", "table.children", "?token=6"))
    assert "Dynamics lab: causes of restart 0" in shown
    assert '"own"' in shown
    assert "Dynamics lab" not in json.dumps(client.panel("numbers", "table.children", "?token=1"))


def test_results_that_are_made_meanwhile_are_found(lab_path: Path, tmp_path: Path) -> None:
    path = shutil.copytree(lab_path, tmp_path / "run")
    client, run = Client(path), open_run(path)
    shown = json.dumps(client.panel("numbers", "table.children", "?token=6"))
    result = run.analysis("dynamics/causes")
    result["cause"].values[:] = "both"
    run.write_analysis("dynamics/causes", result, version=1)
    assert '"own"' in shown
    assert '"both"' in json.dumps(client.panel("numbers", "table.children", "?token=6"))
