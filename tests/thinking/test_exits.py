import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from looplens.errors import InputError
from looplens.thinking.exits import (
    ActHalting,
    ActRouter,
    ArgmaxStability,
    CosineDifference,
    EntropyChange,
    GateThreshold,
    LatentDifference,
    MinPKL,
    Observation,
    OutputKL,
    act_exit,
    exit_distribution,
    exit_rule,
    expected_logits,
    logits_at,
    published_exit,
    survival,
    threshold_exit,
)

GOLDEN = Path(__file__).parents[2].parent / "shared" / "golden" / "ouro" / "golden.safetensors"


def column(*values) -> torch.Tensor:
    """One token: [iteration, batch=1, pos=1]."""
    return torch.tensor(values, dtype=torch.float64)[:, None, None]


def logit(p: float) -> float:
    return math.log(p / (1 - p))


def trace_of(states=None, logits=None, **more) -> SimpleNamespace:
    """A trace of one token, from lists of vectors; states begin with iteration 0."""
    steps = len(logits) if logits is not None else len(states) - 1
    if states is None:
        states = [[1.0, 0.0]] * (steps + 1)
    pack = lambda rows: torch.tensor(rows, dtype=torch.float32)[:, None, None]  # noqa: E731
    return SimpleNamespace(
        states=pack(states), logits=None if logits is None else pack(logits), **more
    )


# ---------------------------------------------------------------- Ouro's gate


def test_exit_distribution_by_hand():
    gates = column(logit(0.2), logit(0.5), logit(0.9))
    # .2 leaves; .5 of the remaining .8; the rest must leave at the last, whatever its gate says.
    torch.testing.assert_close(exit_distribution(gates), column(0.2, 0.4, 0.4))
    torch.testing.assert_close(survival(gates), column(0.8, 0.4, 0.04))
    assert threshold_exit(gates, 0.1).item() == 1
    assert threshold_exit(gates, 0.55).item() == 2
    assert threshold_exit(gates, 0.7).item() == 3
    logits = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 4.0]])[:, None, None]
    torch.testing.assert_close(expected_logits(logits, gates), torch.tensor([[[0.2, 2.0]]]))
    assert logits_at(logits, threshold_exit(gates, 0.7)).tolist() == [[[0.0, 4.0]]]


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.floats(-40, 40), min_size=1, max_size=8),
    st.sampled_from([torch.float32, torch.bfloat16, torch.float64]),
)
def test_exit_distribution_is_a_distribution(gates, dtype):
    pdf = exit_distribution(column(*gates).to(dtype))
    assert (pdf >= 0).all()
    torch.testing.assert_close(pdf.sum(0).double(), torch.ones(1, 1).double(), atol=1e-6, rtol=0)


def test_threshold_one_means_all_iterations_and_the_published_arithmetic_leaves_early():
    # The gate is sure, but not certain: nothing has reached probability 1 in exact arithmetic.
    sure = column(7.0, 7.0, 7.0, 7.0)
    assert threshold_exit(sure, 1.0).item() == 4
    assert published_exit(sure, dtype=torch.float64).item() == 4
    assert published_exit(sure, dtype=torch.bfloat16).item() == 1
    assert published_exit(column(17.5, 0.0, 0.0), dtype=torch.float32).item() == 1
    assert published_exit(column(17.5, 0.0, 0.0), dtype=torch.float64).item() == 3
    # Unsaturated gates run to the end everywhere, and without a threshold all do.
    assert published_exit(column(0.0, 0.0, 0.0), dtype=torch.bfloat16).item() == 3
    assert published_exit(sure, None, dtype=torch.bfloat16).item() == 4
    # Where nothing rounds, both agree.
    mild = torch.randn(4, 2, 5, generator=torch.Generator().manual_seed(0)).double()
    assert torch.equal(published_exit(mild, 0.7), threshold_exit(mild, 0.7))


def test_gate_functions_against_the_reference_implementation():
    if not GOLDEN.exists():
        pytest.skip(f"no golden numbers at {GOLDEN}")
    golden = load_file(GOLDEN)
    gates, logits = golden["gate_logits"], golden["logits"]
    torch.testing.assert_close(exit_distribution(gates), golden["exit_pdf"], atol=1e-5, rtol=0)
    step = threshold_exit(gates, 0.7)
    assert torch.equal(step - 1, golden["threshold_exit_step"].long())
    assert torch.equal(published_exit(gates, 0.7) - 1, golden["threshold_exit_step"].long())
    for ours, theirs in (
        (logits_at(logits, step), golden["threshold_logits"]),
        (expected_logits(logits, gates), golden["expected_logits"]),
    ):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
    trace = SimpleNamespace(states=golden["states"], logits=logits, gate_logits=gates)
    assert torch.equal(GateThreshold(q=0.7).exit_step(trace), step)


