"""Eigenvalues agree with dense algebra and ARPACK, and predict how the loops of models move."""

from types import SimpleNamespace

import numpy as np
import pytest
import scipy.sparse.linalg as sparse
import torch

import looplens as ll
from looplens import plots
from looplens.dynamics.eigen.cycles import CycleMap
from looplens.dynamics.eigen.held_gap import gap_rates
from looplens.dynamics.eigen.replaying import replayed_rates
from looplens.dynamics.eigen.running import returns
from looplens.dynamics.eigen.spectra import spectra
from looplens.dynamics.eigen.spectrum import leading, spectrum
from looplens.dynamics.maps.loop_maps import SequenceMap, TokenMap
from looplens.dynamics.maps.recorded import recorded
from looplens.errors import InputError

# The beginning of a prompt of phop-huginn-mini whose position 6 alternates for ever by itself.
ORBIT = [5, 10, 9, 8, 8, 9, 11, 9, 11]

SETTLED = [5, 7, 5, 8, 3, 8, 2, 8, 5, 8, 5, 8, 5, 8, 6]  # and one of affine-huginn-mini


def random_matrix(n: int, seed: int = 0) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(n, n, generator=draw, dtype=torch.float64) / n**0.5


def sorted_moduli(values) -> np.ndarray:
    return np.sort(np.abs(np.asarray(values)))[::-1]


@pytest.mark.parametrize("seed", range(3))
def test_leading_eigenvalues_are_those_of_arpack(seed):
    a = random_matrix(300, seed)
    start = torch.zeros(300, dtype=torch.float64)
    found = spectrum(lambda s: a @ s, start, k=6, tolerance=1e-8, krylov=250)
    expected = sparse.eigs(a.numpy(), k=8, which="LM", return_eigenvectors=False)
    assert found.converged.all()
    assert np.allclose(np.abs(found.eigenvalues), sorted_moduli(expected)[:6], rtol=1e-6)
    for value in found.eigenvalues:
        assert np.abs(expected - value).min() < 1e-6
    assert found.sigma_max == pytest.approx(np.linalg.norm(a.numpy(), 2), rel=1e-3)
    assert found.products < 250  # not formed, and ended early


def test_pairs_departure_and_what_is_missing():
    turn = torch.tensor(2 * np.pi / 7, dtype=torch.float64)
    block = torch.stack([turn.cos(), -turn.sin(), turn.sin(), turn.cos()]).reshape(2, 2) * 0.97
    normal = torch.block_diag(block, torch.tensor([[-0.5]], dtype=torch.float64))
    found = spectrum(lambda s: normal @ s, torch.ones(3, dtype=torch.float64), k=5)
    assert found.eigenvalues[0].imag > 0
    assert found.period == pytest.approx(7)
    assert np.allclose(
        found.eigenvalues[:3],
        [block[0, 0] + 1j * block[1, 0], block[0, 0] - 1j * block[1, 0], -0.5],
    )
    assert np.isnan(found.eigenvalues[3:]).all()
    assert not found.converged[3:].any()
    assert found.non_normality == pytest.approx(0, abs=1e-6)
    shear = torch.tensor([[0.5, 3.0], [0.0, 0.4]], dtype=torch.float64)
    stretched = spectrum(lambda s: shear @ s, torch.ones(2, dtype=torch.float64), k=2)
    frobenius = float(shear.square().sum())
    assert stretched.non_normality == pytest.approx(((frobenius - 0.41) / frobenius) ** 0.5)
    assert stretched.sigma_max > 3 > 1 > stretched.spectral_radius


def test_what_has_not_converged_is_not_called_so():
    a = random_matrix(300)
    found = spectrum(lambda s: a @ s, torch.zeros(300, dtype=torch.float64), k=6, krylov=12)
    assert found.products == 12
    assert not found.converged.all()
    with pytest.raises(InputError, match="k must"):
        spectrum(lambda s: s, torch.ones(2), k=0)
    with pytest.raises(InputError, match="not finite"):
        spectrum(lambda s: s, torch.tensor([1.0, float("nan")]))
    with pytest.raises(InputError, match=r"f\(s\) is not finite"):
        spectrum(torch.log, torch.tensor([1.0, -1.0]))  # whose derivative is finite


