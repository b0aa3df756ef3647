"""What the dynamics lab costs, counted in loop steps of the prompt that it looks at.

Everything is timed in turn with one iteration of the loop over the whole prompt, batch 1, with no
gradient. Tokens go through the lab together; costs are per token.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

import looplens
from benchmarks._rows import THREADS, Row, interleaved, ratios
from looplens.dynamics.eigen.spectrum import leading
from looplens.dynamics.exponents.benettin import along
from looplens.dynamics.maps.loop_maps import TokenMap
from looplens.dynamics.maps.loop_step import LoopStep, loop_step
from looplens.dynamics.solving.fixed_point import solve
from looplens.models import LoopedConfig, LoopedTransformer

K = 6  # eigenvalues
EXPONENTS, STEPS = 4, 8
WIDE = 5280  # the published width of Huginn
LIMIT = "products with the Jacobian that come one after the other, and algebra beside them."
MIB = 2**20


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """A prompt of a model near its limit, and tokens of it."""

    name: str
    step: LoopStep
    state: Tensor  # pos d_model
    tokens: list[int]

    def map(self, *, alone: bool = True) -> TokenMap:
        """Return the map of the tokens."""
        return TokenMap(self.step, self.state, self.tokens, alone=alone)


def rows(*, quick: bool = False) -> list[Row]:
    """Measure a trained model of width 64 and a random one of width 1024, and memory at 5280."""
    repeats = 3 if quick else 7
    small, large = bundled(32, 32), random_model(128 if quick else 1024, 16, 4)
    return [
        per_product(small, repeats),
        per_product(large, repeats),
        per_eigenvalue(small, repeats, 2.0),
        per_eigenvalue(large, 1 if quick else 3, 10.0),
        per_exponent(small, repeats, 1.0),
        per_exponent(large, 1 if quick else 3, 1.0),
        per_fixed_point(small, repeats, 20.0),
        memory(256 if quick else WIDE),
    ]


def bundled(pos: int, tokens: int) -> Place:
    """Take a bundled model after 60 iterations."""
    model = looplens.load_model("affine-huginn-mini")
    ids = torch.randint(0, model.cfg.d_vocab, (1, pos), generator=_seeded())
    return _settled("affine-huginn-mini, width 64", model, ids, tokens, 60)


def random_model(d_model: int, pos: int, tokens: int, iterations: int = 20) -> Place:
    """Take a random model with one block after some iterations."""
    torch.manual_seed(0)
    cfg = LoopedConfig(
        d_model=d_model, n_heads=16, d_mlp=2 * d_model, d_vocab=64, n_ctx=pos, n_core=1
    )
    ids = torch.randint(0, cfg.d_vocab, (1, pos), generator=_seeded())
    return _settled(f"random, width {d_model}", LoopedTransformer(cfg), ids, tokens, iterations)


@torch.no_grad()
def _settled(
    name: str, model: LoopedTransformer, ids: Tensor, tokens: int, iterations: int
) -> Place:
    step = loop_step(model.eval(), ids)
    state = torch.randn(1, *step.shape, generator=_seeded())
    for _ in range(iterations):
        state = step(state)
    last = list(range(ids.shape[1]))[-tokens:]
    return Place(name=name, step=step, state=state[0], tokens=last)


def _seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def _one_step(place: Place) -> None:
    with torch.no_grad():
        place.step(place.state[None])


def per_product(place: Place, repeats: int) -> Row:
    """Compare the ways to a product with the Jacobian, and tokens alone with whole prompts."""
    alone, whole = place.map(), place.map(alone=False)
    x = place.state[place.tokens]
    v = torch.randn(x.shape, generator=_seeded())
    at, at_whole = alone.linearised(x), whole.linearised(x)
    torch.testing.assert_close(at.jvp(v), alone.forward_jvp(x, v), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(at.jvp(v), at_whole.jvp(v), rtol=1e-3, atol=1e-4)
    directions = torch.randn(K, *x.shape, generator=_seeded())
    seconds = interleaved(
        {
            "step": lambda: _one_step(place),
            "product": lambda: at.jvp(v),
            "six together": lambda: at.jvps(directions),
            "graph and one product": lambda: alone.linearised(x).jvp(v),
            "forward mode": lambda: alone.forward_jvp(x, v),
            "whole prompts": lambda: at_whole.jvp(v),
            "whole prompts, forward mode": lambda: whole.forward_jvp(x, v),
        },
        repeats,
    )
    each = {name: cost / len(x) for name, cost in ratios(seconds, "step").items()}
    each["six together"] /= K
    value = each.pop("product")
    del each["step"]
    return Row(
        name=f"product of a token's Jacobian with a vector {_where(place)}",
        value=value,
        unit="x",
        goal=1.0,
        peers={**each, "step, ms": 1e3 * statistics.median(seconds["step"])},
        limit="with few tokens the operations of a step do not fill the processor.",
    )


def per_eigenvalue(place: Place, repeats: int, goal: float) -> Row:
    """Measure an eigenvalue of a token."""
    map_, x = place.map(), place.state[place.tokens]
    found = leading(map_, x, K)
    cost = _per_token(place, repeats, lambda: leading(map_, x, K))
    return Row(
        name=f"one of {K} leading eigenvalues of a token, sigma_max included {_where(place)}",
        value=cost / K,
        unit="x",
        goal=goal,
        peers={
            "a token": cost,
            "products": float(found.products),
            "share converged": float(found.converged.mean()),
        },
        limit=LIMIT,
    )


def per_exponent(place: Place, repeats: int, goal: float) -> Row:
    """Measure a Lyapunov exponent of a token, an iteration."""
    map_, x = place.map(), place.state[place.tokens]
    cost = _per_token(place, repeats, lambda: along(map_, x, STEPS, EXPONENTS)) / STEPS
    return Row(
        name=f"one of {EXPONENTS} Lyapunov exponents of a token, an iteration {_where(place)}",
        value=cost / EXPONENTS,
        unit="x",
        goal=goal,
        peers={"a token and iteration": cost},
        limit=LIMIT,
    )


def per_fixed_point(place: Place, repeats: int, goal: float) -> Row:
    """Measure a fixed point of a token, from some way off."""
    map_, x = place.map(), place.state[place.tokens]
    start = x + 0.1 * torch.randn(x.shape, generator=_seeded())
    verified = solve(map_, start).verdict.verified
    return Row(
        name=f"fixed point of a token, verified {_where(place)}",
        value=_per_token(place, repeats, lambda: solve(map_, start)),
        unit="x",
        goal=goal,
        peers={"share verified": float(verified.double().mean())},
        limit=LIMIT,
    )


def _where(place: Place) -> str:
    return f"({place.name}, {len(place.tokens)} tokens together), a loop step of the prompt = 1"


def _per_token(place: Place, repeats: int, action: Callable[[], object]) -> float:
    seconds = interleaved({"step": lambda: _one_step(place), "lab": action}, repeats)
    return ratios(seconds, "step")["lab"] / len(place.tokens)


# Linux keeps the peak of a process in VmHWM; a 5 sets it back to what is in use now, without what
# drawing the weights took.
CODE = """
import json, sys
from pathlib import Path
import torch
from benchmarks.dynamics import K, random_model
from looplens.dynamics.eigen.spectrum import leading
from looplens.dynamics.maps.loop_maps import SequenceMap

