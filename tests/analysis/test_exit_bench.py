"""The exit bench: closed forms, agreement with the rules that run on a live model, the run."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import looplens as ll
from looplens import analysis, plots
from looplens.analysis import EXIT_RULES, exit_iteration
from looplens.analysis.analyzers.exits import safe_policies
from looplens.errors import AnalysisError, InputError
from looplens.models import LoopedConfig, LoopedTransformer
from looplens.reports._build import build
from looplens.testing import synthetic_run
from looplens.thinking import ActHalting, GateThreshold, exit_rule


def test_signals_of_a_geometric_approach():
    # s_t = u (1 - r^t): steps shrink by r, and so do accelerations.
    r, t = 0.5, np.arange(6)
    states = (1 + r**t)[:, None] * np.array([3.0, 4.0])
    found = analysis.state_signals(states)
    step = r ** t[:-1] * (1 - r) / (1 + r ** t[1:])
    np.testing.assert_allclose(found["latent-diff"], step)
    np.testing.assert_allclose(found["cosine"], 0, atol=1e-15)  # along a ray
    bent = r ** t[:-2] * (1 - r) ** 2 / (1 + r ** t[2:])
    np.testing.assert_allclose(found["acceleration"][2:], np.maximum(bent[1:], bent[:-1]))
    assert np.isnan(found["acceleration"][:2]).all()
    turn = np.stack([np.cos(0.1 * t), np.sin(0.1 * t)], -1)
    np.testing.assert_allclose(analysis.state_signals(turn)["cosine"], 1 - np.cos(0.1))


@pytest.mark.parametrize("scale", [1e-30, 1e30])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_signals_know_no_scale(scale, dtype):
    rng = np.random.default_rng(0)
    states = 5 + rng.standard_normal((3, 6, 8)).astype(dtype)
    plain, scaled = analysis.state_signals(states), analysis.state_signals(states * dtype(scale))
    for name, values in plain.items():
        np.testing.assert_allclose(scaled[name], values, rtol=1e-5)


def test_signals_of_states_that_cease_to_be_finite():
    rng = np.random.default_rng(0)
    states = rng.standard_normal((4, 6, 8))
    whole = analysis.state_signals(states)
    states[1, 3:], states[2, 5, 0], states[3] = np.nan, np.inf, np.nan
    found = analysis.state_signals(states)
    for name, values in found.items():
        np.testing.assert_allclose(values[0], whole[name][0])
        np.testing.assert_allclose(values[1, :2], whole[name][1, :2])
        assert np.isnan(values[1, 2:]).all()
        np.testing.assert_allclose(values[2, :4], whole[name][2, :4])
        assert np.isnan(values[2, 4])
        assert np.isnan(values[3]).all()
    zeros = analysis.state_signals(np.zeros((3, 2)))
    assert all(np.isnan(values).all() for values in zeros.values())


def test_when_each_rule_leaves():
    falling = [0.5, 0.05, 0.2, 0.005]
    assert exit_iteration("kl", falling, 0.1) == 2
    assert exit_iteration("kl", falling, 1e-3) == 4  # never: the last
    assert exit_iteration("kl", [np.nan, np.nan], 0.1) == 2  # NaN never leaves
    assert exit_iteration("depth", falling, 3) == 3
    assert exit_iteration("depth", falling, 9) == 4
    best = analysis.readout_signals(falling, falling, [1, 2, 2, 2])["argmax-stability"]
    assert exit_iteration("argmax-stability", best, 2) == 4
    half = analysis.gate_signals(np.zeros(4))  # lambda = 1/2 each time
    assert exit_iteration("gate", half["gate"], 0.75) == 2
    assert exit_iteration("gate", half["gate"], 1) == 4
    assert exit_iteration("act", half["act"], 0.01) == 2


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(1e-6, 10), min_size=1, max_size=12), st.floats(1e-6, 5), st.floats(1, 9))
def test_a_looser_threshold_never_leaves_later(values, threshold, factor):
    early = exit_iteration("latent-diff", values, threshold * factor)
    assert 1 <= early <= exit_iteration("latent-diff", values, threshold) <= len(values)


def test_front_keeps_what_nothing_beats():
    cost, value = [1, 2, 2, 3, 4, np.nan], [0.2, 0.5, 0.4, 0.5, 0.9, 1.0]
    assert analysis.pareto_front(cost, value).tolist() == [True, True, False, False, True, False]


def test_impossible_thresholds_are_refused():
    with pytest.raises(InputError, match=r"Unknown exit rule 'kll'.*kl"):
        exit_iteration("kll", [0.1], 0.1)
    with pytest.raises(InputError, match="probability between 0 and 1"):
        exit_iteration("gate", [0.1], 2)
    with pytest.raises(InputError, match=r"'kl' must be a finite number; got 'x'"):
        exit_iteration("kl", [0.1], "x")
    with pytest.raises(InputError, match=r"'depth' must be a whole number; got 2\.5"):
        exit_iteration("depth", [0.1], 2.5)
    with pytest.raises(InputError, match="none of those named empty"):
        exit_iteration("kl", [], 0.1)
    with pytest.raises(InputError, match="one shape"):
        analysis.readout_signals([0.1], [0.1, 0.2], [1, 2])
    with pytest.raises(InputError, match="at least 2 iterations"):
        analysis.state_signals(np.ones((1, 3)))


# ---------------------------------------------------------------- against the live rules


@pytest.fixture(scope="module")
def gated(tmp_path_factory):
    """A model with an exit gate, and a run of it with two restarts."""
    torch.manual_seed(0)
    cfg = LoopedConfig(
        d_model=32, n_heads=4, d_mlp=48, d_vocab=16, n_ctx=32, n_core=2, exit_gate=True
    )
    model = LoopedTransformer(cfg, name="gated")
    with torch.no_grad():
        model.exit_gate.bias -= 2
    prompts = [[1, 2, 3, 4, 5, 6], [7, 8, 9, 10, 11, 12, 13], [3, 1]]
    out = tmp_path_factory.mktemp("exits") / "run"
    run = ll.record(model, prompts, out=out, iterations=20, restarts=2, progress=False)
    return model, prompts, run


def test_the_gate_is_recorded(gated):
    model, prompts, run = gated
    assert run.has_exit_gate
    for prompt, ids in enumerate(prompts):
        stored = run.readout["exit_gate"].isel(token=run.token_range(prompt)).values
        for restart, seed in enumerate(run.restart_seeds):
            live = ll.trace(model, ids, 20, initial_state=seed).gate_logits
            np.testing.assert_allclose(stored[restart].T, live[:, 0], atol=1e-5)
    assert not np.isnan(run.readout["exit_gate"].values).any()
    assert ll.verify(run.path).ok


LIVE = ["latent-diff", "cosine", "acceleration", "kl", "entropy-diff", "argmax-stability", "gate"]


@pytest.fixture(scope="module")
def settling(tmp_path_factory):
    """A trained model that settles, and a run of it."""
    model, prompts = ll.load_model("affine-huginn-mini"), ["3+4*2", "5*5+1*3"]
    out = tmp_path_factory.mktemp("exits") / "run"
    run = ll.record(model, prompts, out=out, iterations=24, restarts=2, progress=False)
    return model, prompts, run


@pytest.mark.parametrize("rule", LIVE)
def test_the_bench_leaves_where_the_live_rule_leaves(gated, settling, rule):
    model, prompts, run = gated if rule == "gate" else settling
    stored = analysis.get(run, "exits")
    places = np.flatnonzero(stored["rule"].values == rule)
    assert len(places) >= 9
    same = []
    for prompt, ids in enumerate(prompts):
        trace = ll.trace(model, ids, run.iterations, initial_state=run.restart_seeds[1])
        for place in places:
            threshold = float(stored["threshold"].values[place])
            bench = stored["exit_iteration"].values[1, run.token_range(prompt), place]
            # A recording computes many tokens at once: its last bits may cross a threshold.
            slack = 0 if rule in ("argmax-stability", "gate") else 0.02 * threshold + 1e-6
            near = [
                exit_rule(f"{rule}:{at:.9g}").exit_step(trace)[0].numpy()
                for at in (threshold, threshold + slack, max(threshold - slack, 1e-9))[
                    : 1 + 2 * bool(slack)
                ]
            ]
            if rule == "kl":  # the live rule compares iteration 1 with a uniform distribution
                best = trace.logits[0, 0].softmax(-1).amax(-1).numpy()
                first = np.min(near, 0) == 1
                assert (best[first] <= 1 / model.cfg.d_vocab + (threshold / 2) ** 0.5).all()
                near, bench = [live[~first] for live in near], bench[~first]
            within = (np.min(near, 0) <= bench) & (bench <= np.max(near, 0))
            assert within.all(), f"{rule}:{threshold:g} left at {bench}, live at {near[0]}"
            same.append(bench == near[0])
    assert np.concatenate(same).mean() > 0.9
    spread = stored["iterations"].values[places]
    assert spread.max() > spread.min()


def test_halting_and_gate_follow_the_live_arithmetic(gated):
    gates = np.linspace(-3, 2, 12)
    found = analysis.gate_signals(gates)
    logits = torch.tensor(gates)[:, None, None]

    class Router(torch.nn.Module):
        def forward(self, state):
            return torch.sigmoid(state[..., 0])

    states = torch.cat([logits[:1], logits])[..., None]
    halting = ActHalting(router=Router(), epsilon=0.2, limit=99)
    live = halting.exit_step(SimpleNamespace(states=states))
    assert exit_iteration("act", found["act"], 0.2) == int(live)
    live = GateThreshold(q=0.9).exit_step(SimpleNamespace(states=states, gate_logits=logits))
    assert exit_iteration("gate", found["gate"], 0.9) == int(live)


# ---------------------------------------------------------------- over a run


def test_a_policy_is_worth_what_it_leaves_with(tmp_path):
    run = ll.open_run(synthetic_run(tmp_path / "run", exit_gate=True, iterations=40))
    found = analysis.analyze(run, "exits")["exits"]
    readout = analysis.get(run, "readout")
    depths = found.isel(policy=np.flatnonzero(found["rule"].values == "depth"))
    np.testing.assert_allclose(depths["accuracy"], readout["accuracy"])
    np.testing.assert_allclose(-depths["nll"], readout["target_logprob"], rtol=1e-5)
    assert depths["agreement"].values[-1] == 1
    # By hand, for one policy: look up every trajectory's readout where it leaves.
    place = int(np.flatnonzero((found["rule"] == "kl") & (found["threshold"] == 1e-3))[0])
    steps = found["exit_iteration"].values[:, :, place]
    ranks = run.readout["target_rank"].values
    chosen = np.take_along_axis(ranks, steps[..., None].astype(int) - 1, -1)[..., 0]
    targets = run.tokens["target"].values >= 0
    assert found["accuracy"].values[place] == pytest.approx((chosen[:, targets] == 0).mean())
    assert found["iterations"].values[place] == pytest.approx(steps[:, targets].mean())
    # The formula run has no configuration to count with: the cost is iterations.
    assert "gflops" not in found
    assert found["on_front"].attrs["cost"] == "iterations"
    summary = run.summary()["exits"]
    assert set(summary["iterations_by_rule"]) == set(EXIT_RULES)
    assert summary["best_rule"].split(":")[0] in EXIT_RULES


def test_rules_pay_for_what_they_look_at(gated):
    model, _, run = gated
    found = analysis.get(run, "exits")
    assert found.attrs["judged"] == "all tokens"
    count = analysis.flops(model.cfg.to_dict(), run.tokens["position"].values + 1)
    for name, looks in (("latent-diff", 1), ("kl", None), ("gate", 1)):
        place = int(np.flatnonzero(found["rule"].values == name)[0])
        steps = found["exit_iteration"].values[..., place].astype(float)
        gates = steps if name == "gate" else 0
        total = count.total(steps, readouts=looks or steps, gates=gates).mean() / 1e9
        assert found["gflops"].values[place] == pytest.approx(total)
    assert set(safe_policies(found)) >= {"depth"}


def test_thresholds_can_be_chosen(gated):
    *_, run = gated
    found = analysis.ANALYZERS["exits"].compute(run, exit_thresholds={"kl": [0.5]})
    assert found["threshold"].values[found["rule"].values == "kl"].tolist() == [0.5]
    with pytest.raises(InputError, match="Unknown exit rule"):
        analysis.ANALYZERS["exits"].compute(run, exit_thresholds={"gat": [0.5]})
    with pytest.raises(InputError, match=r"got 0\.5 for 'kl'"):
        analysis.ANALYZERS["exits"].compute(run, exit_thresholds={"kl": 0.5})
    with pytest.raises(InputError, match=r"must be a mapping .* got \['kl'\]"):
        analysis.ANALYZERS["exits"].compute(run, exit_thresholds=["kl"])


def test_what_a_run_lacks_is_said(tmp_path):
    run = ll.open_run(synthetic_run(tmp_path / "run", iterations=8))
    found = analysis.get(run, "exits")
    assert "gate" not in found["rule"].values
    with pytest.raises(InputError, match="needs an exit gate"):
        analysis.ANALYZERS["exits"].compute(run, exit_thresholds={"gate": [0.5]})
    model = ll.load_model("phop-ouro-mini")
    bare = ll.record(
        model, [[1, 2, 3]], out=tmp_path / "bare", iterations=4, readout=False, progress=False
    )
    with pytest.raises(AnalysisError, match="Record with readout=True"):
        analysis.get(bare, "exits")


def test_numbers_that_are_not_finite_are_no_predictions(tmp_path):
    model = ll.load_model("affine-huginn-mini")
    with torch.no_grad():
        model.core[0].mlp.down_proj.weight.fill_(torch.nan)
    prompt = ll.Prompt(token_ids=(3, 7, 4), text="", token_texts=("x",) * 3, targets=(-1, 1, 2))
    run = ll.record(model, [prompt], out=tmp_path / "run", iterations=6, progress=False)
    readout = analysis.get(run, "readout")
    assert (readout["accuracy"] == 0).all()  # comparisons with NaN would make every rank 0
    for name in ("entropy", "kl_to_last", "prediction_settling", "prediction_agreement"):
        assert np.isnan(readout[name]).all(), name
    found = analysis.get(run, "exits")
    assert found.attrs["judged_tokens"] == 0
    assert np.isnan(found["exit_iteration"]).all()
    assert np.isnan(found["agreement"]).all()
    assert "best_rule" not in analysis.ANALYZERS["exits"].summary(found, run)
    assert build(run).section("exits") is None


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_figure_and_section(gated, tmp_path, theme):
    *_, run = gated
    made = plots.exits(run, theme=theme)
    assert {trace.name for trace in made.data} >= {"fixed depth", "exit gate, CDF"}
    section = build(run).section("exits")
    assert section is not None
    assert section.tables[0].rows
