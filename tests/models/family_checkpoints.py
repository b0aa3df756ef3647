"""Random checkpoints in published layouts, of any size."""

import json

import torch
from safetensors.torch import save_file

RAVEN = {
    "model_type": "huginn_raven",
    "architectures": ["RavenForCausalLM"],
    "n_embd": 24,
    "n_heads": 3,
    "num_key_value_heads": 3,
    "head_dim": 10,  # times three heads is more than n_embd
    "intermediate_size": 36,
    "n_layers_in_prelude": 1,
    "n_layers_in_recurrent_block": 2,
    "n_layers_in_coda": 1,
    "mean_recurrence": 5,
    "padded_vocab_size": 20,
    "vocab_size": 17,
    "block_size": 32,
    "rope_base": 300.0,
    "norm_eps": 1e-2,
    "qk_bias": True,
    "tie_embeddings": False,
    "injection_type": "linear",
    "state_init": "like-init",
    "block_class_name": "SandwichBlock",
    "mlp_class_name": "GatedMLP",
    "nonlin_name": "SiLU",
    "bias": False,
    "init_values": {"std": 0.1, "embed_scale": 24**0.5},
}
OURO = {
    "model_type": "ouro",
    "hidden_size": 24,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "intermediate_size": 36,
    "num_hidden_layers": 2,
    "vocab_size": 20,
    "rms_norm_eps": 1e-2,
    "rope_theta": 700.0,
    "max_position_embeddings": 32,
    "total_ut_steps": 3,
    "tie_word_embeddings": False,
    "hidden_act": "silu",
}


def _draw(shapes, seed):
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, shape in shapes.items():
        noise = torch.randn(shape, generator=generator)
        is_norm = len(shape) == 1 and not name.endswith("bias")
        tensors[name] = 1 + 0.2 * noise if is_norm else noise / shape[-1] ** 0.5
    return tensors


def raven_tensors(config, *, kind="huginn", seed=0):
    """Tensors of Huginn, or of a retrofit (``llama``, ``olmo2``)."""
    d, hd = config["n_embd"], config["head_dim"]
    heads, groups = config["n_heads"], config["num_key_value_heads"]
    inner, vocabulary = config["intermediate_size"], config["padded_vocab_size"]
    shapes = {
        "transformer.wte.weight": (vocabulary, d),
        "transformer.adapter.weight": (d, 2 * d),
        "transformer.ln_f.weight": (d,),
        "lm_head.weight": (vocabulary, d),
    }
    for part in ("prelude", "recurrent_block", "coda"):
        stored = "core_block" if part == "recurrent_block" else part
        for i in range(config[f"n_layers_in_{part}"]):
            name = f"transformer.{stored}.{i}"
            shapes |= {
                f"{name}.attn.Wqkv.weight": ((heads + 2 * groups) * hd, d),
                f"{name}.attn.proj.weight": (d, heads * hd),
                f"{name}.mlp.fc.weight": (2 * inner, d),
                f"{name}.mlp.proj.weight": (d, inner),
            }
            norms = (1, 2, 3, 4) if kind == "huginn" else (1, 2)
            shapes |= {f"{name}.norm_{n}.weight": (d,) for n in norms}
            if kind == "huginn":
                shapes[f"{name}.attn.qk_bias"] = (2, 1, heads, hd)
            if kind == "olmo2":
                shapes[f"{name}.attn.q_norm.weight"] = (heads * hd,)
                shapes[f"{name}.attn.k_norm.weight"] = (groups * hd,)
    return _draw(shapes, seed)


def ouro_tensors(config, *, seed=0):
    """Tensors of Ouro."""
    d, hd, inner = config["hidden_size"], config["head_dim"], config["intermediate_size"]
    heads, groups = config["num_attention_heads"], config["num_key_value_heads"]
    shapes = {
        "model.embed_tokens.weight": (config["vocab_size"], d),
        "model.norm.weight": (d,),
        "model.early_exit_gate.weight": (1, d),
        "model.early_exit_gate.bias": (1,),
        "lm_head.weight": (config["vocab_size"], d),
    }
    for i in range(config["num_hidden_layers"]):
        name = f"model.layers.{i}"
        shapes |= {
            f"{name}.self_attn.q_proj.weight": (heads * hd, d),
            f"{name}.self_attn.k_proj.weight": (groups * hd, d),
            f"{name}.self_attn.v_proj.weight": (groups * hd, d),
            f"{name}.self_attn.o_proj.weight": (d, heads * hd),
            f"{name}.mlp.gate_proj.weight": (inner, d),
            f"{name}.mlp.up_proj.weight": (inner, d),
            f"{name}.mlp.down_proj.weight": (d, inner),
        }
        for norm in ("input_layernorm", "post_attention_layernorm"):
            shapes |= {f"{name}.{norm}.weight": (d,), f"{name}.{norm}_2.weight": (d,)}
    return _draw(shapes, seed)


def write(directory, config, tensors, *, shards=1):
    """Write a checkpoint directory, whole or in shards with an index."""
    directory.mkdir(exist_ok=True)
    (directory / "config.json").write_text(json.dumps(config))
    if shards == 1:
        save_file(tensors, directory / "model.safetensors")
        return directory
    names = list(tensors)
    where = {}
    for i in range(shards):
        file = f"model-{i + 1:05d}-of-{shards:05d}.safetensors"
        part = {name: tensors[name] for name in names[i::shards]}
        save_file(part, directory / file)
        where |= dict.fromkeys(part, file)
    index = {"metadata": {"total_size": 0}, "weight_map": where}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))
    return directory
