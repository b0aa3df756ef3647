"""The figure of a span draws the numbers of the span, with or without a result."""

import numpy as np
import pytest

from looplens import plots
from looplens.analysis import choose_loop_span


def span_of(distances, prompts=4):
    rng = np.random.default_rng(0)
    own = distances * rng.uniform(0.95, 1.05, (prompts, len(distances)))
    angle = np.pi * np.cumsum(own, axis=1)
    angle = np.concatenate((np.zeros((prompts, 1)), angle), axis=1)
    return choose_loop_span(np.stack((np.cos(angle), np.sin(angle)), axis=-1))


LAYER = np.arange(16)
VALLEY = 0.02 + 0.4 * np.clip(1 - LAYER / 6, 0, None) + 0.4 * np.clip((LAYER - 11) / 4, 0, None)


def role(figure, name):
    return [trace for trace in figure.data if (trace.meta or {}).get("role") == name]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_it_draws_the_distances_and_marks_the_span(theme):
    span = span_of(VALLEY)
    figure = plots.loop_span(span, theme, name="<model>")
    (distance,) = role(figure, "distance")
    np.testing.assert_array_equal(distance.y, span.distance)
    np.testing.assert_array_equal(distance.error_y.array, span.standard_error)
    (backward,) = role(figure, "backward")
    np.testing.assert_array_equal(backward.y, span.backward.difference[::-1])
    assert sorted({mark.x[0] for mark in role(figure, "knee")}) == [6, 11]
    shaded = [(shape.x0, shape.x1) for shape in figure.layout.shapes]
    assert shaded == [(6.5, 10.5)] * 2
    assert {"encoder (7)", "loop (4)", "decoder (5)"} == {a.text for a in figure.layout.annotations}
    assert "&lt;model&gt; · 4 prompts" in figure.layout.title.subtitle.text
    assert figure.layout.template.layout.paper_bgcolor == plots.palette(theme).paper


def test_without_a_span_it_says_so_and_shades_nothing():
    figure = plots.loop_span(span_of(np.linspace(0.2, 0.01, 12), prompts=1))
    assert "has no knee at the encoder" in figure.layout.title.subtitle.text
    assert not figure.layout.shapes
    assert not role(figure, "knee")
