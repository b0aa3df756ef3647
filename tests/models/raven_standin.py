"""Huginn's published class in small: its module names, call and loop, written from its formulas.

The published code comes with the checkpoints and is not installed. This takes ``num_steps`` and
``input_states``, draws its own noise without the latter, and returns the last step only.
"""

from types import SimpleNamespace

import torch
from torch import nn


class Attention(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.heads, self.d_head = c.n_heads, c.n_embd // c.n_heads
        self.Wqkv = nn.Linear(c.n_embd, 3 * c.n_embd, bias=False)
        self.qk_bias = nn.Parameter(torch.zeros(2, 1, self.heads, self.d_head))
        self.proj = nn.Linear(c.n_embd, c.n_embd, bias=False)

    def forward(self, x, freqs_cis):
        batch, pos, _ = x.shape
        q, k, v = self.Wqkv(x).view(batch, pos, 3, self.heads, self.d_head).unbind(2)
        q, k = (
            self.rotate(q + self.qk_bias[0], freqs_cis),
            self.rotate(k + self.qk_bias[1], freqs_cis),
        )
        scores = torch.einsum("bqhd,bkhd->bhqk", q, k) / self.d_head**0.5
        future = torch.ones(pos, pos, dtype=torch.bool).triu(1)
        pattern = scores.masked_fill(future, -torch.inf).softmax(-1)
        return self.proj(torch.einsum("bhqk,bkhd->bqhd", pattern, v).reshape(batch, pos, -1))

    @staticmethod
    def rotate(x, freqs_cis):
        a, b = x.unflatten(-1, (-1, 2)).unbind(-1)
        cos, sin = freqs_cis.unbind(-1)
        return torch.stack((a * cos - b * sin, b * cos + a * sin), -1).flatten(-2)


class MLP(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.fc = nn.Linear(c.n_embd, 2 * c.intermediate_size, bias=False)
        self.proj = nn.Linear(c.intermediate_size, c.n_embd, bias=False)

    def forward(self, x):
        gate, value = self.fc(x).chunk(2, -1)
        return self.proj(nn.functional.silu(gate) * value)


class SandwichBlock(nn.Module):
    def __init__(self, c):
        super().__init__()
        for n in range(1, 5):
            setattr(self, f"norm_{n}", nn.RMSNorm(c.n_embd, c.norm_eps))
        self.attn, self.mlp = Attention(c), MLP(c)

    def forward(self, x, freqs_cis):
        x = self.norm_2(self.attn(self.norm_1(x), freqs_cis) + x)
        return self.norm_4(self.mlp(self.norm_3(x)) + x)


class RavenForCausalLM(nn.Module):
    def __init__(self, values):
        super().__init__()
        c = self.config = SimpleNamespace(**values)
        blocks = {
            "prelude": c.n_layers_in_prelude,
            "core_block": c.n_layers_in_recurrent_block,
            "coda": c.n_layers_in_coda,
        }
        self.transformer = nn.ModuleDict(
            {
                "wte": nn.Embedding(c.padded_vocab_size, c.n_embd),
                "adapter": nn.Linear(2 * c.n_embd, c.n_embd, bias=False),
                "ln_f": nn.RMSNorm(c.n_embd, c.norm_eps),
                **{k: nn.ModuleList(SandwichBlock(c) for _ in range(n)) for k, n in blocks.items()},
            }
        )
        self.lm_head = nn.Linear(c.n_embd, c.padded_vocab_size, bias=False)
        d_head = c.n_embd // c.n_heads
        self.register_buffer("freqs_cis", torch.zeros(1, c.block_size, 1, d_head // 2, 2))

    def run(self, name, x):
        for block in self.transformer[name]:
            x = block(x, freqs_cis=self.freqs_cis[:, : x.shape[1]])
        return x

    def predict_from_latents(self, latents):
        x = self.run("coda", self.transformer.ln_f(latents))
        return SimpleNamespace(logits=self.lm_head(self.transformer.ln_f(x)).float())

    def forward(self, input_ids, input_states=None, num_steps=None, use_cache=False, **_):
        c = self.config
        e = self.run("prelude", c.n_embd**0.5 * self.transformer.wte(input_ids))
        x = torch.randn_like(e) if input_states is None else input_states
        for _ in range(num_steps or c.mean_recurrence):
            x = self.run("core_block", self.transformer.adapter(torch.cat((x, e), -1)))
        return self.predict_from_latents(x)
