"""What claim 7 measures: when a gate lets answers go, and what each exit rule is worth."""

from __future__ import annotations

import math

import numpy as np
import torch
import xarray as xr
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

import looplens
from looplens import Prompt, Run
from looplens.gallery import Scale
from looplens.models import LoopedTransformer
from looplens.tasks import get_task
from looplens.thinking import exit_distribution
from looplens.training import Recipe, Stage
from looplens.training.losses import exit_entropy

ASKED = "phop:last=true"  # one answer a text, always at its last letter
SATURATED = 0.95  # of the accuracy after all iterations; budgets beyond are left out
# Every rule gets as many thresholds, over all the range in which tokens leave at all.
THRESHOLDS = {
    "latent-diff": list(np.geomspace(0.002, 2, 30)),
    "acceleration": list(np.geomspace(0.002, 4, 30)),
    "kl": list(np.geomspace(1e-5, 10, 30)),
    "gate": [*np.linspace(0.02, 0.98, 29), 0.999],
}
RULES = ("gate", "kl", "latent-diff", "acceleration", "depth")


def asked(last: Stage, count: int, seed: int) -> list[Prompt]:
    """Draw questions at the last letter: what differs between them is never the position."""
    drawn = get_task(ASKED)
    return drawn.prompts(count, seed=seed, length=last.length, difficulty=last.difficulty)


def guessing(prompts: list[Prompt]) -> float:
    """Accuracy from hops and last letter alone: always that letter, or always another one."""
    hops = np.array([prompt.token_metadata["difficulty"][-1] for prompt in prompts])
    same = np.array([prompt.targets[-1] == prompt.token_ids[-1] for prompt in prompts])
    rates = [same[hops == level].mean() for level in hops]
    return float(np.mean([max(rate, (1 - rate) / 3) for rate in rates]))


def bench(
    model: LoopedTransformer, prompts: list[Prompt], name: str, depth: int, scale: Scale
) -> tuple[Run, xr.Dataset]:
    """Record states and readouts, and simulate every exit rule on them."""
    out = scale.run_folder(f"exits-{name}")
    run = looplens.record(
        model, prompts, out=out, iterations=depth, sites=(), progress=False, overwrite=True
    )
    known = {rule: grid for rule, grid in THRESHOLDS.items() if rule != "gate" or run.has_exit_gate}
    return run, run.analyze("exits", exit_thresholds=known)["exits"]


def accuracy_at(rules: xr.Dataset, rule: str, budgets: ArrayLike, cost: str) -> NDArray:
    """Best accuracy of a rule at mean costs, mixing neighbouring thresholds."""
    ends = rules["threshold"].isin([1, rules.sizes["iteration"]])
    # Leaving at once and never leaving are open to any rule.
    chosen = (rules["rule"] == rule) | ((rules["rule"] == "depth") & ends)
    part = rules.isel(policy=np.flatnonzero(chosen.values))
    order = np.lexsort((part["accuracy"].values, part[cost].values))
    best = np.maximum.accumulate(part["accuracy"].values[order])
    return np.interp(budgets, part[cost].values[order], best)


def worth(rules: xr.Dataset, rule: str, cost: str = "iterations", start: int = 1) -> float:
    """Mean accuracy of a rule over budgets at which a fixed depth is not yet saturated.

    They go from the cost of ``start`` iterations to that of the first fixed depth with 95 % of the
    accuracy after all iterations; they are the same for all rules on one recording.
    """
    fixed = rules.isel(policy=np.flatnonzero(rules["rule"].values == "depth"))
    fixed = fixed.isel(policy=np.argsort(fixed["threshold"].values))
    right = fixed["accuracy"].values
    stop = max(int((right >= SATURATED * right[-1]).argmax()), start)
    low, high = fixed[cost].values[[start - 1, stop]]
    return float(accuracy_at(rules, rule, np.linspace(low, high, 101), cost).mean())


def first_right(right: NDArray[np.bool_]) -> NDArray[np.float64]:
    """First iteration from which an answer stays right, (answer, iteration) -> answer; else NaN."""
    stays = np.logical_and.accumulate(right[:, ::-1], axis=1).sum(1)
    return np.where(stays > 0, right.shape[1] - stays + 1.0, np.nan)


def correlation(a: NDArray, b: NDArray, group: NDArray) -> float:
    """Rank correlation of what differs within groups; 0 where nothing does."""
    known = np.isfinite(a) & np.isfinite(b)
    x, y = rankdata(a[known]), rankdata(b[known])
    for level in np.unique(group[known]):
        here = group[known] == level
        x[here] -= x[here].mean()
        y[here] -= y[here].mean()
    size = math.sqrt(float(x @ x) * float(y @ y))
    return float(x @ y) / size if size > 1e-9 else 0.0


class Exits:
    """What the gate of one model says of its answers, and how every exit rule does on them."""

    def __init__(self, model: LoopedTransformer, wanted: Recipe, scale: Scale) -> None:
        depth, count = model.cfg.default_iterations, scale.pick(smoke=16, quick=512, full=1024)
        prompts = asked(wanted.curriculum[-1], count, seed=100)  # the same for all models
        self.guessing = guessing(prompts)
        run, self.rules = bench(model, prompts, wanted.name, depth, scale)
        answers = run.tokens["target"].values >= 0
        gate = torch.from_numpy(run.readout["exit_gate"].values[0, answers].T)
        share = exit_distribution(gate).numpy()  # (iteration, answer)
        right = run.readout["target_rank"].values[0, answers] == 0
        self.hops = run.tokens["difficulty"].values[answers].astype(int)
        self.used = math.exp(float(exit_entropy(gate).mean()))
        self.first, self.last = float(share[0].mean()), float(share[-1].mean())
        self.last_of_easy = float(share[-1, self.hops == 1].mean())
        self.final = float(right[:, -1].mean())
        self.early = float(right[:, :-1].mean())  # mean over fixed depths below the trained one
        self.expected: NDArray = np.arange(1, depth + 1) @ share
        self.needed = first_right(right)
        self.follows = correlation(self.needed, self.expected, np.zeros(len(self.hops)))
        self.within = correlation(self.needed, self.expected, self.hops)
        self.worth = {rule: worth(self.rules, rule) for rule in RULES}

    def by_hops(self, values: NDArray) -> list[float]:
        """Mean over the answers of each number of hops, without NaN."""
        groups = [values[self.hops == level] for level in np.unique(self.hops)]
        return [float(np.nan_to_num(np.ma.masked_invalid(group).mean())) for group in groups]