def test_the_sequence_has_the_eigenvalues_of_its_blocks():
    found = recorded(ll.load_model("affine-huginn-mini"), SETTLED[:9], dtype=torch.float64)
    assert found.causal
    map_ = SequenceMap(found.step)
    whole = leading(map_, map_.flat(found.at()), 6, tolerance=1e-6, stretch=False)
    blocks = leading(TokenMap(found.step, found.at(), range(found.n_pos)), found.at(), 6)
    union = sorted_moduli(blocks.eigenvalues.ravel())
    assert whole.converged.all()
    assert np.allclose(np.abs(whole.eigenvalues[0]), union[:6], rtol=1e-4)
    assert whole.sigma_max[0] != whole.sigma_max[0]  # left out


class Coupled:
    """Two tokens of one dimension each: the second sees the first."""

    shape, hooks = (2, 1), ()

    def __init__(self, first: float, second: float) -> None:
        self.first, self.second = first, second

    def __call__(self, s):
        one, two = s[:, 0], s[:, 1]
        return torch.stack([self.first * one, self.second * two + 0.3 * one], dim=1)


@pytest.mark.parametrize(("first", "second"), [(0.5, 0.3), (0.3, 0.5), (-0.9, 0.5), (0.4, 0.4)])
def test_the_gap_shrinks_at_the_rate_of_the_slowest_token_before(first, second):
    start = torch.ones(2, 1, dtype=torch.float64)
    step = Coupled(first, second)
    rate, error = gap_rates(step, start, [0, 1], causal=True)  # type: ignore[arg-type]
    assert rate[0] == pytest.approx(abs(first), rel=1e-6)
    assert rate[1] == pytest.approx(max(abs(first), abs(second)), rel=0.03)
    assert (error < 0.02).all()


class Linear:
    """Two tokens: one turns inwards, the second comes to rest slower and sees the first."""

    def __init__(self, modulus: float, slow: float) -> None:
        turn = torch.tensor(0.7, dtype=torch.float64)
        spiral = modulus * torch.stack([turn.cos(), -turn.sin(), turn.sin(), turn.cos()])
        self.first = spiral.reshape(2, 2)
        self.second = torch.tensor([[slow, 0.4], [0.0, 0.3]], dtype=torch.float64)

    def __call__(self, s):
        one, two = s[:, 0], s[:, 1]
        after = torch.stack([one @ self.first.T, two @ self.second.T + 2.0 * one], dim=1)
        return 1.0 + after


def motion_of(step, iterations=40, **more):
    states = torch.zeros(iterations, 2, 2, dtype=torch.float64)
    for t in range(1, iterations):
        states[t] = step(states[t - 1 : t])[0]
    numbers = tuple(range(iterations))
    return SimpleNamespace(step=step, states=states, iterations=numbers, n_pos=2, **more)


def test_modes_of_the_motion_tell_the_slowest_part_from_a_spiral():
    found = motion_of(Linear(0.55, 0.6), causal=True)
    rates = replayed_rates(found, [1, 0], np.ones(2))
    assert rates == pytest.approx([0.6, 0.55], rel=5e-3)
    whole = replayed_rates(motion_of(Linear(0.65, 0.6), causal=False), [0, 1], np.ones(2))
    assert whole == pytest.approx([0.65, 0.65], rel=5e-3)
    # What goes on moving has no rate, nor has what sees it.
    assert np.isnan(replayed_rates(found, [0, 1], np.array([2.0, 2.0]))).all()
    assert np.isnan(replayed_rates(found, [0, 1], np.array([1.0, 2.0]))).tolist() == [False, True]
    sudden = motion_of(Linear(1e-4, 1e-4), causal=True)
    assert np.isnan(replayed_rates(sudden, [0], np.ones(2))[0])


def test_a_model_in_float64_computes_in_float64():
    found = recorded(ll.load_model("affine-huginn-mini"), SETTLED[:5], dtype=torch.float64)
    map_ = SequenceMap(found.step)
    x = map_.flat(found.at())
    draw = torch.Generator().manual_seed(0)
    v = torch.randn(x.shape, generator=draw, dtype=torch.float64)
    quotient = (map_(x + 1e-6 * v) - map_(x - 1e-6 * v)) / 2e-6
    product = map_.jvp(x, v)
    assert (quotient - product).norm() < 1e-7 * product.norm()


