"""When a state may be called a fixed point: known systems that fool a small residual."""

import numpy as np
import pytest
import torch

from looplens.dynamics import fixed_point
from looplens.dynamics.maps.state_map import StateMap
from looplens.dynamics.solving.verifying import least_stretch

DOUBLE = torch.float64
DRIFTS = {
    "a drift that outgrows its step": (lambda s: s + 0.1, [0.0]),
    "a drift below rounding": (lambda s: s + 1e-7, [100.0]),
    "past a fold": (lambda s: s + (s - 1) ** 2 + 1e-9, [0.5]),
    "a line of points": (lambda s: s * torch.tensor([1.0, 0.5]), [1.0, 1.0]),
    "a circle of points": (lambda s: s / s.norm().sqrt(), [1.0, 2.0]),
    "a state that grows": (
        lambda s: s + torch.nn.functional.layer_norm(s.roll(1), (3,)),
        [1.0, 2.0, -0.5],
    ),
}


@pytest.mark.parametrize("name", DRIFTS)
def test_what_rounding_hides_is_no_fixed_point(name):
    f, start = DRIFTS[name]
    found = fixed_point(f, torch.tensor(start))
    assert not found.verified
    assert found.point is None
    assert np.isnan(np.asarray(found)).all()
    if found.degenerate:  # the growing state ends there or stays above, as rounding has it
        assert "a line of them, a fold, or a drift below rounding" in found.message
    assert found.degenerate or name == "a state that grows"


def test_a_drift_in_double_precision_is_seen_as_one():
    found = fixed_point(lambda s: s + 1e-7, torch.tensor([100.0], dtype=DOUBLE))
    assert not found.degenerate
    assert "best residual 1.0e-07" in found.message


@pytest.mark.parametrize("radius", [0.9, 1.3])
def test_a_line_of_points_is_seen_among_many_dimensions(radius):
    draw = torch.Generator().manual_seed(2)
    n = 400  # at 1.3 the eigenvalue 1 lies inside of the spectrum: no Krylov space begins there
    matrix = radius * torch.randn(n, n, generator=draw, dtype=DOUBLE) / n**0.5
    line = torch.randn(n, generator=draw, dtype=DOUBLE)
    line /= line.norm()
    matrix += torch.outer(line - matrix @ line, line)
    found = fixed_point(lambda s: matrix @ s, line)
    assert found.residual <= found.tolerance
    assert not found.verified
    assert found.degenerate
    assert found.error > 0.1


def test_the_smallest_stretch_is_near_or_said_to_be_unknown():
    draw = torch.Generator().manual_seed(3)
    n, known = 300, 0  # more than the products that are allowed
    square = torch.randn(n, n, generator=draw, dtype=DOUBLE) / n**0.5
    turned = torch.linalg.qr(square)[0]
    cases = {
        "random": 0.9 * square,
        "random, up to the circle": 0.97 * square,
        "far beyond the circle": 3 * square,
        "normal": turned * torch.linspace(-0.9, 0.99, n, dtype=DOUBLE) @ turned.T,
        "far from normal": 1.5 * square.triu(1),
        "orthogonal": turned,
    }
    for name, matrix in cases.items():
        map_ = StateMap.of(lambda s, m=matrix: m @ s, torch.zeros(n, dtype=DOUBLE))
        least, direction, is_known = least_stretch(map_, torch.zeros(1, n, dtype=DOUBLE))
        shifted = torch.eye(n, dtype=DOUBLE) - matrix
        truth = float(torch.linalg.svdvals(shifted)[-1])
        assert float(least) >= truth - 1e-10, name
        assert float((shifted @ direction[0]).norm()) == pytest.approx(float(least), abs=1e-9)
        assert not is_known or float(least) <= 5 * truth + 1e-9, name
        known += int(is_known)
    assert known == 4  # not beyond the circle, nor on it


@pytest.mark.parametrize("scale", [1e-30, 1e25])
def test_squares_that_leave_float32_hide_nothing(scale):
    found = fixed_point(lambda s: scale * torch.cos(s / scale), torch.full((3,), scale))
    assert found.verified
    np.testing.assert_allclose(found.state / scale, 0.7390851, rtol=1e-5)
    drift = fixed_point(lambda s: s + scale / 10, torch.full((3,), scale), max_iterations=5)
    assert not drift.verified


def test_the_error_holds_the_truth():
    draw = torch.Generator().manual_seed(1)
    for nearest in (0.5, 0.1, 1e-2, 1e-3, 1e-5, 1e-8):  # of I - J to zero
        q = torch.linalg.qr(torch.randn(20, 20, generator=draw, dtype=DOUBLE))[0]
        values = torch.linspace(-0.8, 0.8, 20, dtype=DOUBLE)
        values[3] = 1 - nearest
        matrix, truth = q * values @ q.T, torch.randn(20, generator=draw, dtype=DOUBLE)
        shift = (truth - matrix @ truth).float()
        single = matrix.float()
        found = fixed_point(lambda s, m=single, b=shift: m @ s + b, torch.zeros(20))
        if found.verified:
            assert (found.state.double() - truth).norm() <= found.error
        assert found.verified == (nearest > 5e-4)
        assert found.verified or found.degenerate
