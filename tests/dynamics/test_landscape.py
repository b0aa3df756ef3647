"""Planes through states: the field on them, fixed points near them, where runs from them end."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import looplens as ll
from looplens import plots
from looplens.dynamics import basin_map, landscape
from looplens.dynamics.maps.recorded import recorded
from looplens.dynamics.maps.state_map import StateMap
from looplens.dynamics.planes.field import field, leading_directions, valleys, whirls
from looplens.dynamics.planes.plane import Plane, Window, spanned, through_limits, window_of
from looplens.dynamics.planes.slices import Slice
from looplens.dynamics.solving.searching import search
from looplens.errors import AnalysisError, InputError

# Token 6 of this prompt turns back and forth by itself, and token 7 because of it.
ORBITING = [5, 10, 9, 8, 8, 9, 11, 9]


def slice_of_map(f, n):
    return Slice(StateMap.of(f, torch.zeros(n, dtype=torch.float64)))


def cubic(s):
    """Wells at -1 and 1 of multiplier 0, and an unstable point of multiplier 1.5 between them."""
    return torch.cat([1.5 * s[:1] - 0.5 * s[:1] ** 3, 0.5 * s[1:]])


@pytest.fixture(scope="module")
def orbiting_model():
    return ll.load_model("phop-huginn-mini")


@pytest.fixture(scope="module")
def orbiting_landscape(orbiting_model):
    return landscape(orbiting_model, ORBITING, tokens=[6, -1], size=15)


@pytest.fixture(scope="module")
def affine_run(tmp_path_factory):
    model = ll.load_model("affine-huginn-mini")
    path = tmp_path_factory.mktemp("planes") / "run"
    ll.record(model, ["3+4*2"], out=path, iterations=24, restarts=3)
    return model, ll.open_run(path)


def test_a_plane_goes_along_the_orbit_and_elsewhere_along_the_approach():
    rng = np.random.default_rng(0)
    axes = np.linalg.qr(rng.standard_normal((20, 3)))[0].T
    angle = np.linspace(0, 12, 40)
    origin = rng.standard_normal(20)
    orbit = origin + np.cos(angle)[:, None] * axes[0] + 0.4 * np.sin(angle)[:, None] * axes[1]
    plane, from_tails = through_limits(origin, orbit[None], orbit[None])
    assert from_tails == 2
    np.testing.assert_allclose(plane.distance(orbit), 0, atol=1e-12)
    assert abs(plane.directions[0] @ axes[0]) > 0.99
    np.testing.assert_allclose(plane.states(plane.coordinates(orbit)), orbit, atol=1e-12)
    # Settled: the tail spans nothing, and the way in spans the plane.
    decay = 0.5 ** np.arange(30)[:, None]
    path = origin + 3 * decay * axes[0] + decay**2 * axes[2]
    plane, from_tails = through_limits(origin, path[None, -8:], path[None])
    assert from_tails == 0
    np.testing.assert_allclose(plane.distance(path), 0, atol=1e-12)
    assert all(axis[np.abs(axis).argmax()] > 0 for axis in plane.directions)
    # Towards zero, where the norm of the limit says nothing; and at any scale.
    for scale in (1.0, 1e-20):
        path = scale * decay * (axes[0] + decay * axes[2])
        zero = scale * 1e-9 * axes[1]
        plane, from_tails = through_limits(zero, path[None, -8:], path[None])
        assert from_tails == 0
        window = window_of(plane, path[None, -8:], path[None], 5, close=False)
        assert 0.5 < window.half / scale < 1.5
    # Nothing moves at all: a random plane, the same every time.
    still = np.tile(origin, (1, 5, 1))
    one, other = (through_limits(origin, still, still)[0].directions for _ in range(2))
    np.testing.assert_array_equal(one, other)
    np.testing.assert_allclose(one @ one.T, np.eye(2), atol=1e-12)


def test_the_field_of_a_linear_map_is_exact():
    a = torch.tensor([[0.5, 0.0, 0.0], [0.0, -0.8, 0.0], [0.6, 0.0, 0.1]], dtype=torch.float64)
    given = slice_of_map(lambda s: a @ s, 3)
    plane = Plane(origin=np.zeros(3), directions=np.eye(3)[:2])
    window = Window.about(np.zeros(2), 2.0, 5)
    found = field(given, plane, window)
    states = plane.states(window.points)
    steps = states @ (a.numpy().T - np.eye(3))
    lengths = np.linalg.norm(steps, axis=1)
    np.testing.assert_allclose(found.residual.ravel(), lengths, atol=1e-12)
    with np.errstate(invalid="ignore"):
        unit = steps / lengths[:, None]
    np.testing.assert_allclose(found.direction.reshape(-1, 2), unit[:, :2], atol=1e-12)
    np.testing.assert_allclose(found.in_plane.ravel(), (unit[:, :2] ** 2).sum(1), atol=1e-12)
    assert np.isnan(found.in_plane[2, 2])  # nothing moves at the fixed point
    assert valleys(found.residual) == [12]


def test_fixed_points_are_found_from_valleys_unstable_ones_too():
    given = slice_of_map(cubic, 4)
    plane = Plane(origin=np.zeros(4), directions=np.eye(4)[:2])
    window = Window.about(np.zeros(2), 1.6, 17)
    seen = field(given, plane, window)
    lows = window.points[valleys(seen.residual)]
    starts = given.rows(torch.as_tensor(plane.states(lows)))
    found = search(given.whole, starts[None, :1], starts[None])[0]
    order = np.argsort(found.states[:, 0].numpy())
    np.testing.assert_allclose(found.states[:, 0].numpy()[order], [-1, 0, 1], atol=1e-9)
    np.testing.assert_allclose(found.radius[order], [0.5, 1.5, 0.5], atol=1e-6)
    # On a grid that misses all three, the turn of the step still tells where they are.
    coarse = Window.about(np.array([0.1, 0.1]), 1.6, 5)
    middles = coarse.between(whirls(field(given, plane, coarse)))
    assert sorted(middles[:, 0].round(1)) == [-1.1, -0.3, 1.3]
    turn = torch.tensor([[0.0, -0.9], [0.9, 0.0]], dtype=torch.float64)

    def spiral(s):
        return torch.cat([0.2 * s[:2], turn @ s[2:]])

    given = slice_of_map(spiral, 4)
    directions = leading_directions(given.whole, torch.zeros(1, 4, dtype=torch.float64))
    plane = spanned(np.zeros(4), directions)
    np.testing.assert_allclose(plane.distance(np.eye(4)[2:]), 0, atol=1e-8)


def test_a_settled_token_ends_in_the_valley(affine_run):
    model, run = affine_run
    found = landscape(model, run, tokens=[0, -1], size=9)
    assert found["token"].values.tolist() == [0, run.n_tokens - 1]
    for name, variable in found.data_vars.items():
        assert variable.dims[0] == "token", name
        assert variable.attrs["long_name"], name
    assert (found["regime"] == "fixed_point").all()
    assert (found["origin_is"] == "fixed point").all()
    assert (found["fixed_point_radius"][:, 0] < 1).all()
    np.testing.assert_allclose(found["fixed_point_uv"][:, 0], 0, atol=1e-4)
    np.testing.assert_allclose(found["path"][:, :, -1], 0, atol=1e-3)
    np.testing.assert_allclose(found["held_path"][:, :, -1], 0, atol=1e-3)
    assert float(found["others_motion"].max()) < 1e-4
    # One cell, by hand.
    rec = recorded(model, run)
    one = found.isel(token=1)
    u, v = one["u_coordinate"].values[2], one["v_coordinate"].values[7]
    a, b = one["plane_direction"].values
    states = rec.at().clone()
    states[-1] = torch.as_tensor(one["origin"].values + u * a + v * b)
    step = (rec.step(states[None])[0] - states)[-1].detach()
    assert float(one["residual"][7, 2]) == pytest.approx(float(step.norm()), rel=1e-3)
    # Later tokens answer too: the residual of the sequence is no less.
    same = {"tokens": 0, "size": 9, "plane": one["plane_direction"].values, "half": 1.0}
    held = landscape(model, run, **same)
    given = landscape(model, run, **same, context=rec.at())
    np.testing.assert_allclose(given["residual"], held["residual"], rtol=1e-3, atol=1e-4)
    assert (given.attrs["held"], given.attrs["iteration"]) == ("given", None)
    both = landscape(model, run, **same, scope="sequence")
    assert (both["residual"].values > held["residual"].values * (1 - 1e-3)).all()
    assert np.isnan(both["held_path"]).all()
    moving = held["residual"].values > 1e-2  # at the fixed point itself only rounding steps
    np.testing.assert_allclose(
        both["step_in_plane"].values[moving], held["step_in_plane"].values[moving], atol=1e-2
    )


def test_an_unstable_point_lies_under_an_orbit_and_parts_its_two_phases(
    orbiting_model, orbiting_landscape
):
    found = orbiting_landscape
    assert found["origin_is"].values[0] == "fixed point"
    assert float(found["fixed_point_radius"][0, 0]) > 1.2
    # The later token is driven: alone it would come to rest.
    assert float(found["fixed_point_radius"][1, 0]) < 0.5
    assert float(found["others_motion"][1]) > 0.1
    basins = basin_map(orbiting_model, ORBITING, tokens=[6, 7], size=9)
    assert basins["end_kind"].values[:, 0].tolist() == ["orbit", "fixed point"]
    assert float(basins["end_period"][0, 0]) == pytest.approx(2, abs=0.05)
    assert set(np.unique(basins["phase"][0])) == {0.0, 1.0}
    assert (basins["end"] == 0).all()
    assert int(basins["steps"][1]) < int(basins["steps"][0]) <= 256 * (81 + 1)
    moving = basin_map(orbiting_model, ORBITING, tokens=7, size=5, scope="sequence", iterations=200)
    assert moving["end_kind"].values[0, 0] == "orbit"
    assert moving["start_end"].values.tolist() == [[0]]
    eigen = landscape(orbiting_model, ORBITING, tokens=6, size=5, plane="eigen")
    rows = eigen["plane_direction"].values[0]
    np.testing.assert_allclose(rows @ rows.T, np.eye(2), atol=1e-6)
    # Of the whole sequence the leading eigenvectors may not touch this token at all.
    whole = landscape(
        orbiting_model, ORBITING, tokens=6, size=5, plane="eigen", scope="sequence", half=1.0
    )
    inside = whole["plane_direction"].values[0] @ rows.T
    assert (np.linalg.norm(inside, axis=1) > 0.9).all()


def test_a_run_without_its_initial_state_shows_what_it_has(affine_run, tmp_path):
    model, whole = affine_run
    path = tmp_path / "sparse"
    ll.record(model, ["3+4*2"], out=path, iterations=24, restarts=3, keep_iterations=[4, 8, 16, 24])
    run = ll.open_run(path)
    found = landscape(model, run, tokens=0, size=5)
    # The first token sees no other: held or not, it goes the same way, of the same iterations.
    assert found["iteration"].values.tolist() == [4, 8, 16, 24]
    np.testing.assert_allclose(found["held_path"], found["path"], atol=1e-3)
    every = landscape(model, whole, tokens=0, size=5)
    np.testing.assert_allclose(every["held_path"], every["path"], atol=1e-3)
    # What the run says of its regimes is what the figure says.
    words = ll.analysis.get(whole, "classify").copy(deep=True)
    words["regime"][:, -1] = np.array(["orbit", "slider", "unresolved"], dtype=object)
    run.write_analysis("classify", words, version=1)
    seen = landscape(model, ll.open_run(path), tokens=[0, -1], size=5)["regime"].values.tolist()
    assert seen == [["fixed_point"] * 3, ["orbit", "slider", "unresolved"]]
    basins = basin_map(model, run, tokens=-1, size=5, iterations=32)
    assert basins["start_end"].isnull().all()
    assert basins["start_uv"].isnull().all()
    assert not any("initial states" in name for name in _basin_names(basins))
    with pytest.raises(InputError, match="iteration 0 was not kept"):
        basin_map(model, run, tokens=-1, size=5, plane="starts")


def test_bad_input_is_named(orbiting_model):
    model = orbiting_model
    for change, message in (
        ({"size": 2}, "size must be a whole number of cells from 3 to 257, got 2"),
        ({"half": -1.0}, "half must be positive"),
        ({"scope": "layer"}, "scope must be 'token' or 'sequence'"),
        ({"plane": "pca"}, "plane must be 'limits', 'eigen' or two directions"),
        ({"plane": np.ones((2, 3))}, "two directions of 64 real numbers span the plane"),
        ({"plane": np.ones((2, 64))}, "parallel"),
        ({"plane": np.ones((2, 64)) * 1j}, "real and its imaginary part"),
        ({"plane": [[1.0], [1.0, 2.0]]}, "the directions of the plane are no array"),
        ({"context": "here"}, "context must be an array of states"),
        ({"context": torch.zeros(2, 64)}, r"context must hold finite states \[pos, d_model\]"),
        ({"context": torch.zeros(8, 64), "iteration": 3}, "iteration= or context=, not both"),
        ({"tokens": 8}, "must be a position of the prompt or several, from 0 to 7"),
    ):
        with pytest.raises(InputError, match=message):
            landscape(model, ORBITING, **{"tokens": 0, "size": 5, **change})
    for change, message in (
        ({"iterations": 8}, "iterations must be an integer of at least 16"),
        ({"tolerance": 0}, "tolerance must lie between 0 and 1"),
        ({"plane": "eigen"}, "plane must be 'limits', 'starts' or two directions"),
        ({"scope": "sequence", "iteration": 3}, "with scope='sequence' they move"),
    ):
        with pytest.raises(InputError, match=message):
            basin_map(model, ORBITING, **{"tokens": 0, "size": 5, **change})


def test_figures_show_the_results_and_nothing_else(orbiting_model, orbiting_landscape, affine_run):
    made = plots.landscape_figure(orbiting_landscape, 6, theme="dark")
    kinds = [trace.type for trace in made.data]
    assert kinds[:2] == ["heatmap", "quiver"]
    assert made.data[0].zorder == -1  # else it hides the arrows
    names = [trace.name for trace in made.data]
    assert "unstable fixed point" in names
    assert "restart 0, others held" in names
    assert "the other tokens are held still here" in made.layout.title.subtitle.text
    assert any("stable fixed point" in name for name in _names(orbiting_landscape, 7))
    moved = plots.landscape_figure(orbiting_landscape, 6, iteration=5)
    paths = [t for t in moved.data if (t.meta or {}).get("role") == "trajectory"]
    cursor = next(t for t in moved.data if t.name == plots.CURSOR)
    assert list(cursor.x) == [path.x[list(path.customdata).index(5)] for path in paths]
    found = basin_map(orbiting_model, ORBITING, tokens=6, size=9, plane="starts")
    made = plots.basin_map_figure(found)
    names = [trace.name for trace in made.data]
    assert "0: orbit of period 2, 100\u202f%" in names
    assert [trace.type for trace in made.data].count("heatmap") == 2
    assert len(set(np.ravel(made.data[names.index("end")].z))) == 2  # a shade for each phase
    for figure in (plots.landscape_figure, plots.basin_map_figure):
        with pytest.raises(InputError, match="token=3, but this result holds"):
            figure(found, 3)
    for figure in (plots.landscape, plots.basin_map):
        with pytest.raises(AnalysisError, match="looplens dynamics"):
            figure(affine_run[1])


def _names(found, token):
    return [trace.name for trace in plots.landscape_figure(found, token).data]


def _basin_names(found):
    return [str(trace.name) for trace in plots.basin_map_figure(found).data]
