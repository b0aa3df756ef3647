"""No looplens figure ever offers to upload itself, and a figure never relies on colour alone."""

import copy
import json
import pickle

import plotly.io
import pytest

from looplens import plots
from looplens.errors import InputError
from looplens.plots import _theme

UPLOAD = "sendChartToCloud"


@pytest.fixture
def figure():
    made = _theme.figure(title="A title", subtitle="of a run")
    made.add_scatter(x=[0, 1], y=[0, 1])
    return made


@pytest.fixture
def jupyter(monkeypatch):
    """Stand in for a notebook: collect what is displayed."""
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda bundle, **_: shown.append(bundle))
    monkeypatch.setattr("IPython.display.display_html", lambda *_, **__: None)
    monkeypatch.setattr(plotly.io.renderers, "render_on_display", True)
    previous = plotly.io.renderers.default
    plotly.io.renderers.default = "plotly_mimetype+notebook"
    yield shown
    plotly.io.renderers.default = previous


def configs(bundle):
    """The configs in a mime bundle."""
    yield bundle["application/vnd.plotly.v1+json"]["config"]
    text = bundle["text/html"]
    start = text.index('{"showSendToCloud"')
    yield json.JSONDecoder().raw_decode(text, start)[0]


def test_show_and_the_notebook_display_carry_the_config(figure, jupyter):
    figure.show()
    figure._ipython_display_()
    bundles = [*jupyter, figure._repr_mimebundle_()]
    assert len(bundles) == 3
    for bundle in bundles:
        for config in configs(bundle):
            assert config["showSendToCloud"] is False
            assert config["displaylogo"] is False


def test_a_callers_config_is_kept_but_cannot_bring_the_upload_back(figure, jupyter):
    figure.show(config={"showSendToCloud": True, "scrollZoom": True})
    for config in configs(jupyter[0]):
        assert config["scrollZoom"] is True
        assert config["showSendToCloud"] is False


def test_html_export_carries_the_config_and_no_upload_address(figure, tmp_path):
    figure.write_html(tmp_path / "figure.html", include_plotlyjs=False)
    for text in (
        figure.to_html(include_plotlyjs=False, full_html=False),
        figure._repr_html_(),
        (tmp_path / "figure.html").read_text(),
    ):
        assert '"showSendToCloud": false' in text
        assert "cloud.plotly.com" not in text


def test_the_figure_itself_removes_the_button_wherever_it_travels(figure):
    copies = [figure, copy.deepcopy(figure), pickle.loads(pickle.dumps(figure))]
    for made in copies:
        assert isinstance(made, plots.Figure)
        stored = json.loads(made.to_json())["layout"]["modebar"]["remove"]
        assert UPLOAD in stored


def test_dash_takes_the_figure_and_the_config(figure):
    dcc = pytest.importorskip("dash").dcc
    graph = dcc.Graph(figure=figure, config=plots.CONFIG)
    sent = json.loads(plotly.io.json.to_json_plotly(graph))["props"]
    assert sent["config"]["showSendToCloud"] is False
    assert UPLOAD in sent["figure"]["layout"]["modebar"]["remove"]


@pytest.mark.browser
@pytest.mark.parametrize("config", [None, "ours"])
def test_a_browser_shows_no_upload_button(figure, tmp_path, config, chromium):
    """With our export, and with plotly's own that knows nothing of our config."""
    plain = tmp_path / "figure.html"
    if config == "ours":
        figure.write_html(plain)
    else:
        plotly.io.write_html(figure, plain)
    page = chromium.new_page()
    page.goto(plain.as_uri())
    page.wait_for_selector(".modebar-btn", state="attached")
    titles = page.eval_on_selector_all(
        ".modebar-btn", "buttons => buttons.map(button => button.dataset.title)"
    )
    page.close()
    assert any("Download" in title for title in titles)
    assert not any("share" in title.lower() or "cloud" in title.lower() for title in titles)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_regimes_differ_in_colour_symbol_dash_and_pattern(theme):
    styles = plots.palette(theme).regimes
    assert tuple(styles) == plots.REGIMES
    for aspect in ("colour", "symbol", "dash", "pattern", "label"):
        assert len({getattr(style, aspect) for style in styles.values()}) == len(plots.REGIMES)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_and_regimes_stand_out_from_the_paper(theme):
    """WCAG contrast for text; marks are also told apart by symbol, dash or pattern."""
    colours = plots.palette(theme)
    assert contrast(colours.text, colours.paper) > 7
    assert contrast(colours.muted, colours.paper) > 4.5
    for colour in [*colours.categories, *(style.colour for style in colours.regimes.values())]:
        assert contrast(colour, colours.paper) > 2


def contrast(one, other):
    def luminance(colour):
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_an_unknown_theme_says_which_there_are():
    with pytest.raises(InputError, match="theme must be 'light' or 'dark', got 'drak'"):
        _theme.figure(title="x", theme="drak")
