"""Fixed points of maps with known answers: found, judged and merged; textbook methods beside."""

import numpy as np
import pytest
import scipy.optimize
import scipy.sparse.linalg
import torch

from looplens.dynamics import fixed_point
from looplens.dynamics.maps.state_map import StateMap
from looplens.dynamics.solving.fixed_point import solve
from looplens.dynamics.solving.krylov import begin, extend, smallest_stretch, solve_shifted
from looplens.dynamics.solving.searching import search
from looplens.errors import InputError

DOUBLE = torch.float64


def network(scale, n=100, seed=0):
    draw = torch.Generator().manual_seed(seed)
    weights = scale * torch.randn(n, n, generator=draw, dtype=DOUBLE) / n**0.5
    bias = 0.5 * torch.randn(n, generator=draw, dtype=DOUBLE)
    return lambda s: torch.tanh(weights @ s + bias)


def bratu(strength, n=100):
    """-u'' = strength e^u between zeros: s = A^-1 strength e^s."""
    inverse = torch.linalg.inv(torch.from_numpy((n + 1.0) ** 2 * (2 * np.eye(n) - _beside(n))))
    return lambda u: inverse @ (strength * torch.exp(u))


def _beside(n):
    return np.eye(n, k=1) + np.eye(n, k=-1)


KNOWN = {
    "stable": (torch.cos, 1.0, 0.7390851332151607),
    "flipped": (lambda s: 3.8 * s * (1 - s), 0.3, 1 - 1 / 3.8),
    "repelling": (lambda s: 2 * s - 1, 5.0, 1.0),
    "at zero": (lambda s: 0.5 * torch.tanh(s), 1.0, 0.0),
    "by a fold": (lambda s: s + (s - 1) ** 2 - 1e-4, 0.5, 0.99),
}


@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
@pytest.mark.parametrize("name", KNOWN)
def test_known_points(name, dtype):
    f, start, point = KNOWN[name]
    found = fixed_point(f, torch.tensor([start], dtype=dtype))
    assert found.verified
    assert not found.degenerate
    assert abs(float(found.state) - point) <= found.error + 1e-7 * (dtype == torch.float32)
    assert "fixed point, residual" in found.message


def test_starts_and_maps_of_other_kinds():
    whole = fixed_point(lambda s: 0.5 * s + 1, torch.zeros(3, dtype=torch.int64))
    assert whole.verified
    assert "torch.int64 was taken in torch.float32" in whole.notes[0]
    tracked = fixed_point(lambda s: 0.5 * s + 1, torch.zeros(3, requires_grad=True))
    assert tracked.verified
    assert not tracked.state.requires_grad

    def writes(s):
        s *= 0.5
        s += 1
        return s

    start = torch.zeros(3)
    assert fixed_point(writes, start).verified
    assert not start.any()
    for shape in ((), (1,), (2, 3)):
        found = fixed_point(lambda s: 0.5 * s + 1, torch.zeros(shape, dtype=DOUBLE))
        assert found.state.shape == shape
        np.testing.assert_allclose(found.state, 2)
    halved = fixed_point(lambda s: 0.5 * s, torch.ones(3), method="iteration", max_iterations=60)
    assert halved.verified  # a root at zero has no size of its own
    assert fixed_point(lambda s: torch.full_like(s, 3.0), torch.zeros(2)).verified  # J = 0
    assert fixed_point(lambda s: s.clone(), torch.ones(2)).degenerate  # J = 1


@pytest.mark.filterwarnings("ignore:An ill-conditioned matrix")  # in scipy's mixing
def test_newton_and_anderson_need_no_more_than_scipy():
    for name, f in {"network": network(0.9), "bratu": bratu(3.0), "stiff": bratu(3.5)}.items():
        count = [0]

        def residual(x, f=f, count=count):
            count[0] += 1
            s = torch.from_numpy(x)
            return (f(s) - s).numpy()

        start = np.zeros(100)
        options = {"f_tol": 1e-12, "maxiter": 400}
        truth = scipy.optimize.newton_krylov(residual, start, **options)
        theirs_newton, count[0] = count[0], 0
        scipy.optimize.anderson(residual, start, M=6, **options)
        theirs_anderson = count[0]
        ours = {m: fixed_point(f, torch.zeros(100, dtype=DOUBLE), method=m) for m in METHODS}
        for found in ours.values():
            np.testing.assert_allclose(found.state, truth, atol=1e-10)
        assert ours["anderson"].iterations <= 1.1 * theirs_anderson, name
        # Ours counts the products of the verification too: up to 48 in each of two spaces.
        assert ours["newton"].evaluations <= 1.5 * theirs_newton + 96, name
        assert ours["newton"].iterations <= 12


METHODS = ("anderson", "newton", "auto")


