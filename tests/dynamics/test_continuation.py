"""Continuation against maps whose bifurcations are known, and the knob on bundled models."""

import numpy as np
import pytest
import torch
from torch import nn

import looplens as ll
from looplens import Loop, LoopSpec, plots
from looplens.dynamics import Gain, continuation, follow, recorded
from looplens.dynamics.branches import of_prompt
from looplens.dynamics.branches.families import OfSequence, WithGain
from looplens.dynamics.branches.gains import Knob
from looplens.dynamics.branches.tracing import Settings, eigenvalues_of
from looplens.dynamics.eigen.resting import resting
from looplens.errors import AnalysisError, InputError, SiteError
from looplens.models.wrapping import wrap

PROMPT = [5, 10, 9, 8, 8, 9, 11, 9, 11]  # its token 6 alternates in phop-huginn-mini


def start(*values, dtype=torch.float64):
    return torch.tensor(values, dtype=dtype)


def logistic(x, r):
    return r * x * (1 - x)


def delayed_logistic(s, r):
    return torch.stack([r * s[0] * (1 - s[1]), s[0]])


def kinds(branch):
    return [(b.kind, round(b.gain, 3)) for b in branch.bifurcations]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_logistic_map_crosses_at_one_and_doubles_at_three(dtype):
    branch = follow(logistic, start(0.6, dtype=dtype), 2.5, gains=(0.5, 3.9))
    assert kinds(branch) == [("branch_point", 1.0), ("flip", 3.0)]
    crossing, flip = branch.bifurcations
    assert abs(crossing.gain - 1) < 1e-3
    assert np.isnan(crossing.period)
    assert abs(flip.gain - 3) < 1e-4
    assert flip.period == 2
    assert abs(flip.eigenvalue + 1) < 1e-4
    np.testing.assert_allclose(branch.state[:, 0], 1 - 1 / branch.gain, atol=2e-5)
    np.testing.assert_allclose(branch.eigenvalues[:, 0].real, 2 - branch.gain, atol=1e-4)
    assert branch.gain[branch.start] == 2.5
    assert branch.ended == ("end of the range", "end of the range")
    np.testing.assert_array_equal(branch.stable, np.abs(2 - branch.gain) < 1)


def test_the_branch_goes_round_a_fold():
    branch = follow(lambda x, c: x * x + c, start(0.1), 0.0, gains=(-1, 1))
    assert kinds(branch) == [("flip", -0.75), ("fold", 0.25)]
    fold = branch.bifurcations[1]
    assert abs(fold.gain - 0.25) < 1e-6
    assert abs(fold.state[0] - 0.5) < 1e-4
    assert abs(fold.eigenvalue - 1) < 1e-3
    upper = branch.state[:, 0] > 0.5  # the unstable half, which iteration runs away from
    root = np.sqrt(1 - 4 * branch.gain.clip(max=0.25))
    np.testing.assert_allclose(
        branch.state[:, 0], (1 + np.where(upper, root, -root)) / 2, atol=1e-6
    )
    assert upper.sum() > 5
    assert not branch.stable[upper].any()
    short = follow(lambda x, c: x * x + c, start(0.1), 0.0, gains=(-1, 1), max_folds=0)
    assert short.ended == ("end of the range", "max_folds=0")


def test_what_lies_at_the_start_or_at_an_edge_is_found():
    at_start = follow(logistic, start(2 / 3), 3.0, gains=(2.5, 3.5))
    assert kinds(at_start) == [("flip", 3.0)]
    assert abs(at_start.bifurcations[0].eigenvalue + 1) < 1e-6
    edge = follow(lambda x, g: -g * x, start(0.0), 0.5, gains=(0, 1))
    assert kinds(edge) == [("flip", 1.0)]


def test_what_stays_on_the_circle_crosses_nothing():
    def turned(x, g):  # by an angle that the gain tells
        cos, sin = torch.cos(0.5 + 0.3 * g), torch.sin(0.5 + 0.3 * g)
        return torch.stack([cos * x[0] - sin * x[1] + 1, sin * x[0] + cos * x[1]])

    branch = follow(turned, start(0, 0))
    assert branch.ended == ("end of the range", "end of the range")
    np.testing.assert_allclose(branch.spectral_radius, 1, atol=1e-12)
    assert not branch.bifurcations


