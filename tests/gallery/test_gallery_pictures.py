"""Pictures of the gallery: what is drawn can be told apart, and read as numbers."""

import math

import numpy as np
import plotly.graph_objects as go
import pytest

from looplens.errors import InputError
from looplens.gallery import mean_interval, pictures
from looplens.gallery.pictures import fitting_ticks, style
from looplens.gallery.values import curves

SEEDS, ONE = mean_interval([0.1, 0.2, 0.3]), mean_interval([0.2])


def drawn(curves, **options):
    return pictures.lines(curves, title="t", x="x", y="y", **options)


def test_curves_have_bands_only_where_there_are_seeds():
    figure = drawn(
        {"three": ([1, 2], [SEEDS, SEEDS]), "one": ([1, 2], [ONE, ONE])},
        log_x=True, marks={"trained": 2},
    )  # fmt: skip
    assert [trace.name for trace in figure.data] == [None, "three", "one"]
    assert list(figure.data[0].y) == [SEEDS.high, SEEDS.high, SEEDS.low, SEEDS.low]
    assert math.isclose(figure.layout.annotations[0].x, math.log10(2))
    with pytest.raises(InputError, match="'a' has 2 x values and 1 y values"):
        drawn({"a": ([1, 2], [1])})
    bars = pictures.bars({"a": {"x": SEEDS}, "b": {"x": 0.5}}, title="", y="")
    assert np.allclose(bars.data[0].error_y.array, SEEDS.high - SEEDS.mean)
    assert not bars.data[1].error_y.visible


def test_one_point_with_seeds_has_whiskers():
    (trace,) = drawn({"alone": ([3], [SEEDS])}).data
    assert np.allclose(trace.error_y.arrayminus, SEEDS.mean - SEEDS.low)


def test_a_band_below_zero_is_cut_on_a_logarithmic_axis():
    wide = mean_interval([0.1, 1.0])  # reaches to 0.55 - 12.7 * 0.45
    band, _ = drawn({"a": ([1, 2], [wide, wide])}, log_y=True).data
    assert min(band.y) == pytest.approx(0.55 / 2)
    assert min(drawn({"a": ([1, 2], [wide, wide])}).data[0].y) < 0


def test_twelve_series_are_told_apart_without_colour_and_more_are_refused():
    looks = [style(number) for number in range(12)]
    assert len({(look.dash, look.symbol) for look in looks}) == 12
    assert len({(look.colour, look.dash) for look in looks}) == 12
    assert len({(look.colour, look.pattern) for look in looks}) == 12
    assert len(drawn({str(n): ([1], [n]) for n in range(12)}).data) == 12
    with pytest.raises(InputError, match="tells 12 curves apart; got 13"):
        drawn({str(n): ([1], [n]) for n in range(13)})
    with pytest.raises(InputError, match="tells 12 series of bars apart; got 13"):
        pictures.bars({str(n): {"x": n} for n in range(13)}, title="", y="")


def test_ticks_of_a_logarithmic_axis_leave_room_for_their_labels():
    # 560 pixels for a factor of 12: 10 stands 41 pixels left of 12, 11 only 20; labels of two
    # characters need 16 and a space of 10.
    assert fitting_ticks(range(1, 13)) == [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12]
    # 560 pixels for a factor of 1000: 600 stands 41 pixels left of 1000, 900 only 8.
    assert fitting_ticks([1, 600, 900, 1000]) == [1, 600, 1000]
    assert list(drawn({"a": ([1, 900, 1000], [1, 2, 3])}, log_x=True).layout.xaxis.ticktext) == [
        "1", "1000"
    ]  # fmt: skip
    with pytest.raises(InputError, match="values above 0; got 0"):
        fitting_ticks([0, 1])


def test_a_level_and_what_the_names_are_stand_in_the_picture():
    for figure in (
        drawn({"4": ([1, 2], [0.5, 0.6])}, level=("guessing", 0.25), legend="layers"),
        pictures.bars({"4": {"a": 0.5}}, title="", y="", level=("guessing", 0.25), legend="layers"),
    ):
        assert figure.layout.shapes[0].y0 == 0.25
        assert figure.layout.annotations[0].text == "guessing"
        assert figure.layout.legend.title.text == "layers"


def test_a_figure_can_be_read_as_numbers():
    low, high = float(f"{SEEDS.low:.6g}"), float(f"{SEEDS.high:.6g}")
    assert curves(drawn({"a": ([1, 2], [SEEDS, SEEDS]), "b": ([1], [math.nan])})) == [
        {"name": "a", "kind": "scatter", "x": [1, 2], "y": [0.2, 0.2]}
        | {"low": [low, low], "high": [high, high]},
        {"name": "b", "kind": "scatter", "x": [1], "y": [None]},
    ]
    (bars,) = curves(pictures.bars({"s": {"x": SEEDS}}, title="", y=""))
    assert (bars["x"], bars["y"], bars["low"], bars["high"]) == (["x"], [0.2], [low], [high])
    (grid,) = curves(go.Figure(go.Heatmap(z=np.array([[1 / 3, math.nan]]))))
    assert grid["z"] == [[0.333333, None]]
