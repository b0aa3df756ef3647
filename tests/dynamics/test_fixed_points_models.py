"""Fixed points of bundled models: where they settle, under orbits, and where there are none."""

import shutil

import numpy as np
import pytest
import torch
import xarray as xr

import looplens as ll
from looplens import plots
from looplens.dynamics import cycle_points, fixed_points
from looplens.dynamics.eigen.resting import resting
from looplens.dynamics.maps.recorded import recorded
from looplens.dynamics.solving import model_points
from looplens.dynamics.solving.starting import starts_of
from looplens.errors import AnalysisError, InputError
from looplens.models import LoopedConfig, LoopedTransformer
from looplens.models.wrapping import wrap

SETTLED = [5, 7, 5, 8, 3, 8, 2]
ORBITING = [5, 10, 9, 8, 8, 9, 11, 9]  # position 6 turns with period 2, and drives the last


@pytest.fixture(scope="module")
def affine(tmp_path_factory):
    model = ll.load_model("affine-huginn-mini")
    out = tmp_path_factory.mktemp("affine") / "run"
    options = {"iterations": 40, "restarts": 2, "progress": False}
    return model, ll.record(model, [[1, 2, 3], SETTLED], out=out, **options)


@pytest.fixture(scope="module")
def phop():
    model = ll.load_model("phop-huginn-mini")
    return model, {scope: fixed_points(model, ORBITING, scope=scope) for scope in SCOPES}


SCOPES = ("token", "sequence")


@pytest.mark.parametrize("scope", SCOPES)
def test_settled_tokens_lie_at_their_point(affine, scope):
    model, run = affine
    calls = []
    options = {"starts": 3, "progress": lambda *so_far: calls.append(so_far)}
    found = fixed_points(model, run, prompt=1, restart=1, scope=scope, **options)
    assert found["token"].values.tolist() == list(range(3, 10))
    done, totals = zip(*calls, strict=True)
    assert list(done) == sorted(done)
    assert calls[-1] == ((7, 7) if scope == "token" else (14, 14))  # sequence: gone through twice
    assert set(totals) == {calls[-1][1]}
    assert (found["status"] == "stable").all()
    assert (found["n_points"] == 1).all()
    assert (found["arrives"] == 0).all()
    assert (found["basin"][:, 0] == 3).all()
    assert (found["distance"][:, 0] < 1e-5).all()
    assert (found["residual"][:, 0] <= found["tolerance"][:, 0]).all()
    assert (found["radius"][:, 0] < 0.5).all()
    assert np.isnan(found["fixed_point"].values[:, 1:]).all()
    last = run.state(restart=1, tokens=slice(3, 10)).values[:, -1]
    np.testing.assert_allclose(found["fixed_point"].values[:, 0], last, atol=1e-4)
    of = {"prompt": 1, "restart": 1, "scope": scope, "starts": 0}
    one = fixed_points(model, run, **of, tokens=-1, iteration=-1)
    assert one.attrs["iteration"] == 40
    assert one.attrs["derivative"] == "reverse mode twice"
    assert one["token"].values.tolist() == [9]
    np.testing.assert_allclose(
        one["fixed_point"].values[0, 0], found["fixed_point"].values[-1, 0], atol=1e-4
    )
    assert one["basin"].values[0, 0] == 0


def test_where_searches_begin(affine):
    model, run = affine
    found, other = (recorded(model, run, prompt=prompt) for prompt in (1, 0))
    begin = starts_of(found, None, 3, seed=5)
    torch.testing.assert_close(begin.centre, found.states[21:].mean(0))
    earlier = starts_of(found, -11, 3, seed=5)  # iteration 30
    torch.testing.assert_close(earlier.centre, found.states[16:31].mean(0))

    def ways(starts):
        away = starts.drawn - starts.centre[:, None]
        assert (away.norm(dim=-1) <= 1.001 * starts.size[:, None]).all()
        return torch.nn.functional.normalize(away, dim=-1)

    # Every token has starts of its own, whatever else is asked for.
    torch.testing.assert_close(ways(begin), ways(earlier), atol=1e-4, rtol=1e-4)
    assert (ways(begin)[0] * ways(starts_of(other, None, 3, seed=5))[0]).sum(-1).abs().max() < 0.9
    assert (ways(begin) * ways(starts_of(found, None, 3, seed=6))).sum(-1).abs().max() < 0.9


