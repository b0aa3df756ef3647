"""The Tiny Recursive Model in small, written from its formulas: one network, two states, 3 loops.

``ids`` begin with as many placeholders as there are puzzle positions, so that a state has a row of
its own for each of them.
"""

import torch
from torch import nn
from torch.nn import functional as F


class Layer(nn.Module):
    def __init__(self, d, heads, m, eps):
        super().__init__()
        self.self_attn = nn.ModuleDict(
            {"qkv_proj": nn.Linear(d, 3 * d, bias=False), "o_proj": nn.Linear(d, d, bias=False)}
        )
        self.mlp = nn.ModuleDict(
            {
                "gate_up_proj": nn.Linear(d, 2 * m, bias=False),
                "down_proj": nn.Linear(m, d, bias=False),
            }
        )
        self.heads, self.eps = heads, eps

    def norm(self, x):
        return F.rms_norm(x, x.shape[-1:], eps=self.eps)

    def forward(self, z):
        batch, pos, d = z.shape
        q, k, v = self.self_attn["qkv_proj"](z).view(batch, pos, 3, self.heads, -1).unbind(2)
        angle = torch.arange(pos)[:, None] / 10000 ** (
            torch.arange(0, q.shape[-1], 2) / q.shape[-1]
        )
        cos, sin = (f(angle)[:, None].repeat(1, 1, 2) for f in (torch.cos, torch.sin))

        def rotate(x):
            a, b = x.chunk(2, -1)
            return x * cos + torch.cat((-b, a), -1) * sin

        q, k, v = (x.transpose(1, 2) for x in (rotate(q), rotate(k), v))
        out = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, pos, d)
        z = self.norm(z + self.self_attn["o_proj"](out))
        gate, up = self.mlp["gate_up_proj"](z).chunk(2, -1)
        return self.norm(z + self.mlp["down_proj"](F.silu(gate) * up))


class TinyRecursiveModel(nn.Module):
    def __init__(self, c, weights, steps, puzzles):
        super().__init__()
        d, self.c, self.steps, self.puzzles = c["hidden_size"], c, steps, puzzles
        m = weights["inner.L_level.layers.0.mlp.down_proj.weight"].shape[1]
        eps = c["rms_norm_eps"]
        self.net = nn.Sequential(*(Layer(d, c["num_heads"], m, eps) for _ in range(c["L_layers"])))
        prefix = "inner.L_level.layers."
        self.net.load_state_dict(
            {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}
        )
        self.embed = nn.Embedding.from_pretrained(weights["inner.embed_tokens.embedding_weight"])
        self.puzzle = weights["inner.puzzle_emb.weights"]
        self.head = nn.Linear(d, c["vocab_size"], bias=False)
        self.head.load_state_dict({"weight": weights["inner.lm_head.weight"]})
        self.high_start, self.low_start = weights["inner.H_init"], weights["inner.L_init"]

    def forward(self, ids):
        first = self.c["puzzle_emb_len"]
        x = self.embed(ids).clone()
        x[:, :first] = 0
        x[:, 0] = self.puzzle[self.puzzles[: len(ids)]]
        x = x * x.shape[-1] ** 0.5
        high, low = self.high_start.expand_as(x), self.low_start.expand_as(x)
        for _ in range(self.steps):
            for _ in range(self.c["H_cycles"]):
                for _ in range(self.c["L_cycles"]):
                    low = self.net(low + high + x)
                high = self.net(high + low)
        return self.head(high)
