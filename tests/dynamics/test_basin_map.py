"""Where runs from a slice of initial states end: known maps, and a model with wells."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import looplens as ll
from looplens.dynamics import basin_map, landscape
from looplens.dynamics.maps.recorded import recorded
from looplens.dynamics.maps.state_map import StateMap
from looplens.dynamics.planes.ends import FURTHER, NOT_FINITE, SLIDER, UNRESOLVED, Ends
from looplens.dynamics.planes.places import AT_REST, FIXED_POINT, ORBIT, OnOrbit
from looplens.dynamics.planes.running import driven, moving, run_rows
from looplens.dynamics.planes.slices import Slice, slice_of
from looplens.loops import Loop, LoopSpec
from looplens.models.wrapping import wrap


def cubic(s):
    """Wells at -1 and 1 of multiplier 0, and an unstable point of multiplier 1.5 between them."""
    return torch.cat([1.5 * s[:1] - 0.5 * s[:1] ** 3, 0.5 * s[1:]])


def run(f, starts, iterations=96, dtype=torch.float64, **options):
    x = torch.tensor(starts, dtype=dtype)
    given = Slice(StateMap.of(f, x[0]))
    found = Ends(given=given, **options)
    paths, steps = run_rows(given, x, iterations)
    assert steps <= len(x) * iterations
    return found, found.of(paths)


def test_ends_are_told_apart():
    starts = [[0.4, 1.0], [-0.4, 1.0], [1.6, 0.0], [-0.01, 3.0], [1e3, 0.0]]
    found, told = run(cubic, starts)
    assert told.end.tolist() == [0, 1, 0, 1, NOT_FINITE]
    assert [place.kind for place in found.found] == [FIXED_POINT] * 2
    assert told.arrival[3] > told.arrival[1] > 0
    np.testing.assert_allclose([place.radius for place in found.found], 0.5, atol=1e-6)

    def logistic(s):  # period 2 at this parameter
        return torch.cat([3.2 * s[:1] * (1 - s[:1]), 0.3 * s[1:]])

    found, told = run(logistic, [[0.3, 1.0], [0.45, -1.0], [0.7, 0.0], [0.2, 0.5]], 200)
    assert told.end.tolist() == [0] * 4
    assert found.found[0].kind == ORBIT
    assert found.found[0].period == pytest.approx(2, abs=0.01)
    assert told.phase[0] == 0
    assert set(told.phase) == {0.0, 1.0}
    _, told = run(lambda s: s + torch.tensor([0.1, 0.0], dtype=torch.float64), [[0.0, 1.0]])
    assert told.end.tolist() == [SLIDER]
    # A line of fixed points proves none, and more places than there is room for have no number.
    lines = torch.tensor([1.0, 0.5], dtype=torch.float64)
    found, told = run(lambda s: lines * s, [[1.0, 1.0], [2.0, 1.0], [3.0, 0.0]], most=2)
    assert told.end.tolist() == [0, 1, FURTHER]
    assert {place.kind for place in found.found} == {AT_REST}


def test_scale_does_not_count():
    """Squares of large and small numbers leave the range of float32, and zero has no norm."""
    starts = [[1.0, 2.0], [-3.0, 0.5], [2.0, -1.0]]
    for scale in (1.0, 1e-15):
        small = [[scale * number for number in start] for start in starts]
        middle = scale * torch.tensor([1.0, -1.0])
        found, told = run(lambda s, m=middle: m + 0.5 * (s - m), small, dtype=torch.float32)
        assert told.end.tolist() == [0] * 3
        assert found.found[0].kind == FIXED_POINT
    # Halved ten times, a distance of 1 is below 0.1 % of the norm, and not before.
    _, told = run(lambda s: 1 + 0.5 * (s - 1), [[2.0], [1.0], [1.5]])
    assert told.arrival.tolist() == [10, 0, 9]
    # Towards zero the way that is left is no other place, however small the norm is by then.
    found, told = run(lambda s: 0.3 * s, starts, 200, dtype=torch.float32)
    assert told.end.tolist() == [0] * 3
    _, told = run(lambda s: 3 * s, [[1e12, 0.0], [1.0, 2.0]], dtype=torch.float32)
    assert told.end.tolist() == [NOT_FINITE] * 2
    moved = torch.tensor([1e6, 2e6], dtype=torch.float64)
    found, told = run(lambda s: moved + 0.5 * (s - moved), [[1e6, 0.0], [0.0, 3e6]])
    assert told.end.tolist() == [0, 0]


def test_an_orbit_is_one_at_all_of_its_phases():
    """Sampled coarsely, between its states there is more of the orbit and not another one."""

    def circles(s, period):
        """Two circles that attract, of radius 1 and 3."""
        radius = s.norm()
        angle = torch.tensor(2 * np.pi / period, dtype=s.dtype)
        turn = torch.stack(
            [torch.stack([angle.cos(), -angle.sin()]), torch.stack([angle.sin(), angle.cos()])]
        )
        pull = -0.05 * (radius - 1) * (radius - 2) * (radius - 3)
        return (1 + pull / radius) * (turn @ s)

    rng = np.random.default_rng(0)
    angles = rng.uniform(0, 2 * np.pi, 12)
    radii = np.where(np.arange(12) % 2, 1.2, 2.7)
    starts = (radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], 1)).tolist()
    for period in (11.5, 42.97):
        found, told = run(lambda s, p=period: circles(s, p), starts, 400)
        assert told.end.tolist() == [0, 1] * 6
        assert [place.kind for place in found.found] == [ORBIT] * 2
        np.testing.assert_allclose([place.period for place in found.found], period, atol=0.5)
    # A cycle of two states is only these: every line through the centre has its own.
    found, told = run(lambda s: circles(s, 2.0), starts[:4], 400)
    assert told.end.tolist() == [0, 1, 2, 3]
    # What still winds in has no end of its own.
    time = np.arange(256)
    winding = (1 + 2 * 0.99**time)[:, None] * np.stack(
        [np.cos(0.25 * time), np.sin(0.25 * time)], axis=1
    )
    given = Slice(StateMap.of(lambda s: s, torch.zeros(2)))
    ending = OnOrbit(given, winding[None], 1e-3, np.array([8 * np.pi]))
    assert not ending.there[0]
    assert Ends(given=given)._numbers(ending).tolist() == [UNRESOLVED]


def test_driven_by_its_context_a_token_goes_as_in_the_sequence():
    model = ll.load_model("phop-huginn-mini")
    rec = recorded(model, [5, 10, 9, 8, 8, 9])
    first, contexts = moving(rec, 12)
    assert first == 0
    starts = 3 * torch.randn(3, rec.states.shape[-1], generator=torch.Generator().manual_seed(0))
    alone = slice_of(rec.step, contexts[-1], 4, "token")
    whole = slice_of(rec.step, contexts[0], 4, "sequence")
    one, _ = run_rows(alone, alone.rows(starts), 12, driven(rec, contexts, 4))
    other, _ = run_rows(whole, whole.rows(starts), 12)
    for iteration in (1, 6, 12):
        torch.testing.assert_close(
            one[:, iteration], whole.states(other[:, iteration]), atol=2e-3, rtol=1e-3
        )


class Mixing(nn.Module):
    """Every position sees all others; the first dimension has two wells, the others none."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(5, 4)
        self.gain = nn.Parameter(torch.tensor([2.0, 0.4, 0.4, 0.4]))
        self.cell = MixingCell()
        self.head = nn.Linear(4, 5, bias=False)
        self.steps = 24

    def forward(self, ids):
        x = self.embed(ids)
        h = x
        for _ in range(self.steps):
            h = self.cell(h, x, self.gain)
        return self.head(h)


