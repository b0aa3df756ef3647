"""Loops whose answer to a push is known in closed form, as modules for the wrapper."""

import torch
from torch import nn

from looplens.loops import Loop, LoopSpec
from looplens.models.wrapping import wrap

D, VOCAB = 4, 6


class Cell(nn.Module):
    """One pass: h <- f(h) + b h of the position before + input."""

    def __init__(self, function, b):
        super().__init__()
        self.function, self.b = function, b

    def forward(self, h, x):
        before = torch.cat([torch.zeros_like(h[:, :1]), h[:, :-1]], dim=1)
        return self.function(h) + self.b * before + x


class Chain(nn.Module):
    """A causal loop in which a position sees itself and the one before it."""

    def __init__(self, function, *, b, feed, steps):
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(VOCAB, D)
        self.cell = Cell(function, b)
        self.head = nn.Linear(D, VOCAB, bias=False)
        self.feed, self.steps = feed, steps

    def forward(self, ids):
        x = self.feed * self.embed(ids)
        h = self.embed(ids)
        for _ in range(self.steps):
            h = self.cell(h, x)
        return self.head(h)


def chain(function, *, b=0.0, feed=0.0, steps=60):
    """Return the loop, wrapped: every part of it is exact, and a row is its own."""
    spec = LoopSpec(loop=Loop("step", steps), layers=["cell"], iterations="steps", readout="head")
    return wrap(Chain(function, b=b, feed=feed, steps=steps).double(), loop=spec, d_model=D)
