"""The page Dynamics: what the lab stored, beside the motion that it explains."""

from __future__ import annotations

import json

import numpy as np
import pytest
from dashboard_driver import selected, serving, view_of
from looplens_dashboard.pages import dynamics, lab

from looplens.errors import AnalysisError
from looplens.plots import CURSOR


@pytest.fixture(scope="module")
def view(lab_path):
    return view_of(lab_path)


def text_of(view, query=""):
    drawn = lab.PANEL.body(view, selected(view, f"/dynamics?{query}")).to_plotly_json()
    return json.dumps(drawn, default=lambda part: part.to_plotly_json(), ensure_ascii=False)


def test_what_is_stored_names_its_tokens_and_what_is_not_its_command(view):
    text = text_of(view, "token=6")
    for token in (5, 6, 7):
        assert f'"data-token": "{token}"' in text
    assert "of restart 0" in text
    assert f"looplens dynamics {view.run.path} --parts landscape" in text
    assert lab.held(view, "spectra") == ([5, 6, 7], 0)
    assert lab.held(view, "landscape") is None


def test_the_path_is_of_the_restart_that_the_eigenvalues_are_of(view):
    call = dynamics.PATH.call(view, selected(view, "/dynamics?token=6&restart=1&plane=tail"))
    assert call.arguments["restart"] == 0
    assert call.arguments["basis"] == "tail"
    assert call.draw(view.run).data


def test_points_of_the_eigenvalues_can_be_clicked(view):
    figure = dynamics.SPECTRA.call(view, selected(view, "/dynamics?token=6")).draw(view.run)
    leading = next(trace for trace in figure.data if trace.name == "leading eigenvalue")
    assert 6 in leading.meta["tokens"]
    assert len(leading.meta["tokens"]) == len(leading.x)


def test_the_stretches_follow_the_scrubber(view):
    selection = selected(view, "/dynamics?token=6&iteration=30")
    figure = dynamics.LYAPUNOV.call(view, selection).draw(view.run)
    assert [shape.x0 for shape in figure.layout.shapes if shape.name == CURSOR] == [30]


def test_every_stored_experiment_can_be_chosen(view):
    stored = {name for name in lab.EXPERIMENTS if lab.held(view, name) is not None}
    assert stored == {"fixed_points", "spectra", "causes", "lyapunov"}
    for name in ("fixed_points", "causes", "lyapunov_tokens"):
        selection = selected(view, f"/dynamics?token=6&experiment={name}")
        figure = dynamics.EXPERIMENT.call(view, selection).draw(view.run)
        clicked = [t.meta["tokens"] for t in figure.data if t.meta and "tokens" in t.meta]
        assert 6 in np.concatenate(clicked)


@pytest.mark.parametrize("panel", dynamics.PAGE.panels, ids=lambda panel: panel.name)
def test_a_run_without_a_lab_shows_the_commands(run_path, panel):
    bare = view_of(run_path)
    selection = selected(bare, "/dynamics?token=3")
    assert "iteration" not in panel.depends_on
    if panel is lab.PANEL:
        assert text_of(bare).count("not stored: ") == len(lab.EXPERIMENTS)
    elif panel is dynamics.PATH:
        assert panel.call(bare, selection).draw(bare.run).data
    else:
        with pytest.raises(AnalysisError, match=r"make it with `looplens dynamics .* --tokens 3"):
            panel.call(bare, selection).draw(bare.run)


def test_a_token_of_the_list_is_looked_at_and_the_motion_follows(visit, lab_path):
    with serving(lab_path) as address:
        visit.open(f"{address.rstrip('/')}/dynamics?token=7&iteration=40")
        visit.page.locator("#lab-panel").get_by_role("button", name="Look at token 6").first.click()
        visit.wait_for_query(token="6")
        visit.drawn()
        asked = visit.updates
        visit.page.keyboard.press("ArrowRight")
        visit.wait_for_query(iteration="41")
        line = "graph.layout.shapes.find((shape) => shape.name === 'cursor').x0"
        visit.page.locator("#lyapunov-panel").scroll_into_view_if_needed()
        visit.eventually(lambda: visit.graph("lyapunov", line), 41)
        assert visit.updates == asked
        message = visit.page.locator("#landscape-panel .message").inner_text()
        assert "looplens dynamics" in message
        assert visit.complaints == []