def test_krylov_steps_are_those_of_gmres_and_of_the_singular_values():
    draw = torch.Generator().manual_seed(0)
    matrix = torch.randn(40, 40, generator=draw, dtype=DOUBLE) / 40**0.5
    right = torch.randn(40, generator=draw, dtype=DOUBLE)
    shifted = torch.eye(40, dtype=DOUBLE) - matrix
    for steps in (4, 12, 40):
        space = extend(begin(right[None]), lambda v: v @ matrix.T, steps)
        mine, left = solve_shifted(space, right.norm()[None])
        theirs, _ = scipy.sparse.linalg.gmres(
            shifted.numpy(), right.numpy(), restart=steps, maxiter=1, rtol=1e-14
        )
        np.testing.assert_allclose(mine[0], theirs, atol=1e-8)
        seen = (right - shifted @ mine[0]).norm() / right.norm()
        assert float(left) == pytest.approx(float(seen), abs=1e-8)
        least, direction = smallest_stretch(space)
        truth = float(torch.linalg.svdvals(shifted)[-1])
        assert float(least) >= truth - 1e-8
        assert float((shifted @ direction[0]).norm()) == pytest.approx(float(least), abs=1e-8)
    assert float(least) == pytest.approx(truth, abs=1e-8)


def test_rows_are_systems_of_their_own():
    powers = torch.tensor([[0.5], [2.0], [-3.0]], dtype=DOUBLE)

    class Lines(StateMap):
        def __init__(self, slopes):
            self.slopes = slopes
            super().__init__(lambda s: slopes * (s - 2) + 2, (1,), dtype=DOUBLE)

        def rows(self, chosen):
            return Lines(self.slopes[chosen])

        def each(self, times):
            return Lines(self.slopes.repeat_interleave(times, 0))

    for method in ("newton", "auto"):
        found = solve(Lines(powers), torch.zeros(3, 1, dtype=DOUBLE), method=method)
        assert found.verdict.verified.all()
        np.testing.assert_allclose(found.best.state, 2, atol=1e-12)
    starts = torch.randn(6, 40, generator=torch.Generator().manual_seed(4), dtype=DOUBLE)
    map_ = StateMap.of(network(2.5, 40), starts[0])
    together = solve(map_, starts, method="newton", max_iterations=4)  # on its way: chaotic
    for row, start in enumerate(starts):
        alone = solve(map_, start[None], method="newton", max_iterations=4)
        assert alone.best.iterations == together.best.iterations[row]
        np.testing.assert_allclose(alone.best.state[0], together.best.state[row], rtol=1e-8)
    iterated = solve(Lines(powers), torch.zeros(3, 1, dtype=DOUBLE), method="iteration")
    assert iterated.verdict.verified.tolist() == [True, False, False]


def test_all_points_of_a_double_well_and_their_basins():
    map_ = StateMap.of(lambda s: s + 0.3 * (s - s**3), torch.zeros(1, dtype=DOUBLE))
    given = torch.tensor([[[0.4], [0.1]]], dtype=DOUBLE)
    drawn = torch.linspace(-1.5, 1.5, 9, dtype=DOUBLE).reshape(1, 9, 1) + 0.01
    found = search(map_, given, drawn)[0]
    np.testing.assert_allclose(found.states[:, 0], [0, 1, -1], atol=1e-10)  # from 0.4 outwards
    np.testing.assert_allclose(found.eigenvalue, [1.3, 0.4, 0.4], atol=1e-6)
    assert found.basin == [0, 5, 4]
    assert found.arrives == [1]
    assert not found.degenerate


def test_the_point_under_an_orbit_is_found_from_the_mean_of_the_motion():
    turn = 2 * np.pi / 17

    def spiral(s):  # leaves 0 and comes to the unit circle, turning by 2 pi / 17
        x, y = s - 3.0
        grown = 1 + 0.2 * (1 - x**2 - y**2)
        c, d = np.cos(turn), np.sin(turn)
        return grown * torch.stack([c * x - d * y, d * x + c * y]) + 3.0

    map_ = StateMap.of(spiral, torch.ones(2, dtype=DOUBLE))
    found = search(map_, torch.tensor([[[4.0, 3.0]]], dtype=DOUBLE), method="iteration")[0]
    np.testing.assert_allclose(found.states, [[3, 3]], atol=1e-10)
    assert found.radius[0] == pytest.approx(1.2)
    assert 2 * np.pi / np.angle(found.eigenvalue[0]) == pytest.approx(17)
    assert found.arrives == []


def test_points_out_of_reach_are_counted_and_not_kept():
    map_ = StateMap.of(lambda s: 2 * s - 100, torch.zeros(1, dtype=DOUBLE))
    found = search(map_, torch.ones(1, 1, 1, dtype=DOUBLE), reach=torch.tensor([10.0]))[0]
    assert len(found.states) == 0
    assert found.outside == 1


def test_refusals():
    start = torch.ones(1)
    with pytest.raises(InputError, match="'anderson', 'newton'; got 'bisection'"):
        fixed_point(torch.cos, start, method="bisection")
    with pytest.raises(InputError, match="above 0 and be at most 1"):
        fixed_point(torch.cos, start, damping=0)
    with pytest.raises(InputError, match="not finite"):
        fixed_point(torch.cos, torch.tensor([torch.nan]))
    with pytest.raises(InputError, match="max_iterations"):
        fixed_point(torch.cos, start, max_iterations=0)
    found = fixed_point(lambda s: s / 0, start)
    assert not found.verified