@pytest.mark.parametrize("middle", [2.5, 2002.5])
def test_a_range_that_rounding_is_seen_in_ends_at_its_edges(middle):
    low, high = middle - 2e-5 * middle, middle + 2e-5 * middle
    first = start(0.6, dtype=torch.float32)
    branch = follow(lambda x, g: logistic(x, g - middle + 2.5), first, middle, gains=(low, high))
    assert branch.ended == ("end of the range", "end of the range")
    np.testing.assert_allclose(branch.gain[[0, -1]], [low, high], rtol=1e-6)
    assert len(branch.gain) < 50


def test_a_turn_is_born_with_its_period():
    branch = follow(delayed_logistic, start(0.4, 0.4), 1.7, gains=(1.2, 2.5))
    (turn,) = branch.bifurcations
    assert turn.kind == "neimark_sacker"
    assert abs(turn.gain - 2) < 1e-4
    assert abs(turn.period - 6) < 1e-3
    assert abs(turn.eigenvalue.real - 0.5) < 1e-4


def test_henon_and_a_closed_branch():
    def henon(s, a):
        return torch.stack([1 - a * s[0] ** 2 + s[1], 0.3 * s[0]])

    branch = follow(henon, start(0.6, 0.2), 0.3, gains=(-0.5, 1), max_points=60)
    assert [b.kind for b in branch.bifurcations] == ["fold", "flip"]
    fold, flip = (b.gain for b in branch.bifurcations)
    assert abs(fold + 0.7**2 / 4) < 1e-4
    assert abs(flip - 3 * 0.7**2 / 4) < 1e-4
    circle = follow(lambda x, g: x + 0.3 * (1 - x * x - g * g), start(0.9), 0.3, gains=(-2, 2))
    assert circle.ended[0].startswith("closed")
    assert sorted(kinds(circle)) == [("fold", -1.0), ("fold", 1.0)]
    np.testing.assert_allclose(circle.state[:, 0] ** 2 + circle.gain**2, 1, atol=1e-9)


def test_a_map_too_large_for_its_whole_jacobian():
    generator = torch.Generator().manual_seed(0)
    turned = torch.linalg.qr(torch.randn(150, 150, generator=generator, dtype=torch.float64))[0]
    values = torch.linspace(-0.2, 0.2, 150, dtype=torch.float64)
    values[0] = -0.5
    matrix, b = turned @ torch.diag(values) @ turned.T, turned.sum(1)
    branch = follow(lambda s, g: g * (matrix @ s) + b, torch.ones_like(b), gains=(0, 3), k=2)
    (flip,) = branch.bifurcations
    assert flip.kind == "flip"
    assert abs(flip.gain - 2) < 1e-4
    np.testing.assert_allclose(branch.eigenvalues[:, 0], -0.5 * branch.gain, atol=1e-4)


def test_bad_starts_and_ranges():
    with pytest.raises(AnalysisError, match="no fixed point was found at gain0=0: the best resid"):
        follow(lambda x, g: x * x + 1 + g, start(0.1), 0.0, gains=(-0.5, 1))
    with pytest.raises(AnalysisError, match="gain0=1 is degenerate, with an eigenvalue at 1"):
        follow(lambda x, g: x * 1, start(0.1))
    with pytest.raises(InputError, match="must be a range, low first, that the gain at the start"):
        follow(logistic, start(0.6), 5.0, gains=(1, 3))
    with pytest.raises(InputError, match=r"gains must be a pair \(low, high\)"):
        follow(logistic, start(0.6), 2.0, gains=(1, 2, 3))
    with pytest.raises(InputError, match=r"must return a tensor like the state, \(1,\)"):
        follow(lambda x, g: torch.cat([x, x]), start(0.6), 2.0)
    with pytest.raises(InputError, match="holds 1 of 1 numbers that are not finite"):
        follow(logistic, start(float("nan")), 2.0)


@pytest.fixture(scope="module")
def model():
    return ll.load_model("phop-huginn-mini")


@pytest.fixture(scope="module")
def taken(model):
    return recorded(model, PROMPT, iterations=64)


