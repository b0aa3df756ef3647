"""Own and driven motion are told apart by experiment: in closed form, and in bundled models."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

import looplens as ll
from looplens import plots
from looplens.dynamics.eigen import looking, motions
from looplens.dynamics.eigen.causes import causes
from looplens.dynamics.eigen.cycles import shorter_cycle
from looplens.dynamics.eigen.spectra import spectra
from looplens.dynamics.maps.loop_step import LoopStep
from looplens.dynamics.maps.recorded import Recorded
from looplens.errors import AnalysisError

# The beginning of a prompt of phop-huginn-mini whose position 6 alternates for ever by itself.
ORBIT = [5, 10, 9, 8, 8, 9, 11, 9, 11]
# And one of phop-ouro-mini, all of whose tokens go around.
ROUND = [1, 9, 8, 8]


class Tokens(LoopStep):
    """Positions of one number: x -> a x / sqrt(1 + x^2) + what it sees of the others.

    The fixed point has the slope a where nothing pushes: beyond -1 it is unstable, a flip.
    """

    width = 1

    def __init__(self, slope, sees):
        toy = SimpleNamespace(
            model_name="toy",
            d_model=self.width,
            dtype=torch.float64,
            device=torch.device("cpu"),
            spec=SimpleNamespace(step=lambda module, state, ids: state),
        )
        super().__init__(toy, torch.zeros(1, len(slope), dtype=torch.long))
        self.slope = torch.tensor(slope, dtype=torch.float64)[:, None]
        self.sees = torch.tensor(sees, dtype=torch.float64)

    def __call__(self, s):
        flipped = self.slope * s / (1 + s.square()).sqrt()
        return flipped + torch.einsum("ij,rjd->rid", self.sees, s)


class Turning(Tokens):
    """Positions of two numbers that turn by a part of the circle: slopes are (size, parts)."""

    width = 2

    def __call__(self, s):
        size, parts = self.slope[:, 0].T
        angle = 2 * torch.pi / parts
        x, y = (s * (size / (1 + s.square().sum(-1)).sqrt())[..., None]).unbind(-1)
        turned = (x * angle.cos() - y * angle.sin(), x * angle.sin() + y * angle.cos())
        return torch.stack(turned, -1) + torch.einsum("ij,rjd->rid", self.sees, s)


class Sliding(Tokens):
    """The last token goes on and on, whatever the others do."""

    def __call__(self, s):
        return torch.cat([super().__call__(s)[:, :-1], s[:, -1:] + 0.1], dim=1)


def of_toy(monkeypatch, slope, sees, *, causal=True, kind=Tokens, ask=causes, **more):
    step = kind(slope, sees)
    draw = torch.Generator().manual_seed(1)
    states = torch.randn(40, *step.shape, generator=draw, dtype=torch.float64)
    for t in range(1, 40):
        states[t] = step(states[t - 1 : t])[0]
    found = Recorded(
        step=step,
        states=states,
        iterations=tuple(range(40)),
        tokens=slice(10, 10 + len(slope)),
        prompt=0,
        restart=0,
        run=None,
        causal=causal,
        mismatch=0.0,
    )
    monkeypatch.setattr(looking, "recorded", lambda *_, **__: found)
    monkeypatch.setattr(looking, "_module", lambda _: None)
    return ask(None, None, dtype=torch.float64, **more)


def test_a_flip_is_own_and_what_it_moves_is_driven(monkeypatch):
    slope = [0.5, -1.3, 0.4, 0.2, -1.4]
    sees = np.zeros((5, 5))
    sees[2, 1], sees[3, 2], sees[4, 1] = 0.3, 0.3, 0.3
    found = of_toy(monkeypatch, slope, sees.tolist())
    assert found["token"].values.tolist() == [11, 12, 13, 14]
    assert found["cause"].values.tolist() == ["own", "driven", "driven", "both"]
    assert found["driver"].values.tolist() == [-1, 11, 11, 11]
    assert np.allclose(found["eigenvalue_real"], [-1.3, 0.4, 0.2, -1.4], atol=1e-6)
    assert found["at_fixed_point"].values.all()
    assert np.allclose(found["predicted_period"][[0, 3]], 2)
    assert found["cycle_period"].values.tolist() == [2, 2, 2, 2]
    assert found["amplitude_alone"].values[1:3].tolist() == [0, 0]
    assert "eigenvalue of modulus 1.3" in str(found["why"].values[0])
    assert "position 1 is released" in str(found["why"].values[1])


def test_what_settles_says_so_and_nothing_moves_gives_no_tokens(monkeypatch):
    found = of_toy(monkeypatch, [0.5, 0.4], [[0.0, 0.0], [0.3, 0.0]])
    assert found.sizes["token"] == 0
    asked = of_toy(monkeypatch, [0.5, 0.4], [[0.0, 0.0], [0.3, 0.0]], tokens=[1])
    assert asked["cause"].values.tolist() == ["comes to rest"]
    assert plots.causes_figure(found).layout.annotations[0].text == "no token moves"


def test_rate_and_multiplier_of_a_flip_are_those_of_its_formula(monkeypatch):
    found = of_toy(monkeypatch, [0.2, -1.3], np.zeros((2, 2)).tolist(), ask=spectra)
    # On the cycle x^2 = a^2 - 1, where the slope is a / (1 + x^2)^(3/2) = -1 / a^2.
    assert np.allclose(found["predicted_rate"], [0.2, 1 / 1.69], rtol=1e-6)
    assert np.allclose(found["measured_rate"], [0.2, 1 / 1.69], rtol=1e-3)
    assert found["multiplier_real"].values[1, 0] == pytest.approx(1.3**-4, rel=1e-6)
    assert found["slowest_token"].values.tolist() == [10, 11]


def test_the_first_unstable_point_sets_the_period(monkeypatch):
    slope = [(0.9, 12.0), (1.2, 8.0), (1.5, 5.0)]
    sees = [[0.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.3, 0.0]]
    found = of_toy(monkeypatch, slope, sees, kind=Turning, ask=spectra)
    assert np.allclose(found["radius"], [0.9, 1.2, 1.5], rtol=1e-6)
    assert np.allclose(found["predicted_period"], [12, 8, 8], rtol=1e-6)


def test_what_slides_on_is_not_pushed_by_its_own_residual(monkeypatch):
    found = of_toy(monkeypatch, [-1.3, 0.0], np.zeros((2, 2)).tolist(), kind=Sliding)
    assert found["cause"].values.tolist() == ["own", "unexplained"]
    assert float(found["drive"][1]) == pytest.approx(0, abs=1e-9)
    assert "no fixed point was found" in str(found["why"].values[1])
    assert "pushes" not in str(found["why"].values[1])


def test_two_tokens_that_only_move_together(monkeypatch):
    sees = [[0.0, 0.95, 0.0], [-0.95, 0.0, 0.0], [0.0, 0.0, 0.0]]
    found = of_toy(monkeypatch, [0.5, 0.5, -1.5], sees, causal=False)
    words = dict(zip(found["token"].values.tolist(), found["cause"].values.tolist(), strict=True))
    assert words[12] == "own"
    assert words[10] == words[11] == "together"


class Logistic(Tokens):
    """A token that has doubled its period, beside one that rests."""

    def __init__(self, gain):
        super().__init__([0.5, gain], np.zeros((2, 2)))

    def __call__(self, s):
        return torch.stack([0.5 * s[:, 0], self.slope[1] * s[:, 1] * (1 - s[:, 1])], dim=1)


# The 2-cycle of the logistic map has the multiplier 4 + 2 r - r^2.
@pytest.mark.parametrize(("gain", "period"), [(3.5, 4), (3.9, np.nan)])
def test_the_cycle_under_a_doubled_one_is_that_of_the_logistic_map(gain, period):
    step = Logistic(gain)
    states = torch.full((1, 2, 1), 0.3, dtype=torch.float64)
    path = []
    for _ in range(500):
        states = step(states)
        path.append(states[0])
    path = torch.stack(path[-64:])
    found = shorter_cycle(step, path[-1], 1, path[:, 1], period)
    assert found.period == 2
    assert found.multiplier == pytest.approx(4 + 2 * gain - gain**2, rel=1e-6)
    x = float(found.state)
    assert gain**2 * x**2 - gain * (gain + 1) * x + gain + 1 == pytest.approx(0, abs=1e-9)
    assert shorter_cycle(step, path[-1], 1, path[:, 1], 2) is None
    assert shorter_cycle(step, path[-1], 1, path[:, 1], 5) is None
    assert shorter_cycle(step, path[-1], 0, path[:, 0], 4) is None  # a fixed point is no 2-cycle


def test_what_spectra_solved_is_not_solved_again(monkeypatch):
    calls, solve = [], motions.resting
    monkeypatch.setattr(motions, "resting", lambda *a, **b: calls.append(1) or solve(*a, **b))
    model = ll.load_model("phop-huginn-mini")
    fast = {"iterations": 64, "settle": 200}
    spectra(model, ORBIT[:7], rate_iterations=0, **fast)
    found = causes(model, ORBIT[:7], tokens=[6], **fast)
    assert len(calls) == 1
    assert found["cause"].values.tolist() == ["own"]
    with torch.no_grad():
        model.core[0].attn.o_proj.weight.mul_(0.5)
    causes(model, ORBIT[:7], tokens=[6], **fast)
    assert len(calls) == 2  # another step now


@pytest.fixture(scope="module")
def orbit():
    return causes(ll.load_model("phop-huginn-mini"), ORBIT, iterations=200)


def test_one_token_drives_all_orbits_of_a_natural_prompt(orbit):
    words = dict(zip(orbit["position"].values.tolist(), orbit["cause"].values, strict=True))
    assert {place for place, word in words.items() if word == "own"} == {6}
    own = orbit.isel(token=orbit["position"].values.tolist().index(6))
    assert float(own["eigenvalue_real"]) < -1.2
    assert float(own["amplitude_alone"]) == pytest.approx(float(own["amplitude"]), rel=0.05)
    driven = orbit.isel(token=orbit["cause"].values == "driven")
    assert driven.sizes["token"] >= 2
    assert (driven["driver"].values == 6).all()
    assert (driven["radius"].values < 0.7).all()
    assert np.allclose(driven["drive"], driven["amplitude"], rtol=0.05)


def test_a_loop_without_injection_turns_about_an_unstable_spiral():
    found = causes(ll.load_model("phop-ouro-mini"), ROUND, iterations=300, tokens=[0, 1, 2])
    first = found.isel(token=0)
    assert str(first["cause"].values) == "own"
    assert 1 < float(first["radius"]) < 1.1
    assert abs(float(first["eigenvalue_imag"])) > 0.05
    assert 35 < float(first["predicted_period"]) < 70
    assert set(found["cause"].values) <= {"own", "driven", "both"}
    assert (found["driver"].values[1:] == 0).all()
    periods = spectra(ll.load_model("phop-ouro-mini"), ROUND, iterations=300, rate_iterations=0)
    assert np.allclose(periods["predicted_period"], float(first["predicted_period"]), rtol=1e-3)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_figure_has_a_symbol_for_every_cause(orbit, theme):
    figure = plots.causes_figure(orbit, 6, theme=theme)
    symbols = {trace.name: trace.marker.symbol for trace in figure.data}
    assert set(symbols) == set(orbit["cause"].values)
    assert len(set(symbols.values())) == len(symbols)
    assert any("driven by 6" in text for trace in figure.data for text in trace.text)


def test_figures_of_a_run_read_what_is_stored(tmp_path):
    model = ll.load_model("phop-huginn-mini")
    run = ll.record(model, [ORBIT[:8]], out=tmp_path / "run", iterations=64, progress=False)
    with pytest.raises(AnalysisError, match="looplens dynamics"):
        plots.causes(run)
    run.write_analysis("dynamics/causes", causes(model, run), version=1)
    rates = {"settle": 200, "rate_iterations": 0}
    run.write_analysis("dynamics/spectra", spectra(model, run, **rates), version=1)
    assert "prompt 0" in plots.causes(run, 6).layout.title.subtitle.text
    assert "orbit" in plots.spectra(run, 7).layout.title.subtitle.text