def test_gate_errors():
    with pytest.raises(InputError, match=r"q must lie between 0 and 1, got 1\.5"):
        threshold_exit(column(0.0), 1.5)
    with pytest.raises(InputError, match=r"exit steps must lie in 1\.\.2, got 0\.\.0"):
        logits_at(torch.zeros(2, 1, 1, 3), torch.tensor([[0]]))
    with pytest.raises(InputError, match="must agree in"):
        expected_logits(torch.zeros(2, 1, 1, 3), column(0.0, 0.0, 0.0))
    with pytest.raises(InputError, match="does not hold; its model has no exit gate"):
        GateThreshold(q=0.5).exit_step(trace_of(states=[[1.0], [2.0]]))
    with pytest.raises(InputError, match="OutputKL reads logits, which this trace does not hold"):
        OutputKL().exit_step(trace_of(states=[[1.0], [2.0]]))


# ---------------------------------------------------------------- Huginn's criteria, by hand


def test_latent_difference_compares_with_the_state_before():
    # Steps relative to the new state: 1/1 (from zero), .5/1.5, .03/1.53 < .03.
    trace = trace_of(states=[[0.0], [1.0], [1.5], [1.53], [9.0]])
    torch.testing.assert_close(
        LatentDifference().values(trace)[:3].float(), column(1, 1 / 3, 0.03 / 1.53).float()
    )
    assert LatentDifference().exit_step(trace).item() == 3
    assert LatentDifference(threshold=1e-3).exit_step(trace).item() == 4  # never: T


def test_cosine_ignores_the_norm():
    trace = trace_of(states=[[1.0, 0.0], [0.0, 2.0], [0.0, 5.0], [1.0, 0.0]])
    assert CosineDifference().exit_step(trace).item() == 2
    assert LatentDifference().exit_step(trace).item() == 3


def test_output_kl_direction_and_the_uniform_start():
    p, q = [0.5, 0.5], [0.9, 0.1]
    rows = [[math.log(x) for x in row] for row in (q, p, p)]
    values = OutputKL().values(trace_of(logits=rows)).flatten().tolist()
    # KL(uniform || q), then KL(q || p): the distribution before is what is averaged over.
    first = 0.5 * math.log(0.5 / 0.9) + 0.5 * math.log(0.5 / 0.1)
    second = 0.9 * math.log(0.9 / 0.5) + 0.1 * math.log(0.1 / 0.5)
    assert values == pytest.approx([first, second, 0.0], abs=1e-6)
    assert OutputKL().exit_step(trace_of(logits=rows)).item() == 3
    # A readout that is uniform to begin with does not differ from what is assumed before.
    assert OutputKL().exit_step(trace_of(logits=[[0.0, 0.0], [5.0, 0.0]])).item() == 1


def test_min_p_hides_what_changes_among_the_improbable():
    # 0.01 against 0.05: both below a tenth of the greatest, so both count as 1/3.
    rows = [[math.log(x) for x in row] for row in ([0.95, 0.04, 0.01], [0.95, 0.02, 0.03])]
    trace = trace_of(logits=rows)
    assert MinPKL().exit_step(trace).item() == 2
    assert MinPKL().values(trace)[1].item() == pytest.approx(0, abs=1e-7)
    assert OutputKL().values(trace)[1].item() > 1e-3
    z = 0.95 + 2 / 3
    kept = [0.95 / z, 1 / 3 / z, 1 / 3 / z]
    expected = sum(math.log(1 / 3 / k) / 3 for k in kept)
    assert MinPKL().values(trace)[0].item() == pytest.approx(expected, abs=1e-6)


def test_entropy_change_never_fires_first_and_is_blind_to_which_token():
    a, b = [3.0, 0.0, 0.0], [0.0, 3.0, 0.0]
    rule = EntropyChange()
    assert rule.exit_step(trace_of(logits=[a, b, b])).item() == 2
    assert rule.exit_step(trace_of(logits=[[0.0] * 3])).item() == 1  # T, since there is only one
    assert not rule.fires(rule.values(trace_of(logits=[[0.0] * 3]))).any()
    assert rule.exit_step(trace_of(logits=[[-math.inf, 0.0], [-math.inf, 0.0]])).item() == 2


def test_argmax_stability_counts_comparisons():
    a, b = [1.0, 0.0], [0.0, 1.0]
    rule = ArgmaxStability()
    assert rule.exit_step(trace_of(logits=[a] * 10)).item() == 6
    assert rule.exit_step(trace_of(logits=[a, b, *[a] * 8])).item() == 8
    assert rule.exit_step(trace_of(logits=[a] * 5)).item() == 5  # T: never stable for long enough
    assert ArgmaxStability(steps=1).exit_step(trace_of(logits=[a, b, b, b])).item() == 3


