"""Pushes on loops whose answer is known: what comes back, how fast, from how far, what follows."""

import shutil

import numpy as np
import pytest
import torch
from pushed_modules import D, chain

import looplens as ll
from looplens import plots
from looplens.dynamics import basin_radius, damage_cone, recovery
from looplens.dynamics.laboratory.joining import join
from looplens.dynamics.pushing.returning import outcomes
from looplens.errors import AnalysisError, InputError, SiteError
from looplens.recording import Intervention

IDS = [1, 2, 3, 4, 5]
A, B = 0.7, 0.5


@pytest.fixture(scope="module")
def linear():
    return chain(lambda h: A * h, b=B, feed=1.0)


@pytest.fixture(scope="module")
def trained():
    return ll.load_model("affine-huginn-mini")


@pytest.fixture(scope="module")
def run(trained, tmp_path_factory):
    out = tmp_path_factory.mktemp("pushing") / "run"
    prompts = ["3+4*2", "5*2+4", "1+1"]
    return ll.record(trained, prompts, out=out, iterations=24, restarts=2, progress=False)


def pushed_chain(steps, at, size):
    """Distance of every position after so many passes: A on the diagonal, B below it."""
    matrix = torch.diag(torch.full((5,), A)) + torch.diag(torch.full((4,), B), -1)
    start = torch.zeros(5)
    start[at] = size
    return torch.stack([torch.linalg.matrix_power(matrix, t) @ start for t in range(steps + 1)])


def test_a_linear_loop_pulls_back_by_its_factor(linear):
    # Two adjoining hooks, at the state and at the output of the only layer, are the same place.
    for site in ("hook_state", "core.0.hook_resid_post"):
        push = Intervention.add(site, torch.full((D,), 0.5))
        found = recovery(linear, IDS, push=push, iteration=40, iterations=50)
        np.testing.assert_allclose(found["rate"], A, rtol=1e-6)
        assert found["iteration"].values.tolist() == list(range(40, 91))
        assert (found["rate_end"] <= 90).all()
        size = 0.5 * D**0.5  # of the push, in the units of the states
        norm = float(found["distance"][1, 0])  # 1 / |s| times the size
        exact = pushed_chain(50, 1, size).numpy()
        np.testing.assert_allclose(
            found["distance"][1] / norm * size, exact[:, 1], rtol=1e-3, atol=1e-12
        )
        assert (found["others"][4] == 0).all()  # nobody sees the last one
        assert set(found["outcome"].values) == {"returning"}  # 0.7^50 is far above rounding
    soon = recovery(linear, IDS, push=push, iteration=40, iterations=120)
    assert set(soon["outcome"].values) == {"back"}
    assert (soon["kl"][:, -1] < 1e-20).all()
    assert not soon["answer_changes"].any()


def test_a_held_push_keeps_the_token_off(linear):
    push = Intervention.add("hook_state", 0.5)
    once = recovery(linear, IDS, push=push, tokens=[2], iteration=40, iterations=80)
    held = recovery(linear, IDS, push=push, tokens=[2], iteration=40, iterations=80, hold=True)
    assert once["outcome"].item() == "back"
    assert held["outcome"].item() == "away"
    assert np.isnan(held["rate"].item())
    # A push in every pass adds up to push / (1 - a).
    ratio = held["distance"][0, -1] / held["distance"][0, 0]
    assert float(ratio) == pytest.approx(1 / (1 - A), rel=1e-3)
    assert held.attrs["push"]["address"] == "hook_state@40:"
    # Negative passes count back from the recorded end (60), wherever the pushed run ends.
    push = Intervention.add("hook_state@-3:-1", 0.5)
    late = recovery(linear, IDS, push=push, tokens=[2], iterations=120)
    assert late.attrs["push"]["address"] == "hook_state@58:60"
    assert late["iteration"].values[[0, -1]].tolist() == [58, 178]
    assert np.isnan(late["rate"].item())  # two passes are pushed
    assert late["outcome"].item() == "back"


