"""Where runs from a slice of initial states end: known maps, and a model with wells."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from looplens.dynamics import basin_map, landscape
from looplens.dynamics.maps.state_map import StateMap
from looplens.dynamics.planes.ends import (
    AT_REST,
    FIXED_POINT,
    FURTHER,
    NOT_FINITE,
    ORBIT,
    SLIDER,
    Ends,
)
from looplens.dynamics.planes.running import run_rows
from looplens.dynamics.planes.slices import Slice
from looplens.loops import Loop, LoopSpec
from looplens.models.wrapping import wrap


def cubic(s):
    """Wells at -1 and 1 of multiplier 0, and an unstable point of multiplier 1.5 between them."""
    return torch.cat([1.5 * s[:1] - 0.5 * s[:1] ** 3, 0.5 * s[1:]])


def test_ends_are_told_apart():
    def run(f, starts, iterations=96, **options):
        x = torch.tensor(starts, dtype=torch.float64)
        given = Slice(StateMap.of(f, x[0]))
        found = Ends(given=given, source_dtype="float64", **options)
        paths, steps = run_rows(given, x, iterations)
        assert steps <= len(x) * iterations
        return found, found.of(paths)

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