torch.set_num_threads(int(sys.argv[2]))

def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1])

place = random_model(int(sys.argv[1]), 16, 4, iterations=2)
map_ = SequenceMap(place.step)
x = place.state.reshape(1, -1)
Path("/proc/self/clear_refs").write_text("5")
before = peak()
found = leading(map_, x, K, krylov=24, stretch=False)
weights = sum(w.nbytes for w in place.step.looped.model.parameters())
print(json.dumps({"before": before, "after": peak(), "size": map_.size, "weights": weights,
                  "products": found.products}))
"""


def memory(d_model: int) -> Row:
    """Measure what the spectrum of a whole sequence adds to the peak of a process."""
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(d_model), str(THREADS)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    seen = json.loads(done.stdout.splitlines()[-1])
    return Row(
        name=f"memory of {K} eigenvalues of a whole sequence (d_model {d_model}, 16 tokens, no "
        "matrix formed), over the loop steps before",
        value=(seen["after"] - seen["before"]) / MIB,
        unit="MiB",
        goal=512,
        peers={
            "the Jacobian, MiB": 4 * seen["size"] ** 2 / MIB,
            "weights, MiB": seen["weights"] / MIB,
            "products": seen["products"],
        },
        limit="the graph of one step, and a vector for every product.",
    )