def test_states_that_were_not_kept_are_run_on_to(trained, run, tmp_path):
    some = ll.record(
        trained, ["3+4*2", "5*2+4", "1+1"], out=tmp_path / "run", iterations=24, restarts=2,
        keep_iterations=[8, 16, 24], progress=False,
    )  # fmt: skip
    push = Intervention.ablate("core.0.hook_mlp_out")
    for at in (12, None):
        thin, full = (recovery(trained, r, push=push, iteration=at) for r in (some, run))
        np.testing.assert_allclose(thin["distance"][:, :8], full["distance"][:, :8], atol=1e-5)
    assert damage_cone(trained, some, tokens=[0]).attrs["iteration"] == 16
    with pytest.raises(InputError, match="that follow a recorded state are 9 to 24"):
        recovery(trained, some, iteration=3)
    with pytest.raises(InputError, match="did not keep pass 9 but 3 others"):
        damage_cone(trained, some, tokens=[0], iteration=9)


def test_states_of_zero_have_distances():
    found = recovery(chain(lambda h: 0 * h), IDS, push=Intervention.add("hook_state", 0.0))
    assert (found["distance"] == 0).all()
    assert set(found["outcome"].values) == {"back"}


def test_a_push_may_change_the_phase_of_an_orbit():
    flips = chain(lambda h: -torch.tanh(2 * h))  # settles on +-h, turn by turn
    state = ll.trace(flips, IDS, 60).states[-1, 0]
    for factor, outcome in ((-0.5, "other_phase"), (0.5, "back")):
        push = Intervention.replace("hook_state", factor * state[2])
        found = recovery(flips, IDS, tokens=2, push=push, iterations=80)
        assert found["outcome"].item() == outcome
    wells = chain(lambda h: torch.tanh(2 * h))
    push = Intervention.replace("hook_state", -0.5 * ll.trace(wells, IDS, 60).states[-1, 0, 2])
    assert recovery(wells, IDS, tokens=2, push=push)["outcome"].item() == "away"


def test_outcomes_by_their_late_states():
    t = torch.arange(40.0)[:, None]
    circle = torch.stack([torch.cos(t), torch.sin(t)], dim=-1)  # time row d
    turned = torch.stack([torch.cos(t + 2.5), torch.sin(t + 2.5)], dim=-1)
    nearing = circle * (1 + 0.5 * torch.exp(-0.1 * t))[..., None]
    apart = circle * 1.5
    rows = torch.cat([circle, turned, nearing, apart, torch.full_like(circle, torch.nan)], dim=1)
    found = outcomes(rows, circle.expand(-1, 5, -1), 1e-6)
    assert found == ["back", "other_phase", "returning", "away", "not_finite"]


def test_an_orbit_longer_than_the_window_has_phases():
    t = torch.arange(64.0)[:, None]

    def slow(shift):
        # Around once in 40 passes, three times as fast on one side as on the other.
        angle = 2 * torch.pi * (t - shift) / 40
        angle = angle + 0.5 * torch.sin(angle)
        return torch.stack([torch.cos(angle), torch.sin(angle)], dim=-1)

    rows = torch.cat([slow(7.4), slow(21.0), 1.02 * slow(0.0), 0 * slow(0.0)], dim=1)
    late = slow(0.0).expand(-1, 4, -1)
    assert outcomes(rows, late, 1e-6, 16) == ["other_phase", "other_phase", "away", "away"]
    # The point between the two of a flip is not on the orbit, and the flip itself is.
    flip = ((-1) ** t)[..., None].expand(-1, 2, 1)
    between = torch.cat([0 * flip[:, :1], -flip[:, :1]], dim=1)
    assert outcomes(between, flip, 1e-6, 16) == ["away", "other_phase"]
    # What grows along a ray beside another one is on neither; what nears zero by turns is coming.
    ray = 1.5 ** t[..., None] * torch.tensor([1.0, 0.0])
    beside = 1.5 ** t[..., None] * torch.tensor([1.0, 0.1])
    assert outcomes(beside, ray, 1e-6, 16) == ["away"]
    by_turns = (-0.9) ** t[..., None] * torch.ones(2)
    assert outcomes(by_turns, 1e-3 * torch.ones(64, 1, 2), 1e-6, 16) != ["other_phase"]
    assert outcomes(1 + by_turns, torch.ones(64, 1, 2), 1e-6, 16) == ["returning"]
    # A slow return to a flip, from which every other state is farther off.
    off = 0.01 * 0.98**t * (1 + 0.08 * (-1) ** t)
    slowly = (-1) ** t[..., None] * torch.tensor([1.0, 0.0]) + off[..., None]
    turns = (-1) ** t[..., None] * torch.tensor([1.0, 0.0])
    assert outcomes(slowly, turns, 1e-6, 16) == ["returning"]
    noise = torch.randn(64, 200, 2, generator=torch.Generator().manual_seed(0))
    drawn = outcomes(5 + noise, torch.zeros(64, 200, 2), 1e-6, 16)
    assert drawn.count("away") >= 195  # what falls by chance is seldom a return