class MixingCell(nn.Module):
    def forward(self, h, x, gain):
        return torch.tanh(gain * h + 0.02 * x + 0.05 * h.mean(1, keepdim=True))


def test_wells_of_a_wrapped_model_that_is_not_causal():
    spec = LoopSpec(loop=Loop("step", 24), layers=["cell"], iterations="steps", readout="head")
    model = wrap(Mixing(), loop=spec, d_model=4)
    directions = np.eye(4)[:2]
    for scope in ("token", "sequence"):
        found = basin_map(
            model, [1, 2, 3], tokens=1, size=7, plane=directions, half=3.0, scope=scope
        )
        assert not found.attrs["causal"]
        assert found["end_kind"].values[0, :3].tolist() == ["fixed point", "fixed point", ""]
        near = found["end_state"].values[0, :2, 0]
        assert sorted(np.sign(near)) == [-1, 1]
        states = found["origin"].values[0, 0] + found["u_coordinate"].values[0]
        ends = near[found["end"].values[0]]
        assert (np.sign(ends)[:, [0, -1]] == np.sign(states[[0, -1]])).all()
    whole = landscape(model, [1, 2, 3], tokens=1, size=11, plane=directions, half=3.0)
    radii = whole["fixed_point_radius"].values[0]
    assert np.isfinite(radii).sum() >= 3
    assert (radii[np.isfinite(radii)] > 1).any()  # the saddle between the wells
