"""How much memory loading a large checkpoint takes, against the size of its weights.

Writes a random checkpoint in the published layout of Huginn (sharded safetensors, bfloat16), one
tensor at a time, loads it in a process of its own, and deletes it. At the default width this takes
less than a minute and 2.5 GiB of disk; ``--width 5280`` is the published size.

    python -m benchmarks.memory --width 2880 --folder /somewhere/with/space
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from safetensors.torch import save_file

from benchmarks._rows import Row

D_HEAD, VOCABULARY, CONTEXT = 96, 65536, 4096
LAYERS = {"prelude": 2, "core_block": 4, "coda": 2}
SHARD_BYTES = 500 * 2**20
GIB = 2**30

# Linux keeps the peak of a process in VmHWM. ru_maxrss would also count the parent's memory, which
# the child shares between fork and exec.
LOAD = """
import json, sys, time, torch, looplens, looplens.models
from pathlib import Path

def status(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(name)).split()[1])

before, began = status("VmHWM"), time.perf_counter()
model = looplens.load_model(sys.argv[1], dtype=torch.bfloat16)
seconds, peak, after = time.perf_counter() - began, status("VmHWM"), status("RssAnon")
weights = sum(p.numel() * p.element_size() for p in model.parameters())
if sys.argv[2] == "forward":
    with torch.no_grad():
        model(torch.arange(16)[None], iterations=2)
print(json.dumps({"before": before, "peak": peak, "held": after, "weights": weights,
    "parameters": sum(p.numel() for p in model.parameters()), "seconds_to_load": seconds,
    "peak_with_forward": status("VmHWM")}))
"""


def config(width: int) -> dict[str, object]:
    """Return ``config.json`` of a Huginn of this width, with the published proportions."""
    return {
        "model_type": "huginn_raven",
        "architectures": ["RavenForCausalLM"],
        "n_embd": width,
        "n_heads": width // D_HEAD,
        "num_key_value_heads": width // D_HEAD,
        "head_dim": D_HEAD,
        "intermediate_size": hidden(width),
        "n_layers": sum(LAYERS.values()),
        "n_layers_in_prelude": LAYERS["prelude"],
        "n_layers_in_recurrent_block": LAYERS["core_block"],
        "n_layers_in_coda": LAYERS["coda"],
        "mean_recurrence": 32,
        "mean_backprop_depth": 8,
        "vocab_size": VOCABULARY,
        "padded_vocab_size": VOCABULARY,
        "padding_multiple": 4096,
        "block_size": CONTEXT,
        "rope_base": 50000,
        "norm_eps": 1e-6,
        "qk_bias": True,
        "bias": False,
        "tie_embeddings": True,
        "injection_type": "linear",
        "state_init": "like-init",
        "block_class_name": "SandwichBlock",
        "norm_class_name": "RMSNorm_llama",
        "mlp_class_name": "GatedMLP",
        "nonlin_name": "SiLU",
        "init_strategy": "takase",
        "init_values": {"std": (2 / (5 * width)) ** 0.5, "embed_scale": width**0.5},
        "torch_dtype": "bfloat16",
    }


def hidden(width: int) -> int:
    """Return the width of the MLP in the published proportion, 17920 to 5280."""
    return round(width * 17920 / 5280 / 256) * 256


def tensors(width: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield names and shapes of the published layout; the head is stored although it is tied."""
    heads = width // D_HEAD
    yield "transformer.wte.weight", (VOCABULARY, width)
    for part, count in LAYERS.items():
        for number in range(count):
            layer = f"transformer.{part}.{number}"
            yield from ((f"{layer}.norm_{i}.weight", (width,)) for i in range(1, 5))
            yield f"{layer}.attn.Wqkv.weight", (3 * width, width)
            yield f"{layer}.attn.qk_bias", (2, 1, heads, D_HEAD)
            yield f"{layer}.attn.proj.weight", (width, width)
            yield f"{layer}.mlp.fc.weight", (2 * hidden(width), width)
            yield f"{layer}.mlp.proj.weight", (width, hidden(width))
    yield "transformer.adapter.weight", (width, 2 * width)
    yield "transformer.ln_f.weight", (width,)
    yield "lm_head.weight", (VOCABULARY, width)
    yield "freqs_cis", (1, CONTEXT, 1, D_HEAD // 2, 2)


def rotary() -> torch.Tensor:
    """Return the buffer of cosines and sines that the published files hold."""
    frequency = 50000.0 ** (-torch.arange(0, D_HEAD, 2).double() / D_HEAD)
    angle = torch.arange(CONTEXT).double()[:, None] * frequency
    return torch.stack((angle.cos(), angle.sin()), dim=-1).float()[None, :, None]


def write_checkpoint(folder: Path, width: int) -> int:
    """Write the shards one after the other, and return the bytes of all tensors."""
    draw = torch.Generator().manual_seed(0)
    shard: dict[str, torch.Tensor] = {}
    names: dict[str, str] = {}
    total, number = 0, 0

    def flush() -> None:
        nonlocal number
        number += 1
        name = f"model-{number:05d}.safetensors"
        save_file(shard, folder / name, metadata={"format": "pt"})
        names.update(dict.fromkeys(shard, name))
        shard.clear()

    embedding: torch.Tensor | None = None
    for name, shape in tensors(width):
        if name == "freqs_cis":
            value = rotary()
        elif name.endswith(("norm_1.weight", "norm_2.weight", "norm_3.weight", "norm_4.weight")):
            value = torch.ones(shape, dtype=torch.bfloat16)
        elif name == "lm_head.weight" and embedding is not None:
            value = embedding.clone()
        else:
            value = torch.empty(shape, dtype=torch.bfloat16).normal_(0, 0.01, generator=draw)
        embedding = value if name == "transformer.wte.weight" else embedding
        shard[name] = value
        total += value.numel() * value.element_size()
        if sum(kept.numel() * kept.element_size() for kept in shard.values()) > SHARD_BYTES:
            flush()
    flush()
    (folder / "config.json").write_text(json.dumps(config(width), indent=2))
    index = {"metadata": {"total_size": total}, "weight_map": names}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2))
    return total