def test_the_point_under_a_natural_orbit(phop):
    model, found = phop
    for scope in SCOPES:
        status = found[scope]["status"].values.tolist()
        assert status == [*["stable"] * 6, "unstable", "stable"]
        orbit = found[scope].isel(token=6)
        assert -1.6 < orbit["eigenvalue_real"].values[0] < -1.2  # a flip: period 2
        assert abs(orbit["eigenvalue_imag"].values[0]) < 1e-3
        assert orbit["arrives"] == -1
        assert orbit["basin"].values[0] == 0
        assert orbit["distance"].values[0] > 0.1
        assert (found[scope]["radius"].values[[0, 1, 2, 7], 0] < 0.7).all()
    # With the turning token held at its fixed point, the one that it drives has another.
    token, sequence = (found[scope]["fixed_point"].values[7, 0] for scope in SCOPES)
    assert np.linalg.norm(token - sequence) > 0.1
    states = torch.tensor(found["sequence"]["fixed_point"].values[:, 0], dtype=torch.float32)
    step = recorded(model, ORBITING).step
    moved = step(states[None]).detach()[0]
    assert ((moved - states).norm(dim=-1) < 1e-5 * states.norm(dim=-1)).all()
    pushed = states.clone()
    pushed[6] += 0.01 * torch.randn(64, generator=torch.Generator().manual_seed(0))
    for _ in range(100):
        pushed = step(pushed[None]).detach()[0]
    assert (pushed[6] - states[6]).norm() > 1  # left it
    assert (pushed[:6] - states[:6]).norm() < 1e-3  # nothing else did


def test_a_token_that_no_walk_solves_is_searched_before_later_ones_are_given_up(monkeypatch, phop):
    blocked = []

    def forgetful(step, start, *, solved=0, **options):
        rest = resting(step, start, solved=solved, **options)
        if solved <= 6:
            blocked.append(solved)
            rest.verified[6], rest.states[6] = False, rest.states[6] + 0.1
        return rest

    monkeypatch.setattr(model_points, "resting", forgetful)
    model, found = phop
    again = fixed_points(model, ORBITING, scope="sequence", starts=4)
    assert blocked == [0]
    assert again["status"].values.tolist() == found["sequence"]["status"].values.tolist()
    states, before = (result["fixed_point"].values[:, 0] for result in (again, found["sequence"]))
    np.testing.assert_allclose(states, before, atol=1e-3)


def test_a_token_that_never_settles_has_an_unstable_point():
    model = ll.load_model("phop-ouro-mini")
    found = fixed_points(model, [1])
    assert found["status"].item() == "unstable"
    assert found["arrives"].item() == -1
    assert found["basin"].values.max() == 0
    values = found["eigenvalue_real"].values + 1j * found["eigenvalue_imag"].values
    nearest = np.nanargmin(np.abs(values - (1.0034 + 0.1246j)))
    assert abs(values[0, nearest] - (1.0034 + 0.1246j)) < 1e-3  # it grows and turns slowly
    assert found["n_points"].item() >= 1
    # In a sequence, the point that later tokens see comes first, nearest to the mean or not.
    whole = fixed_points(model, [1], scope="sequence")
    seen = recorded(model, [1])
    rest = resting(seen.step, seen.at(), causal=True)
    assert rest.verified.all()
    np.testing.assert_allclose(whole["fixed_point"].values[0, 0], rest.states[0], atol=1e-3)


def drifting(norm):
    torch.manual_seed(0)
    config = LoopedConfig(
        d_model=16,
        n_heads=2,
        d_mlp=32,
        d_vocab=11,
        n_ctx=16,
        n_prelude=0,
        n_core=1,
        n_coda=0,
        norm=norm,
        injection="none",
        initial_state="embedding",
        default_iterations=24,
    )
    return LoopedTransformer(config).eval()


def test_what_never_settles_is_said_and_is_no_point():
    found = fixed_points(drifting("pre"), [1, 2, 3, 4], starts=0, walk=64)
    lacking = (found["n_points"] == 0).values
    assert lacking.any()  # some have points near zero, from which steps of any size can be taken
    assert found["status"].isin(["none", "outside", "degenerate"]).values[lacking].all()
    assert np.isnan(found["fixed_point"].values[lacking]).all()
    assert (found["least_residual"].values[lacking] > 1e-5).all()
    assert found.attrs["notes"]
    slow = fixed_points(drifting("huginn"), [1, 2], starts=0, walk=64)
    assert slow["status"].values[0] == "none"
    notes = " ".join(slow.attrs["notes"])
    assert "token 0: no fixed point was found; the best residual is" in notes
    whole = fixed_points(drifting("huginn"), [1, 2], starts=0, walk=64, scope="sequence")
    assert whole["status"].values.tolist() == ["none", "no context"]
    cycle = cycle_points(drifting("huginn"), [1, 2])
    assert np.isnan(cycle["cycle_point"]).all()
    assert not cycle["verified"].any()


