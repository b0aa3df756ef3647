"""Huginn, its retrofits, Ouro and Parcae in float64 NumPy, from stored tensors and formulas alone.

Nothing is shared with the package: tensors go by their published names.
"""

import numpy as np


def rms(x, weight, eps):
    return weight * x / np.sqrt((x**2).mean(-1, keepdims=True) + eps)


def silu(x):
    return x / (1 + np.exp(-x))


def rotary(y, frequency, adjacent):
    positions, _, width = y.shape
    angle = np.arange(positions)[:, None] * frequency
    turned = np.empty_like(y)
    for i in range(width // 2):
        a, b = (2 * i, 2 * i + 1) if adjacent else (i, i + width // 2)
        cos, sin = np.cos(angle[:, i])[:, None], np.sin(angle[:, i])[:, None]
        turned[..., a] = y[..., a] * cos - y[..., b] * sin
        turned[..., b] = y[..., b] * cos + y[..., a] * sin
    return turned


def frequencies(base, width):
    return base ** (-np.arange(0, width, 2) / width)


def causal_attention(q, k, v):
    """[pos, head, width] each; key/value heads may be fewer."""
    positions, heads, width = q.shape
    z = np.zeros((positions, heads, width))
    for head in range(heads):
        group = head // (heads // k.shape[1])
        for query in range(positions):
            scores = k[: query + 1, group] @ q[query, head] / np.sqrt(width)
            weights = np.exp(scores - scores.max())
            z[query, head] = weights / weights.sum() @ v[: query + 1, group]
    return z.reshape(positions, -1)


def run(blocks, x):
    for block in blocks:
        x = block(x)
    return x


def raven_states(config, w, ids, start, iterations, huginn=True, frequency=None):
    """States and logits of Huginn (``huginn``) or a retrofit of one sequence."""
    w = {name: np.asarray(value, dtype=np.float64) for name, value in w.items()}
    eps, heads, groups = config["norm_eps"], config["n_heads"], config["num_key_value_heads"]
    width, positions = config["head_dim"], len(ids)
    base = config["rope_base"] if huginn else config["rope_theta"]
    if frequency is None:
        frequency = frequencies(base, width)
    olmo2 = any("q_norm" in name for name in w)

    def attention(x, name):
        qkv = x @ w[f"{name}.Wqkv.weight"].T
        q, k, v = np.split(qkv, [heads * width, (heads + groups) * width], axis=-1)
        if olmo2:
            q, k = rms(q, w[f"{name}.q_norm.weight"], eps), rms(k, w[f"{name}.k_norm.weight"], eps)
        q = q.reshape(positions, heads, width)
        k, v = k.reshape(positions, groups, width), v.reshape(positions, groups, width)
        if f"{name}.qk_bias" in w:
            q, k = q + w[f"{name}.qk_bias"][0], k + w[f"{name}.qk_bias"][1]
        q, k = rotary(q, frequency, huginn), rotary(k, frequency, huginn)
        return causal_attention(q, k, v) @ w[f"{name}.proj.weight"].T

    def mlp(x, name):
        gate, value = np.split(x @ w[f"{name}.fc.weight"].T, 2, axis=-1)
        return (silu(gate) * value) @ w[f"{name}.proj.weight"].T

    def block(name):
        def norm(x, n):
            return rms(x, w[f"{name}.norm_{n}.weight"], eps)

        def apply(x):
            if huginn:
                x = norm(x + attention(norm(x, 1), f"{name}.attn"), 2)
                return norm(x + mlp(norm(x, 3), f"{name}.mlp"), 4)
            if olmo2:
                x = x + norm(attention(x, f"{name}.attn"), 1)
                return x + norm(mlp(x, f"{name}.mlp"), 2)
            x = x + attention(norm(x, 1), f"{name}.attn")
            return x + mlp(norm(x, 2), f"{name}.mlp")

        return apply

    def blocks(part, key):
        return [block(f"transformer.{part}.{i}") for i in range(config[key])]

    scale = np.sqrt(config["n_embd"]) if huginn else config["init_values"]["embed_scale"]
    injected = run(
        blocks("prelude", "n_layers_in_prelude"), scale * w["transformer.wte.weight"][ids]
    )
    states, logits = [start], []
    for _ in range(iterations):
        x = np.concatenate([states[-1], injected], -1) @ w["transformer.adapter.weight"].T
        states.append(run(blocks("core_block", "n_layers_in_recurrent_block"), x))
        y = rms(states[-1], w["transformer.ln_f.weight"], eps) if huginn else states[-1]
        y = rms(run(blocks("coda", "n_layers_in_coda"), y), w["transformer.ln_f.weight"], eps)
        logits.append(y @ w["lm_head.weight"].T)
    return np.stack(states), np.stack(logits)


def ouro_states(config, w, ids, iterations):
    """States, logits and gate logits of one sequence."""
    w = {name: np.asarray(value, dtype=np.float64) for name, value in w.items()}
    eps, heads = config["rms_norm_eps"], config["num_attention_heads"]
    groups, width = config["num_key_value_heads"], config["head_dim"]
    positions, frequency = len(ids), frequencies(config["rope_theta"], config["head_dim"])

    def layer(i):
        name = f"model.layers.{i}"

        def norm(x, kind):
            return rms(x, w[f"{name}.{kind}.weight"], eps)

        def project(x, which):
            return x @ w[f"{name}.{which}_proj.weight"].T

        def apply(x):
            y = norm(x, "input_layernorm")
            q = project(y, "self_attn.q").reshape(positions, heads, width)
            k = project(y, "self_attn.k").reshape(positions, groups, width)
            v = project(y, "self_attn.v").reshape(positions, groups, width)
            z = causal_attention(rotary(q, frequency, False), rotary(k, frequency, False), v)
            x = x + norm(project(z, "self_attn.o"), "input_layernorm_2")
            y = norm(x, "post_attention_layernorm")
            y = silu(project(y, "mlp.gate")) * project(y, "mlp.up")
            return x + norm(project(y, "mlp.down"), "post_attention_layernorm_2")

        return apply

    layers = [layer(i) for i in range(config["num_hidden_layers"])]
    states = [w["model.embed_tokens.weight"][ids]]
    for _ in range(iterations):
        states.append(rms(run(layers, states[-1]), w["model.norm.weight"], eps))
    after = np.stack(states[1:])
    gate = after @ w["model.early_exit_gate.weight"][0] + w["model.early_exit_gate.bias"]
    return np.stack(states), after @ w["lm_head.weight"].T, gate