def measure(width: int, folder: Path | None = None, *, forward: bool = False) -> dict[str, float]:
    """Write a checkpoint, load it in another process, delete it; bytes and seconds."""
    with tempfile.TemporaryDirectory(dir=folder) as place:
        began = time.perf_counter()
        total = write_checkpoint(Path(place), width)
        written = time.perf_counter() - began
        loaded = subprocess.run(
            [sys.executable, "-c", LOAD, place, "forward" if forward else "load"],
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        )
    seen = json.loads(loaded.stdout.splitlines()[-1])
    over = (seen["peak"] - seen["before"]) / seen["weights"]
    return {**seen, "files": total, "seconds_to_write": written, "over_weights": over}


def rows(width: int = 2880) -> list[Row]:
    """Return the row of the table of measurements."""
    seen = measure(width)
    return [
        Row(
            name=f"peak memory of loading {seen['parameters'] / 1e9:.2f} billion parameters in "
            "bfloat16, their size = 1",
            value=seen["over_weights"],
            unit="x",
            goal=1.15,
            peers={"peak resident, GiB": seen["peak"] / GIB, "files, GiB": seen["files"] / GIB},
        )
    ]


def main() -> None:
    """Write, load, print, delete."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--width", type=int, default=2880, help="a multiple of 96")
    parser.add_argument("--folder", type=Path, help="where to write; by default temporary space")
    parser.add_argument("--forward", action="store_true", help="run two iterations as well")
    options = parser.parse_args()
    if options.width % D_HEAD:
        parser.error(f"--width must be a multiple of {D_HEAD}, got {options.width}")
    seen = measure(options.width, options.folder, forward=options.forward)
    table = Table("what", "value")
    table.add_row("parameters", f"{seen['parameters'] / 1e9:.3f} billion")
    table.add_row("tensors in the files", f"{seen['files'] / GIB:.3f} GiB")
    table.add_row("weights of the model", f"{seen['weights'] / GIB:.3f} GiB")
    table.add_row("resident before loading", f"{seen['before'] / GIB:.3f} GiB")
    table.add_row("peak resident while loading", f"{seen['peak'] / GIB:.3f} GiB")
    table.add_row("held after loading", f"{seen['held'] / GIB:.3f} GiB")
    table.add_row("seconds to load", f"{seen['seconds_to_load']:.1f}")
    table.add_row("(peak - before) / weights", f"{seen['over_weights']:.3f}")
    if options.forward:
        table.add_row("peak with a forward", f"{seen['peak_with_forward'] / GIB:.3f} GiB")
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