def test_the_basin_ends_at_the_unstable_fixed_point():
    # Wells at +-w, and between them the unstable point 0: along -h it is one norm away.
    model = chain(lambda h: torch.tanh(2 * h))
    own = ll.trace(model, IDS, 60).states[-1, 0]
    away = torch.stack([-own, own], dim=1)
    for scope in ("token", "sequence"):
        found = basin_radius(
            model, IDS, tokens=[0, 3], directions=away[[0, 3]], scope=scope, iterations=80
        )
        np.testing.assert_allclose(found["radius"][:, 0], 1.0, rtol=0.01)
        assert np.isnan(found["radius"][:, 1]).all()  # outwards it always comes back
        np.testing.assert_allclose(found["returns_up_to"][:, 1], 4.0)
        np.testing.assert_allclose(found["least_radius"], found["radius"][:, 0])
        assert set(found["ends"][:, 0].values) == {"away"}
        assert (found["context_step"] < 1e-6).all()


def test_radii_below_the_least_size_and_of_what_does_not_come_back():
    model = chain(lambda h: torch.tanh(2 * h))  # the edge is one norm away, at 0
    own = ll.trace(model, IDS, 60).states[-1, 0]
    found = basin_radius(
        model, IDS, tokens=0, directions=-own[:1], least=2.0, most=3.0, iterations=80
    )
    np.testing.assert_allclose(found["radius"], 1.0, rtol=0.01)
    still = basin_radius(chain(lambda h: h), IDS, tokens=1, directions=2)
    assert (still["radius"] == 0).all()
    assert (still["leaves_at"] <= 4e-4).all()
    nothing = basin_radius(chain(lambda h: 0 * h), IDS, tokens=1, directions=2)
    assert np.isnan(nothing["returns_up_to"]).all()  # in norms of a state of 0


def test_restarts_in_one_place_have_no_direction(trained, run):
    found = basin_radius(trained, run, tokens=[0, 4], directions="restarts")
    assert found["direction"].values.tolist() == ["restart 1"]
    assert np.isnan(found["apart"]).all()
    random = basin_radius(trained, run, tokens=[4], directions=2, most=1.0)
    assert (random["returns_up_to"] == 1.0).all()  # one basin as far as was looked
    again = basin_radius(trained, run, tokens=[4], directions=2, most=1.0)
    assert random.identical(again)


def test_damage_moves_one_position_a_pass(linear):
    found = damage_cone(linear, IDS, donor=[0, 0, 0, 0, 0], iteration=20, threshold=1e-9)
    own = found.isel(token=1)
    np.testing.assert_array_equal(own["arrival"], [np.nan, 20, 21, 22, 23])
    assert float(own["speed"]) == pytest.approx(1.0)
    assert float(own["speed_r2"]) == pytest.approx(1.0)
    assert float(own["affected_share"]) == 1.0
    assert float(own["frontier"][-1]) == 3
    notes = found["speed_note"].values
    assert "no other token sees" in notes[4]
    assert "is damaged after one pass" in notes[3]
    assert np.isnan(found["speed"][3:]).all()
    brief = damage_cone(linear, IDS, donor=[0] * 5, iteration=20, iterations=60, threshold=1e-3)
    assert (brief["healed"][0] > brief["arrival"][0]).all()
    held = damage_cone(
        linear, IDS, donor=[0] * 5, iteration=20, iterations=60, threshold=1e-3, hold=True
    )
    assert np.isnan(held["healed"][0]).all()
    same = damage_cone(linear, IDS, donor=IDS, iteration=20)
    assert "is the same" in same["speed_note"].values[0]


