"""Ouro's published class in small: its module names, call and loop, from the parts of a Llama.

The published code comes with the checkpoints and is not installed. This has the same paths, reads
the number of steps from the same attribute, and returns the last step only.
"""

from types import SimpleNamespace

import torch
from torch import nn
from transformers import LlamaConfig
from transformers.models.llama import modeling_llama as llama


class Layer(nn.Module):
    def __init__(self, config, index):
        super().__init__()
        self.self_attn = llama.LlamaAttention(config, index)
        self.mlp = llama.LlamaMLP(config)
        for name in ("input_layernorm", "post_attention_layernorm"):
            for end in ("", "_2"):
                norm = llama.LlamaRMSNorm(config.hidden_size, config.rms_norm_eps)
                setattr(self, name + end, norm)

    def forward(self, hidden_states, attention_mask, position_embeddings):
        x = self.input_layernorm(hidden_states)
        x, _ = self.self_attn(
            hidden_states=x, position_embeddings=position_embeddings, attention_mask=attention_mask
        )
        hidden_states = hidden_states + self.input_layernorm_2(x)
        x = self.mlp(self.post_attention_layernorm(hidden_states))
        return hidden_states + self.post_attention_layernorm_2(x)


class Model(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        self.total_ut_steps = config.total_ut_steps
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Layer(config, i) for i in range(config.num_hidden_layers))
        self.norm = llama.LlamaRMSNorm(config.hidden_size, config.rms_norm_eps)
        self.rotary_emb = llama.LlamaRotaryEmbedding(config)
        self.early_exit_gate = nn.Linear(config.hidden_size, 1)

    def forward(self, input_ids):
        h = self.embed_tokens(input_ids)
        pos = input_ids.shape[1]
        rope = self.rotary_emb(h, torch.arange(pos, device=h.device)[None])
        mask = torch.full((pos, pos), torch.finfo(h.dtype).min, device=h.device).triu(1)
        for _ in range(self.total_ut_steps):
            for layer in self.layers:
                h = layer(h, attention_mask=mask[None, None], position_embeddings=rope)
            h = self.norm(h)
        return h


class OuroForCausalLM(nn.Module):
    def __init__(self, values):
        super().__init__()
        self.config = LlamaConfig(**{k: v for k, v in values.items() if k != "model_type"})
        self.config.model_type = "ouro"
        self.config._attn_implementation = "eager"
        self.model = Model(self.config)
        self.lm_head = nn.Linear(self.config.hidden_size, self.config.vocab_size, bias=False)

    def forward(self, input_ids, use_cache=False, **_):
        return SimpleNamespace(logits=self.lm_head(self.model(input_ids)))