def test_a_model_that_sees_both_ways_is_solved_at_once():
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.AlbertConfig(
        vocab_size=30,
        hidden_size=24,
        embedding_size=8,
        num_attention_heads=3,
        intermediate_size=40,
        num_hidden_layers=5,
        max_position_embeddings=20,
        initializer_range=0.2,
    )
    model = wrap(transformers.AlbertModel(config).eval())
    found = fixed_points(model, [1, 2, 3, 4], scope="sequence", starts=1, walk=100)
    assert not found.attrs["causal"]
    assert len(set(found["status"].values)) == 1
    assert len(set(found["radius"].values[:, 0])) == 1
    if (found["status"] == "stable").all():
        states = torch.tensor(found["fixed_point"].values[:, 0], dtype=torch.float32)
        step = recorded(model, [1, 2, 3, 4]).step
        moved = step(states[None]).detach()[0]
        torch.testing.assert_close(moved, states, atol=1e-4, rtol=1e-4)


def test_the_points_of_a_cycle_are_the_limits_of_the_layers(affine):
    model, run = affine
    found = cycle_points(model, run, prompt=1)
    assert found["place"].values.tolist() == ["in", "layer 0", "layer 1"]
    assert found["verified"].all()
    assert (found["limit_distance"] < 1e-5).all()
    assert (found["closure"] < 1e-5).all()
    points = found["cycle_point"].values  # apart from the place before; the first from the last
    apart = np.linalg.norm(points - points[:, [-1, 0, 1]], axis=-1) / np.linalg.norm(
        points, axis=-1
    )
    np.testing.assert_allclose(found["separation"], apart, rtol=1e-4)
    for layer in (0, 1):
        stored = run.site(restart=0, layer=layer, tokens=slice(3, 10)).values[:, -1]
        points = found["cycle_point"].sel(place=f"layer {layer}").values
        np.testing.assert_allclose(points, stored, atol=1e-3)
    ends = fixed_points(model, run, prompt=1, starts=0)["fixed_point"].values[:, 0]
    np.testing.assert_allclose(found["cycle_point"].values[:, -1], ends, atol=1e-4)
    ouro = cycle_points(ll.load_model("phop-ouro-mini"), [1])
    assert ouro["place"].values.tolist()[-1] == "state"  # behind the norm of the loop


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_figure_shows_every_point(phop, theme):
    result = phop[1]["token"].copy(deep=True)
    made = plots.fixed_points_figure(result, 6, theme=theme)
    names = {trace.name for trace in made.data}
    assert names == {"nearest to the mean, stable", "nearest to the mean, unstable"}
    assert sum(len(trace.x) for trace in made.data) == 2 * 8
    for rows in ([2], slice(None)):
        for name in ("radius", "distance", "fixed_point"):
            result[name][rows] = np.nan
        result["status"][rows] = "none"
        made = plots.fixed_points_figure(result, theme=theme)
        missing = next(trace for trace in made.data if "no verified" in trace.name)
        assert missing.x.tolist() == np.arange(8)[rows].tolist()
        assert "none was found" in missing.text[0]
    assert any("nothing to measure" in note.text for note in made.layout.annotations)
    names = {trace.name for trace in plots.fixed_points_figure(phop[1]["sequence"]).data}
    assert names == {"held there for later tokens, stable", "held there for later tokens, unstable"}


def test_a_stored_result_is_shown(affine, tmp_path):
    model, run = affine
    shutil.copytree(run.path, tmp_path / "run")
    run = ll.open_run(tmp_path / "run")
    found = fixed_points(model, run, prompt=1, starts=1)
    run.write_analysis("dynamics/fixed_points", found, version=1)
    run = ll.open_run(tmp_path / "run")
    xr.testing.assert_equal(run.analysis("dynamics/fixed_points"), found)
    made = plots.fixed_points(run)
    assert len(made.data[0].x) == 7
    assert "others held still" in made.layout.title.subtitle.text
    with pytest.raises(AnalysisError, match="--tokens 1"):
        plots.fixed_points(run, 1)


def test_refusals(affine):
    model, run = affine
    with pytest.raises(InputError, match="scope must be 'token' or 'sequence'; got 'layer'"):
        fixed_points(model, run, scope="layer")
    with pytest.raises(InputError, match="from 0 to 6"):
        fixed_points(model, run, prompt=1, tokens=[7])
    with pytest.raises(InputError, match="was not recorded"):
        fixed_points(model, run, iteration=99)
    with pytest.raises(InputError, match="in half precision rounding hides the derivative"):
        fixed_points(model, run, dtype=torch.bfloat16)
    with pytest.raises(InputError, match="starts"):
        fixed_points(model, run, starts=-1)
    with pytest.raises(InputError, match="method must be one of"):
        fixed_points(model, run, method="secant")
    with pytest.raises(AnalysisError, match="hold dynamics/fixed_points"):
        plots.fixed_points(run)
    with pytest.raises(InputError, match="Pass the model that was recorded"):
        fixed_points(ll.load_model("phop-huginn-mini"), run)
