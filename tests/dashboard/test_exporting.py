"""What leaves the app: the data that are drawn, Python that draws them, a page by itself."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
import pytest
from dash import dcc, html
from looplens_dashboard import create_app
from looplens_dashboard.exporting import as_csv, as_json
from looplens_dashboard.exporting.components import as_html

from looplens import plots
from looplens.run import Run

QUERY = "run=whole&prompt=0&token=4&layer=1&iteration=7&restart=1"


@pytest.fixture(scope="module")
def http(run_path: Path) -> Any:
    return create_app(run_path).server.test_client()


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_a_table_has_the_values_of_every_trace_under_the_titles_of_the_axes() -> None:
    figure = go.Figure(
        [
            go.Scatter(x=[1, 2], y=[0.5, float("nan")], name="a, b", text=["<b>x</b>", "y"]),
            go.Scatter(x=[3], y=[1.5], name="second"),
            go.Scatter(x=[9], y=[9], meta={"role": "cursor"}),
            go.Scatter(x=[9], y=[9], visible=False),
        ]
    )
    figure.update_layout(xaxis_title="iteration", yaxis_title="step / |state|")
    assert as_csv(figure) == (
        'trace,iteration,step / |state|,text\n"a, b",1,0.5,x\n"a, b",2,,y\nsecond,3,1.5,\n'
    )
    document = json.loads(as_json(figure, run="demo"))
    assert document["run"] == "demo"
    assert [trace["name"] for trace in document["traces"]] == ["a, b", "second"]
    assert document["traces"][0]["y"] == [0.5, None]
    assert document["traces"][0]["titles"] == {"x": "iteration", "y": "step / |state|"}


def test_a_map_gives_its_values_and_not_the_logarithms_that_are_coloured() -> None:
    values = np.array([[1.0, 10.0], [0.0, np.nan]])
    figure = plots._heatmap.log_heatmap(
        values, np.array([1, 2]), ["p", "q"], value_title="step", row_title="token", title="T"
    )
    assert as_csv(figure).splitlines() == [
        "trace,iteration,token,step,text",
        "values,1,0,1.0,p",
        "values,2,0,10.0,p",
        "values,1,1,0.0,q",
        "values,2,1,,q",
    ]
    assert json.loads(as_json(figure))["traces"][0]["z"] == [[1, 10], [0, None]]


def test_plots_of_one_figure_are_told_apart() -> None:
    figure = go.Figure([go.Bar(x=[1], y=[2]), go.Bar(x=[3], y=[4], xaxis="x2", yaxis="y2")])
    figure.update_layout(xaxis_title="token", yaxis_title="gap", yaxis2={"title": "rate"})
    found = rows(as_csv(figure))
    assert [row["plot"] for row in found] == ["gap by token", "rate"]
    assert [(row["x"], row["y"]) for row in found] == [("1", "2"), ("3", "4")]


def test_the_data_of_a_panel_are_those_of_the_figure_and_of_the_run(http: Any, run: Run) -> None:
    answer = http.get(f"/export/trajectories/recurrence.csv?{QUERY}")
    assert answer.headers["Content-Disposition"] == (
        "attachment; filename*=UTF-8''whole-recurrence.csv"
    )
    found = rows(answer.get_data(as_text=True))
    drawn = plots.recurrence(run, 4, restart=1, layer=1).data[0]
    np.testing.assert_allclose(
        [float(next(reversed(row.values()))) for row in found],
        np.asarray(drawn.customdata).ravel(),
        rtol=1e-5,
    )
    document = http.get(f"/export/trajectories/trajectory.json?{QUERY}").get_json()
    figure = plots.trajectory(run, 4, restart=1, layer=1, iteration=7)
    paths = [trace for trace in figure.data if (trace.meta or {}).get("role") == "trajectory"]
    assert document["traces"][0]["x"] == pytest.approx(list(paths[0].x))
    assert document["traces"][0]["iteration"] == list(paths[0].customdata)


def test_the_python_of_a_panel_makes_the_same_data(http: Any) -> None:
    code = http.get(f"/export/trajectories/trajectory.py?{QUERY}").get_data(as_text=True)
    names: dict[str, Any] = {}
    exec(code.replace("figure.show()", ""), names)
    given = http.get(f"/export/trajectories/trajectory.csv?{QUERY}").get_data(as_text=True)
    assert as_csv(names["figure"]) == given


@pytest.mark.parametrize(
    ("address", "status", "words"),
    [
        ("nowhere/regimes.csv", 404, "There is no page 'nowhere'"),
        ("overview/absent.csv", 404, "There is no absent.csv"),
        ("overview/regimes.exe", 404, "There is no regimes.exe"),
        ("trajectories/page.html?token=99999", 400, "token='99999' cannot be shown"),
        ("trajectories/page.html?run=..%2F..%2Fetc", 400, "There is no run '../../etc' here"),
        ("dynamics/spectra.csv", 400, "looplens dynamics"),
    ],
)
def test_what_there_is_not_is_said(http: Any, address: str, status: int, words: str) -> None:
    answer = http.get(f"/export/{address}")
    assert (answer.status_code, answer.mimetype) == (status, "text/plain")
    assert words in answer.get_data(as_text=True)


def test_a_saved_page_has_everything_inside(http: Any) -> None:
    answer = http.get(f"/export/trajectories/page.html?{QUERY}&zoom=trajectory~xaxis:0,1")
    page = answer.get_data(as_text=True)
    assert not re.findall(r"""<(?:script|img|iframe)[^>]+src=|<link[^>]+href="(?!data:)""", page)
    assert "default-src 'none'" in page
    assert "https://cloud.plotly.com" not in page
    assert '"zoom": "trajectory~xaxis:0,1"' in page
    figures = re.findall(r'<script type="application/json">(.*?)</script>', page)
    assert len(figures) >= 2
    assert all({"data", "layout"} <= set(json.loads(text)) for text in figures)
    assert "plots.trajectory(run, tokens=" in page
    dynamics = http.get(f"/export/dynamics/page.html?{QUERY}").get_data(as_text=True)
    assert "looplens dynamics" in dynamics  # what a panel lacks is said in its place


def test_components_become_html_without_anything_that_acts() -> None:
    shown = as_html(
        [
            html.Button(
                ["a < b", html.Br(), 3, None],
                className="token",
                style={"backgroundColor": "red", "--c": "1"},
                **{"data-token": "4", "aria-pressed": "true"},
            ),
            html.A("link", href="https://example.org"),
            html.Iframe(src="https://example.org"),
            html.Img(src="https://example.org/x.png", title='"quoted"'),
            dcc.Graph(figure={"data": []}),
            dcc.Store(id="kept", data={"a": 1}),
        ],
        draw=lambda figure: f"[{figure}]",
    )
    assert shown == (
        '<button aria-pressed="true" class="token" data-token="4" '
        'style="background-color: red; --c: 1">a &lt; b<br>3</button><a>link</a>'
        "<img title=\"&quot;quoted&quot;\">[{'data': []}]"
    )
