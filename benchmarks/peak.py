"""How much memory recording takes over a bare forward, at few prompts and at many."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile

from benchmarks._rows import THREADS, Row

MIB = 2**20
FEW, MANY = 10, 100
GROUP = 10  # prompts in a forward of the bare model

# Linux keeps the peak of a process in VmHWM. ru_maxrss would also count the parent's memory, which
# the child shares between fork and exec.
CODE = """
import json, sys
from pathlib import Path
import torch, looplens
from benchmarks.recording import Point

kind, prompts, d_model, out, group, threads = sys.argv[1:]
torch.set_num_threads(int(threads))

def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1])

point = Point(name="memory", d_model=int(d_model), n_core=2, iterations=64, prompts=int(prompts),
              goal=0, rounds=0, pos=256, mlp=1)
model, tokens = point.model(), point.tokens()
if kind == "bare":
    with torch.no_grad():
        for batch in tokens.split(int(group)):
            model(batch, iterations=point.iterations)
else:
    looplens.record(model, tokens, out=out, iterations=point.iterations, sites="resid_post",
                    readout=False, progress=False)
print(json.dumps({"peak": peak(), "states": point.nbytes}))
"""


def peak(kind: str, prompts: int, d_model: int) -> tuple[int, int]:
    """Return the peak of resident memory of a process of its own, and the bytes of the states."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = (kind, prompts, d_model, f"{folder}/run", GROUP, THREADS)
        done = subprocess.run(
            [sys.executable, "-c", CODE, *map(str, arguments)], stdout=subprocess.PIPE, text=True
        )
    if done.returncode:
        raise RuntimeError(f"{kind} of {prompts} prompts ended with code {done.returncode}")
    seen = json.loads(done.stdout.splitlines()[-1])
    return seen["peak"], seen["states"]


def rows(*, quick: bool = False) -> list[Row]:
    """Measure the growth at 10 and at 100 prompts."""
    d_model = 64 if quick else 128
    growth, states = {}, {}
    for prompts in (FEW, MANY):
        bare, _ = peak("bare", prompts, d_model)
        recorded, states[prompts] = peak("record", prompts, d_model)
        growth[prompts] = recorded - bare
    limit = "the pools of buffers grow with the block of tokens, which is larger than few prompts."
    peers = {
        f"growth at {prompts} prompts, MiB": grown / MIB for prompts, grown in growth.items()
    } | {f"states of {prompts} prompts, MiB": nbytes / MIB for prompts, nbytes in states.items()}
    return [
        Row(
            name=f"memory of recording over a bare forward (d_model {d_model}, 2 layers, T = 64, "
            f"prompts of 256 tokens): the larger of {FEW} and {MANY} prompts",
            value=max(growth.values()) / MIB,
            unit="MiB",
            goal=512,
            peers=peers,
            limit=limit,
        ),
        Row(
            name=f"that memory at {MANY} prompts, at {FEW} = 1",
            value=growth[MANY] / max(1, growth[FEW]),
            unit="x",
            goal=1.05,
            peers=peers,
            limit=limit,
        ),
    ]