def test_returns_count_what_comes_before():
    t = torch.arange(40, dtype=torch.float64)
    states = torch.ones(40, 4, 2, dtype=torch.float64)
    states[:, 1, 0] += 0.1 * (t % 3)
    states[:, 2, 0] += 0.1 * (t % 2)
    states[:, 3, 0] += 0.01 * t
    period, error = returns(states, 16)
    assert period[:3].tolist() == [1, 3, 6]
    assert np.isnan(period[3])
    assert error[3] > 1e-3


@pytest.fixture(scope="module")
def orbit():
    return spectra(ll.load_model("phop-huginn-mini"), ORBIT, iterations=200)


def test_settled_tokens_come_back_as_their_eigenvalues_say():
    model = ll.load_model("affine-huginn-mini")
    found = spectra(model, SETTLED, iterations=64)
    assert set(found["at"].values) == {"fixed point"}
    predicted = found["predicted_rate"].values
    measured, replayed, recorded_ = (
        (np.abs(found[name].values / predicted - 1) < 0.05).mean()
        for name in ("measured_rate", "replayed_rate", "recorded_rate")
    )
    assert measured >= 0.95
    assert replayed >= 0.9 > 0.6 > recorded_
    assert (found["cycle_period"].values == 1).all()
    assert (np.diff(found["predicted_rate"].values) >= 0).all()
    assert (found["slowest_token"].values <= found["token"].values).all()
    assert (found["radius"].values <= found["predicted_rate"].values + 1e-12).all()


def test_a_natural_orbit_has_an_unstable_point_under_it(orbit):
    real, radius = orbit["eigenvalue_real"].values[:, 0], orbit["radius"].values
    assert real[6] < -1.2
    assert orbit["at"].values[6] == "fixed point"
    assert (np.delete(radius, 6) < 1).all()
    assert orbit["cycle_period"].values[6:].tolist() == [2, 2, 2]
    assert orbit["regime"].values[6] == "orbit"
    assert np.allclose(orbit["predicted_period"].values[6:], 2)
    around = np.hypot(orbit["multiplier_real"].values, orbit["multiplier_imag"].values)
    assert (around[6:, 0] < 1).all()
    assert np.isnan(around[:3]).all()
    assert np.allclose(orbit["measured_rate"], orbit["predicted_rate"], rtol=0.05)
    replayed = orbit["replayed_rate"].values
    assert np.isnan(replayed[6:]).all()
    assert np.allclose(replayed[:6], orbit["predicted_rate"].values[:6], rtol=0.05)


def test_multipliers_are_eigenvalues_of_the_product_of_jacobians():
    found = recorded(ll.load_model("phop-huginn-mini"), ORBIT, iterations=400, dtype=torch.float64)
    cycle = found.states[-2:]
    product = torch.eye(64, dtype=torch.float64)
    for state in cycle:
        map_ = TokenMap(found.step, state, [6] * 64)
        columns = map_.jvp(state[6].expand(64, -1).contiguous(), torch.eye(64, dtype=torch.float64))
        product = columns.T @ product
    expected = sorted_moduli(torch.linalg.eigvals(product).numpy())
    around = leading(CycleMap.along(found.step, cycle, [6]), cycle[0, [6]], 4)
    assert np.allclose(np.abs(around.eigenvalues[0]), expected[:4], rtol=1e-3)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_figure_shows_the_regime_of_the_token(orbit, theme):
    figure = plots.spectra_figure(orbit, 6, theme=theme)
    names = [trace.name for trace in figure.data]
    assert {"leading eigenvalue", "measured rate", "this token", "period"} <= set(names)
    lead = figure.data[names.index("leading eigenvalue")]
    assert min(lead.x) == pytest.approx(float(orbit["eigenvalue_real"][6, 0]))
    assert len(lead.x) == int((orbit["regime"] == "orbit").sum())
    with pytest.raises(InputError, match="holds 9 tokens from 0 to 8"):
        plots.spectra_figure(orbit, 99)
    with pytest.raises(InputError, match="no token of the result is of regime 'slider'"):
        plots.spectra_figure(orbit, regime="slider")


def test_bad_input_is_named():
    model = ll.load_model("affine-huginn-mini")
    with pytest.raises(InputError, match="from 0 to 2"):
        spectra(model, SETTLED[:3], tokens=[7])
    with pytest.raises(InputError, match="longest_cycle"):
        spectra(model, SETTLED[:3], longest_cycle=1)
    with pytest.raises(InputError, match="no run was given"):
        spectra(model, SETTLED[:3], prompt=1)