def test_pushes_of_a_run_and_their_figures(trained, run):
    done = []
    found = recovery(
        trained, run, prompt=1, tokens=[0, -1], iteration=16, iterations=24,
        progress=lambda *seen: done.append(seen),
    )  # fmt: skip
    assert found["token"].values.tolist() == [5, 9]
    assert found["prompt"].values.tolist() == [1, 1]
    assert done[-1] == (2, 2)
    np.testing.assert_allclose(found["distance"][:, 0], 0.1, rtol=1e-4)
    assert set(found["outcome"].values) == {"back"}
    cone = damage_cone(trained, run, tokens=[0, 2], iteration=4)
    assert cone.attrs["donor"]["prompt"] == 1
    radii = basin_radius(trained, run, tokens=[0], directions=3, most=1.0)
    for theme in ("light", "dark"):
        made = plots.basin_radius_figure(radii, theme=theme)
        assert "every size comes back" in made.layout.title.subtitle.text
        assert [len(trace.y) for trace in made.data] == [3, 3]
        made = plots.recovery_figure(found, 9, theme=theme)
        assert "back" in made.layout.title.subtitle.text
        drawn = plots.damage_cone_figure(cone, theme=theme)
        assert drawn.data[0].z.shape == (5, 33)


def test_results_of_several_prompts_lie_in_one_run(trained, run, tmp_path):
    opened = ll.open_run(shutil.copytree(run.path, tmp_path / "run"))
    for name, function in (("recovery", recovery), ("damage_cone", damage_cone)):
        parts = [
            function(trained, opened, prompt=p, tokens=[0, 2], iteration=4, iterations=12)
            for p in (0, 2)
        ]
        opened.write_analysis(f"dynamics/{name}", join(parts), version="1")
    assert "back" in plots.recovery(opened, 10).layout.title.subtitle.text
    cone = plots.damage_cone(opened, 10)
    assert cone.data[0].z.shape == (3, 13)  # the prompt of three tokens alone
    assert plots.damage_cone(opened, 2).data[0].z.shape == (5, 13)
    with pytest.raises(AnalysisError, match="does not hold token 1"):
        plots.recovery(opened, 1)


def test_figures_of_radii_say_what_was_found():
    model = chain(lambda h: torch.tanh(2 * h))
    own = ll.trace(model, IDS, 60).states[-1, 0]
    found = basin_radius(model, IDS, tokens=[0], directions=torch.stack([-own[0], own[0]]))
    made = plots.basin_radius_figure(found)
    assert "least radius <b>1" in made.layout.title.subtitle.text
    edge, all_back = made.data[1], made.data[2]
    assert list(edge.y) == ["given 0"]
    assert edge.text[0] == "away"
    assert list(all_back.y) == ["given 1"]
    assert all_back.x[0] == 4.0


def test_what_cannot_be_pushed(trained, run, linear):
    with pytest.raises(InputError, match="leave them out, and say with tokens="):
        recovery(trained, run, push=Intervention.add("hook_state", 1.0, tokens=2))
    with pytest.raises(InputError, match="names passes already"):
        recovery(trained, run, push=Intervention.add("hook_state@4", 1.0), iteration=5)
    with pytest.raises(InputError, match="cannot be pushed: the passes that follow"):
        recovery(trained, run, iteration=99)
    with pytest.raises(InputError, match="must be an Intervention"):
        recovery(trained, run, push=0.5)
    with pytest.raises(SiteError, match="matches no hook point"):
        recovery(trained, run, push=Intervention.add("core.9.hook_nothing", 1.0))
    with pytest.raises(InputError, match="has 3 tokens and none at position 4"):
        damage_cone(trained, run, prompt=1, donor=2)
    assert damage_cone(trained, run, prompt=1, tokens=[4]).attrs["donor"]["prompt"] == 0
    with pytest.raises(InputError, match="means none of the recorded passes 1 to 24"):
        recovery(trained, run, push=Intervention.add("hook_state@-99", 1.0))
    with pytest.raises(InputError, match="seed must be a whole number"):
        Intervention.noise("hook_state", seed=0.5)
    with pytest.raises(InputError, match="no other sample"):
        damage_cone(linear, IDS)
    with pytest.raises(AnalysisError, match="needs a run of at least two"):
        basin_radius(linear, IDS, directions="restarts")
    with pytest.raises(InputError, match="directions must have the shape"):
        basin_radius(linear, IDS, directions=torch.ones(2, D + 1))
    with pytest.raises(InputError, match="0 < least < most"):
        basin_radius(linear, IDS, least=2.0, most=1.0)
    with pytest.raises(InputError, match="scope must be"):
        basin_radius(linear, IDS, scope="prompt")
