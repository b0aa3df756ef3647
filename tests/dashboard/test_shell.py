"""The shell without a browser: what a choice does, what every panel shows, how a bad run looks."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import looplens_dashboard
import pytest
from dashboard_driver import Client, selected, view_of
from looplens_dashboard import pages
from looplens_dashboard.panels.call import Call

from looplens import plots
from looplens.errors import InputError
from looplens.run import Run, open_run
from looplens.testing.runs import synthetic_run

FIGURES = [name for name, panel in pages.panels().items() if panel.call and not panel.body]
OF_THE_LAB = [name for name, f in plots.FIGURES.items() if "._dynamics." in f.__module__]


def words(part: Any) -> str:
    """Return a part of a response as text."""
    return json.dumps(part)


def test_the_page_loads_nothing_from_elsewhere_and_offers_no_upload(client: Client) -> None:
    layout = client.http.get("/_dash-layout").get_data(as_text=True)
    assert "Upload" not in layout
    assert '"showSendToCloud": false' in client.page("/trajectories")
    for script in (Path(looplens_dashboard.__file__).parent / "assets").iterdir():
        assert "://" not in script.read_text(encoding="utf-8")


def test_opening_an_address_restores_the_selection(client: Client) -> None:
    response = client.select(
        "/restarts?token=12&also=1,3&restart=1&layer=0&head=1&theme=dark&iteration=7"
    )
    selection = response["selection"]["data"]
    wanted = {"page": "restarts", "run": "whole", "prompt": "1", "token": "12", "also": "1,3"}
    wanted |= {"restart": "1", "layer": "0", "head": "1", "theme": "dark"}
    assert wanted.items() <= selection.items()
    assert "iteration" not in selection
    assert response["iteration"]["data"] == 7
    assert response["note"]["hide"] is True


def test_bad_values_in_the_address_are_replaced_and_named(client: Client) -> None:
    response = client.select("/?run=../etc&prompt=x&head=7&iteration=-3&evil=<script>")
    assert response["note"]["hide"] is False
    note = response["note"]["children"]
    assert "There is no run '../etc' here." in note
    assert "prompt='x' cannot be shown: this run has prompt 0 to 2. Showing 0." in note
    assert "head='7' cannot be shown: expected mean or 0 to 1." in note
    assert "iteration='-3' cannot be shown: this run has iteration 0 to 32." in note
    assert "'evil' is not a part of the view" in note
    assert response["selection"]["data"]["run"] == "whole"


def test_a_choice_changes_one_part_and_leaves_the_scrubber_alone(client: Client) -> None:
    before, _ = client.opened("/restarts?token=3&layer=1")
    clicked = client.select(selection=before, picked={"token": "5"})
    assert clicked["selection"]["data"] == {**before, "token": "5"}
    assert "iteration" not in clicked
    chosen = client.select(selection=before, picked={"prompt": "2"})
    assert chosen["selection"]["data"] == {**before, "prompt": "2", "token": "23"}
    forged = client.select(selection=before, picked={"token": "'; drop"})
    assert forged["selection"]["data"]["token"] in map(str, range(8))
    assert "cannot be shown" in forged["note"]["children"]


def test_every_figure_of_looplens_is_in_the_app(run: Run) -> None:
    view = view_of(run.path)
    of_two_runs = {
        panel.name for page in pages.PAGES if page.name == "compare" for panel in page.panels
    }
    calls = {
        pages.panels()[name].call(view, selected(view, "?token=4&layer=1")).function
        for name in FIGURES
        if name != "any-figure" and name not in of_two_runs
    }
    offered = {value for value, _ in view.limits.options["figure"]}
    of_a_result = {"certificate", "kv_sharing"}
    assert set(plots.FIGURES) - of_a_result <= calls | offered


@pytest.mark.parametrize("name", FIGURES)
def test_a_panel_shows_the_figure_of_its_call_or_says_what_is_missing(
    client: Client, run: Run, name: str
) -> None:
    page = next(page for page in pages.PAGES if name in {panel.name for panel in page.panels})
    address = f"/{page.name}?token=4&also=5,6&layer=1&restart=1&iteration=9"
    drawn = client.panel(name, address)
    assert "could not be drawn" not in words(drawn.get("message"))
    if drawn.get("message"):
        assert drawn["figure"] == "figure hidden"
        return
    assert drawn["graph"]["data"]
    view = view_of(run.path)
    call = pages.panels()[name].call(view, selected(view, address))
    code = call.code(view.run, "dark")
    compile(code, name, "exec")
    assert f"plots.{call.function}(" in code


@pytest.mark.parametrize("figure", sorted(plots.FIGURES))
def test_any_figure_is_drawn_or_says_what_it_lacks(client: Client, figure: str) -> None:
    response = client.select(f"/overview?figure={figure}")
    if response["note"]["children"]:
        pytest.skip("not filled by a selection")  # of a result, or of two runs
    drawn = client.panel("any-figure", f"/overview?figure={figure}&token=4&layer=1")
    assert "could not be drawn" not in words(drawn.get("message"))


def test_what_the_lab_stored_is_drawn_and_the_rest_names_the_command(lab_path: Path) -> None:
    client = Client(lab_path)
    drawn = set()
    for name in OF_THE_LAB:
        sent = client.panel("any-figure", f"/overview?figure={name}&token=6")
        if "graph" in sent:
            drawn.add(name)
            continue
        assert "looplens dynamics" in words(sent["message"]), name
    assert {"fixed_points", "spectra", "causes", "lyapunov"} <= drawn


def test_results_that_are_made_meanwhile_are_found(lab_path: Path, tmp_path: Path) -> None:
    path = shutil.copytree(lab_path, tmp_path / "run")
    client, run = Client(path), open_run(path)
    shown = words(client.panel("numbers", "?token=6"))
    assert "Dynamics lab: causes of restart 0" in shown
    result = run.analysis("dynamics/causes").load()
    result["cause"].values[:] = "both"
    run.write_analysis("dynamics/causes", result, version=1)
    assert '"own"' in shown
    assert '"both"' in words(client.panel("numbers", "?token=6"))


def test_numbers_of_a_token_are_those_that_are_stored(tmp_path: Path, bare_path: Path) -> None:
    path = shutil.copytree(bare_path, tmp_path / "run")
    assert "looplens analyze" in words(Client(path).panel("numbers", "?token=1"))
    run = open_run(path)
    run.analyze(["convergence", "classify"])
    shown = words(Client(path).panel("numbers", "?token=1"))
    settled = float(run.results("convergence")["settling_iteration"][0, 1])
    assert f'"{settled:.4g}"' in shown
    assert "fixed point" in shown


def test_a_panel_is_a_function_too(run: Run) -> None:
    figure = looplens_dashboard.panel(run, "restarts", token=4, layer=1, theme="dark")
    expected = plots.restarts(run, 4, 1, theme="dark")
    assert (
        figure.to_plotly_json()["layout"]["title"] == expected.to_plotly_json()["layout"]["title"]
    )
    assert len(figure.data) == len(expected.data)
    with pytest.raises(InputError, match=r"There is no panel 'restart'.*Did you mean 'restarts'"):
        looplens_dashboard.panel(run, "restart")
    with pytest.raises(InputError, match="token='999' cannot be shown"):
        looplens_dashboard.panel(run, "restarts", token=999)


def test_a_damaged_run_says_so_and_the_others_are_shown(tmp_path: Path, run_path: Path) -> None:
    shutil.copytree(run_path, tmp_path / "good")
    bad = shutil.copytree(run_path, tmp_path / "bad")
    (bad / "zarr.json").write_text("{", encoding="utf-8")
    client = Client(tmp_path)
    assert client.opened("/overview")[0]["run"] == "good"
    broken, _ = client.opened("/trajectories?run=bad")
    assert "bad" in broken["problem"]
    response = client.call(
        "content.children",
        "place.data",
        {"place.data": {"page": "trajectories"}, "selection.data": broken},
    )
    assert '"role": "alert"' in words(response)


def test_damage_is_a_text_in_the_panel_and_the_others_still_work(tmp_path: Path) -> None:
    path = synthetic_run(tmp_path / "damaged", prompts=1, iterations=32)
    for chunks in path.glob("loop/state/c"):
        shutil.rmtree(chunks)
    client = Client(path)
    shown = words(client.panel("trajectory", "/trajectories"))
    assert '"role": "alert"' in shown
    assert "loop/state" in shown
    assert "Traceback" not in shown
    assert "graph" in client.panel("any-figure", "/overview?figure=attention")


def test_a_bug_is_a_text_in_the_panel_too(
    client: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_arguments: Any, **_options: Any) -> None:
        raise RuntimeError("no such thing")

    monkeypatch.setattr(Call, "draw", broken)
    shown = words(client.panel("restarts", "/restarts?token=17&restart=1"))
    assert "This panel could not be drawn (RuntimeError: no such thing)" in shown
    assert "no such thing" in caplog.text


def test_a_run_that_keeps_a_part_is_shown_by_number(
    selected_run_path: Path, few_layers_path: Path
) -> None:
    client = Client(selected_run_path)
    selection, _ = client.opened("/trajectories")
    bar = words(
        client.call(
            "bar.children",
            "bar-place.data",
            {"bar-place.data": {"run": "x"}, "selection.data": selection, "iteration.data": 64},
        )
    )
    assert '"data-kept": "4,8,12' in bar
    assert "layer 3" in bar
    assert "layer 0" not in bar
    note = client.select("?iteration=5&layer=2")["note"]["children"]
    assert "iteration='5' cannot be shown" in note
    assert "layer='2' cannot be shown" in note
    for other in (client, Client(few_layers_path)):
        for name in FIGURES:
            page = next(p for p in pages.PAGES if name in {panel.name for panel in p.panels})
            sent = other.panel(name, f"/{page.name}?token=4&layer=3&iteration=8")
            assert "could not be drawn" not in words(sent.get("message")), name


def test_an_incomplete_run_is_shown_as_far_as_it_is_there(part_run_path: Path) -> None:
    client = Client(part_run_path)
    for name in FIGURES:
        page = next(p for p in pages.PAGES if name in {panel.name for panel in p.panels})
        for prompt in (0, 1):
            sent = client.panel(name, f"/{page.name}?prompt={prompt}")
            assert "could not be drawn" not in words(sent.get("message")), name