@pytest.mark.parametrize(
    "gain",
    [
        Gain(),
        Gain(part="injection"),
        Gain(part="core.*"),
        Gain(part="core.0.hook_mlp_out", tokens=[2, -1]),
        Gain(part="core.0.attn.hook_z", heads=2),
    ],
    ids=lambda gain: gain.part,
)
def test_a_knob_at_one_changes_nothing_and_has_derivatives(taken, gain):
    knob = Knob(taken.step, gain)
    states = taken.at()[None]
    one = torch.ones(1)
    torch.testing.assert_close(knob(states, one), taken.step(states))
    assert not torch.allclose(knob(states, 1.3 * one), taken.step(states), atol=1e-4)
    assert torch.allclose(knob(states, 1.3 * one)[:, 0], taken.step(states)[:, 0]) == bool(
        gain.tokens
    )
    rows = knob(states.expand(2, -1, -1), torch.tensor([1.3, 0.7]))
    torch.testing.assert_close(rows[1:], knob(states, 0.7 * one), rtol=1e-4, atol=1e-5)
    # The derivative in the gain, through the extended map, against a difference quotient.
    map_ = WithGain(OfSequence(knob, causal=True), torch.ones(1))
    z, v = map_.join(states, one), torch.zeros(1, map_.size)
    v[:, -1] = 1
    h = 1e-2
    slope = (map_(z + h * v) - map_(z - h * v))[:, :-1] / (2 * h)
    difference = map_.jvp(z, v)[:, :-1] - slope
    assert difference.norm() < 0.02 * slope.norm()


@pytest.mark.parametrize("part", ["state", "injection", "core.0.hook_mlp_out"])
def test_blocks_of_tokens_have_the_eigenvalues_of_the_whole(taken, part):
    knob = Knob(taken.step, Gain(part=part)).before(3)
    settings = Settings(low=0, high=2, k=64, max_step=1, max_points=9, max_folds=None, krylov=200)
    gains = torch.tensor([0.8])
    state = taken.at()[None, :3]
    for _ in range(200):
        state = knob(state, gains)
    family = OfSequence(knob, causal=True)
    map_ = WithGain(family, torch.ones(1))
    blocks = eigenvalues_of(map_, map_.join(state, gains), settings)[0]
    alone = eigenvalues_of(map_, map_.join(state, gains), settings, torch.tensor([2]))[0, 0]
    np.testing.assert_allclose(np.abs(alone[:3]), np.abs(blocks[2, :3]), rtol=2e-3, atol=1e-4)
    whole = torch.autograd.functional.jacobian(
        lambda x: knob(x.reshape(state.shape), gains).ravel(), state.ravel()
    )
    wanted = torch.linalg.eigvals(whole.double()).abs().sort(descending=True).values.numpy()
    found = np.sort(np.abs(blocks).ravel())[::-1]
    np.testing.assert_allclose(found[:6], wanted[:6], rtol=5e-3, atol=1e-4)


@pytest.fixture(scope="module")
def natural(model):
    return continuation(
        model, PROMPT, iterations=64, gains=(0.5, 1.0), runs=6, k=2, run_iterations=200
    )


def test_the_natural_orbit_is_born_by_a_flip(natural):
    assert (natural["status"] == "followed").all()
    one = natural.sel(token=6)
    # At the model's own gain it is unstable, and the loop alternates about it.
    own = one.isel(point=int(one["start"]))
    assert float(own["gain"]) == 1
    assert float(own["eigenvalue_real"][0]) < -1.3
    assert one["run_regime"].values.tolist() == ["fixed_point"] * 2 + ["orbit"] * 4
    np.testing.assert_allclose(one["run_period"][2:], 2, atol=1e-6)
    assert str(one["onset_below_kind"].item()) == "flip"
    assert 0.6 < float(one["onset_below"]) < 0.7
    assert int(one["bifurcation_token"][0]) == 6
    stable = one["outside"].values[np.isfinite(one["gain"])] == 0
    gain = one["gain"].values[np.isfinite(one["gain"])]
    np.testing.assert_array_equal(stable, gain < float(one["onset_below"]))
    # What moves one token later is moved by it, and is no bifurcation of its own.
    later = natural.sel(token=7)
    assert later["run_regime"].values.tolist() == one["run_regime"].values.tolist()
    assert np.isnan(later["onset_below"])
    assert natural.sel(token=2)["run_regime"].values.tolist() == ["fixed_point"] * 6
    assert float(natural["residual"].max()) < 1e-5
    for variable in natural.data_vars.values():
        assert variable.dims[0] == "token"
        assert variable.attrs["long_name"]
        assert variable.attrs["units"]


