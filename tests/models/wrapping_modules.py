"""Looped modules as other people write them, for the tests of the wrapper."""

import torch
from torch import nn

D, VOCAB = 16, 12


class Layer(nn.Module):
    """A residual layer over the whole sequence, causal, contracting; optionally as a tuple."""

    def __init__(self, seed: int, *, as_tuple: bool = False):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.mix = nn.Linear(D, D)
        self.mix.bias.data = torch.randn(D, generator=generator)
        self.mix.weight.data = torch.randn(D, D, generator=generator) / D**0.5
        self.as_tuple = as_tuple

    def forward(self, hidden_states, scale=1.0):
        before = hidden_states.cumsum(1) / torch.arange(1, hidden_states.shape[1] + 1)[:, None]
        hidden_states = 0.5 * hidden_states + 0.4 * scale * torch.tanh(self.mix(before))
        return (hidden_states, None) if self.as_tuple else hidden_states


class Looped(nn.Module):
    """embedding -> (two layers) x steps -> head; the loop is written out in forward."""

    def __init__(self, *, as_tuple=False, keyword=False, without_grad=False, tolerance=0.0):
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(VOCAB, D)
        self.layers = nn.ModuleList(Layer(seed, as_tuple=as_tuple) for seed in (1, 2))
        self.head = nn.Linear(D, VOCAB, bias=False)
        self.steps = 6
        self.keyword, self.without_grad, self.tolerance = keyword, without_grad, tolerance

    def forward(self, ids, steps=None, start=None):
        h = self.embed(ids) if start is None else start
        for _ in range(steps or self.steps):
            before = h
            with torch.set_grad_enabled(not self.without_grad and torch.is_grad_enabled()):
                for layer in self.layers:
                    out = layer(scale=0.5, hidden_states=h) if self.keyword else layer(h)
                    h = out[0] if isinstance(out, tuple) else out
            if (h - before).norm() < self.tolerance * before.norm():
                break
        return self.head(h)

    def by_hand(self, ids, steps, start=None):
        """The same mathematics, keeping everything."""
        h = self.embed(ids) if start is None else start
        states, layers = [h], []
        for _ in range(steps):
            row = []
            for layer in self.layers:
                out = layer(h, 0.5 if self.keyword else 1.0)
                h = out[0] if isinstance(out, tuple) else out
                row.append(h)
            layers.append(torch.stack(row))
            states.append(h)
        states = torch.stack(states)
        return states, torch.stack(layers), self.head(states[1:])


class TwoStates(nn.Module):
    """One network for a fast and a slow state, as in the Tiny Recursive Model."""

    def __init__(self, outer=3, high=2, low=3):
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(VOCAB, D)
        self.net = nn.Sequential(Layer(3), Layer(4))
        self.head = nn.Linear(D, VOCAB)
        self.high_start = nn.Parameter(torch.randn(D))
        self.low_start = nn.Parameter(torch.randn(D))
        self.outer, self.high, self.low = outer, high, low

    def forward(self, ids):
        x = self.embed(ids)
        z_high, z_low = self.high_start.expand_as(x), self.low_start.expand_as(x)
        self.seen = []
        for _ in range(self.outer):
            for _ in range(self.high):
                for _ in range(self.low):
                    z_low = self.net(z_low + z_high + x)
                    self.seen.append(("low", z_low))
                z_high = self.net(z_high + z_low)
                self.seen.append(("high", z_high))
        return {"logits": self.head(z_high), "z": z_low}