@pytest.mark.parametrize("name", ["kl", "minp-kl", "entropy-diff", "argmax-stability:2"])
def test_logits_that_are_not_numbers_never_leave(name):
    rule = exit_rule(name)
    trace = trace_of(logits=[[1.0, 0.0]] + [[math.nan, 0.0]] * 6)
    assert not rule.fires(rule.values(trace)).any()


def test_the_cosine_of_nearly_equal_states_keeps_its_digits():
    trace = trace_of(states=[[1.0, 0.0], [1.0, 1e-5]])
    assert CosineDifference().values(trace).item() == pytest.approx(5e-11, rel=1e-3)


def test_a_rule_online_equals_the_rule_on_the_trace():
    torch.manual_seed(0)
    steps, batch, pos = 12, 2, 3
    limit, shrink = torch.randn(batch, pos, 8), 0.6 ** torch.arange(steps + 1)
    states = limit + shrink[:, None, None, None] * torch.randn(batch, pos, 8)
    gates = torch.randn(steps, batch, pos)
    trace = SimpleNamespace(states=states, logits=states[1:] * 2, gate_logits=gates)
    rules = [exit_rule(name) for name in ("latent-diff", "cosine", "kl", "entropy-diff", "minp-kl")]
    rules += [ArgmaxStability(steps=3), GateThreshold(q=0.8), ActHalting(router=ActRouter(8))]
    for rule in rules:
        monitor = rule.start(states[0])
        left = torch.full((batch, pos), steps)
        open_ = torch.ones(batch, pos, dtype=torch.bool)
        for t in range(1, steps + 1):
            seen = Observation(
                iteration=t,
                state=states[t],
                logits=trace.logits[t - 1],
                gate_logits=gates[t - 1],
            )
            out = monitor.see(seen) & open_
            left[out], open_ = t, open_ & ~out
        assert torch.equal(rule.exit_step(trace), left), rule
        assert not open_.all(), rule  # nothing would have been tested


# ---------------------------------------------------------------- ETD's router


def test_act_adds_up_to_one_minus_epsilon():
    assert act_exit(column(0.33, 0.33, 0.33, 0.33)).item() == 3  # .99 is enough
    assert act_exit(column(0.33, 0.33, 0.32, 0.33)).item() == 4
    assert act_exit(column(0.33, 0.33, 0.32, 0.33), epsilon=0.02).item() == 3
    assert act_exit(column(*[0.01] * 20)).item() == 10  # the limit
    assert act_exit(column(0.1, 0.1)).item() == 2  # T
    assert act_exit(torch.full((3, 1, 1), 0.33)).item() == 3  # in float32 too
    with pytest.raises(InputError, match="epsilon must lie in"):
        act_exit(column(0.5), epsilon=1.0)


def test_act_router_as_a_rule():
    router = ActRouter(2)
    with torch.no_grad():
        router.linear.weight.copy_(torch.tensor([[1.0, 0.0]]))
        router.linear.bias.zero_()
    states = [[0.0, 0.0], [logit(0.25), 5.0], [logit(0.25), 5.0], [logit(0.5), 5.0], [9.0, 0.0]]
    trace = trace_of(states=states)
    weights = router(trace.states[1:])
    torch.testing.assert_close(weights[:3], column(0.25, 0.25, 0.5).float())
    assert ActHalting(router=router).exit_step(trace).item() == 3 == act_exit(weights).item()
    assert ActHalting(router=router, limit=2).exit_step(trace).item() == 2


# ---------------------------------------------------------------- names


def test_rules_by_name():
    assert exit_rule("kl:5e-4") == OutputKL(threshold=5e-4)
    assert exit_rule("argmax-stability:3") == ArgmaxStability(steps=3)
    assert exit_rule("gate:0.7") == GateThreshold(q=0.7)
    assert [exit_rule(n).threshold for n in ("latent-diff", "kl", "entropy-diff", "minp-kl")] == [
        0.03,
        1e-3,
        1e-3,
        1e-5,
    ]
    with pytest.raises(InputError, match=r"unknown exit rule 'argmax'.*Did you mean"):
        exit_rule("argmax")
    with pytest.raises(InputError, match="expected a number behind ':' in exit rule 'kl:low'"):
        exit_rule("kl:low")
    with pytest.raises(InputError, match="threshold must be positive, got 0"):
        exit_rule("kl:0")
    with pytest.raises(InputError, match="expected an exit rule or its name, got int"):
        exit_rule(3)