def test_a_token_does_not_depend_on_which_others_are_asked_for(model, natural):
    options = {"gains": (0.5, 1.0), "runs": 0, "k": 2, "max_step": 0.1}
    found = continuation(model, PROMPT, iterations=64, tokens=[6], **options)
    np.testing.assert_allclose(
        found["onset_below"], natural.sel(token=[6])["onset_below"], rtol=1e-3
    )
    assert "run_gain" not in found


def test_a_fold_of_a_later_token_does_not_turn_the_branch(model):
    options = {"iterations": 64, "gains": (0.95, 1.15), "runs": 0, "k": 2, "max_step": 0.05}
    both = continuation(model, PROMPT, tokens=[1, 4], **options)
    later = both.sel(token=4)
    folds = later["bifurcation_kind"].values == "fold"
    assert later["bifurcation_token"].values[folds].tolist() == [3, 3]
    early = both.sel(token=1).dropna("point", subset=["gain"])
    assert not (early["bifurcation_kind"].values == "fold").any()
    assert (np.diff(early["gain"]) > 0).all()
    np.testing.assert_allclose(early["gain"][[0, -1]], [0.95, 1.15], rtol=1e-5)
    alone = continuation(model, PROMPT, tokens=1, **options).isel(token=0)
    edges = early.isel(point=[0, -1])
    alone = alone.isel(point=[0, -1])
    np.testing.assert_allclose(edges["spectral_radius"], alone["spectral_radius"], rtol=1e-3)


def test_a_knob_on_later_tokens_leaves_the_branch_of_those_before_as_it_is(model):
    late = Gain(tokens=[3, 4])
    options = {"iterations": 64, "runs": 0, "k": 2, "gains": (1, 1.15), "max_step": 0.05}
    found = continuation(model, PROMPT[:5], tokens=[1, 4], gain=late, **options)
    assert "fold" in found.sel(token=4)["bifurcation_kind"]
    early = found.sel(token=1).dropna("point", subset=["gain"])
    assert float(early["gain"].max()) == pytest.approx(1.15)
    np.testing.assert_allclose(early["place"], float(early["place"][0]), atol=1e-4)
    with pytest.raises(InputError, match="none of them is among the first 2 tokens"):
        continuation(model, PROMPT, tokens=1, gain=late, **options)


def test_one_token_with_the_others_held(model):
    found = continuation(
        model,
        PROMPT,
        iterations=64,
        tokens=[6, 7],
        gains=(0.5, 1.0),
        scope="token",
        runs=2,
        run_iterations=200,
        k=2,
    )
    assert found["onset_below_kind"].values.tolist() == ["flip", ""]
    assert found.sel(token=6)["run_regime"].values.tolist() == ["fixed_point", "orbit"]
    assert found.sel(token=7)["run_regime"].values.tolist() == ["fixed_point"] * 2


def test_the_slow_orbit_of_ouro_is_born_by_a_turn():
    found = continuation(
        ll.load_model("phop-ouro-mini"), [1], gains=(0.9, 1.1), runs=3, run_iterations=400, k=2
    ).isel(token=0)
    assert found["bifurcation_kind"].values.tolist() == ["neimark_sacker"]
    assert abs(float(found["onset_above"]) - 1.0177) < 2e-3
    assert 50 < float(found["bifurcation_period"][0]) < 60
    assert found["run_regime"].values[[0, 2]].tolist() == ["orbit", "fixed_point"]


def test_a_token_without_a_fixed_point_ends_what_can_be_followed(model, monkeypatch):
    def until_two(*args, **kwargs):
        rest = resting(*args, **kwargs)
        rest.verified[2], rest.context[3:] = False, False
        return rest

    monkeypatch.setattr(of_prompt, "resting", until_two)
    found = continuation(
        model, PROMPT[:4], gains=(0.9, 1.1), runs=2, run_iterations=64, late=32, k=2
    )
    wanted = ["followed", "followed", "no fixed point", "no context"]
    assert found["status"].values.tolist() == wanted
    assert np.isnan(found["gain"][2:]).all()
    assert found["start"].values[2:].tolist() == [-1, -1]
    assert np.isfinite(found["run_place"]).all()
    with pytest.raises(InputError, match="none of them is among the first 2 tokens"):
        continuation(model, PROMPT[:4], gain=Gain(tokens=3), gains=(0.9, 1.1), runs=0)


class Mean(nn.Module):
    """A causal loop that is not ours: each token looks at the mean up to it."""

    bounded = staticmethod(torch.tanh)

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.layer, self.out = nn.Embedding(9, 6), nn.Linear(6, 6), nn.Identity()
        self.steps = 40

    def forward(self, ids):
        h = self.embed(ids)
        for _ in range(self.steps):
            mean = h.cumsum(1) / torch.arange(1, h.shape[1] + 1)[:, None]
            h = self.out(self.bounded(1.2 * self.layer(mean)))
        return h


SPEC = LoopSpec(
    loop=Loop("step", 40), layers=["layer"], state="out", start="embed", iterations="steps"
)


def test_nothing_is_drawn_of_runs_that_leave_and_tokens_without_a_fixed_point(monkeypatch):
    monkeypatch.setattr(Mean, "bounded", staticmethod(lambda x: 3 * x))
    wrapped = wrap(Mean(), SPEC, d_vocab=9, d_model=6)
    found = continuation(wrapped, [1, 2], iterations=9, gains=(0.9, 30), runs=2, k=2)
    assert found["status"].values.tolist() == ["no fixed point", "no context"]
    assert found["run_regime"].values.tolist() == [["unresolved"] * 2] * 2
    assert np.isnan(found["run_place"]).all()


def test_a_wrapped_model_has_the_state_as_a_knob():
    wrapped = wrap(Mean(), SPEC, d_vocab=9, d_model=6)
    found = continuation(wrapped, [1, 2, 3], gains=(0.2, 4), runs=3, run_iterations=64, late=32)
    assert (found["status"] == "followed").all()
    assert np.isfinite(found["first_above"]).all()
    # A token sees itself with the weight 1 / (its position + 1), so the first is lost first.
    assert (found["first_above_token"] == 0).all()
    with pytest.raises(InputError, match="what its loop is fed with is not known"):
        continuation(wrapped, [1, 2, 3], gain="injection")


def test_knobs_that_do_not_exist_are_refused(model):
    with pytest.raises(SiteError, match="there is no layer 4: the core has 1"):
        continuation(model, PROMPT, gain="core.4")
    with pytest.raises(SiteError, match="names iterations, and a fixed point is one of"):
        continuation(model, PROMPT, gain="core.0.hook_mlp_out@3")
    with pytest.raises(SiteError, match="matches no hook point"):
        continuation(model, PROMPT, gain="core.0.hook_nothing")
    with pytest.raises(SiteError, match="does not fire within an iteration"):
        continuation(model, PROMPT, gain="hook_embed")
    with pytest.raises(InputError, match="heads belong to a site that has them"):
        Gain(part="state", heads=1)
    with pytest.raises(InputError, match="has no heads: leave heads= out"):
        continuation(model, PROMPT, gain=Gain(part="core.0.hook_mlp_out", heads=1))
    with pytest.raises(InputError, match="there is no head 9"):
        continuation(model, PROMPT, gain=Gain(part="core.0.attn.hook_z", heads=9))
    with pytest.raises(InputError, match="there is no token 30"):
        continuation(model, PROMPT, gain=Gain(tokens=30))
    with pytest.raises(InputError, match="injects nothing into its loop"):
        continuation(ll.load_model("phop-ouro-mini"), [3, 2, 1], gain="injection")
    with pytest.raises(InputError, match="gain must be a Gain or the name of a part"):
        continuation(model, PROMPT, gain=2.0)
    with pytest.raises(InputError, match="scope must be 'token' or 'sequence'"):
        continuation(model, PROMPT, scope="all")
    with pytest.raises(InputError, match="the gain at the start, 1, lies in"):
        continuation(model, PROMPT, gains=(2, 3))


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_figure_draws_what_is_known(natural, theme):
    made = plots.continuation_figure(natural, 6, theme=theme)
    names = {trace.name for trace in made.data}
    assert {"fixed point, stable", "fixed point, unstable", "run: orbit"} <= names
    assert "flip: period doubles" in names
    assert "becomes stable at a flip at gain 0.6" in made.layout.title.subtitle.text
    settled = plots.continuation_figure(natural, 2, theme=theme)
    assert "fixed point, unstable" not in {trace.name for trace in settled.data}
    nothing = natural.sel(token=[2]).copy()
    nothing["status"] = ("token", ["no fixed point"])
    nothing["gain"] = nothing["gain"] * np.nan
    assert "no branch: no fixed point" in (
        plots.continuation_figure(nothing, theme=theme).layout.title.subtitle.text
    )
