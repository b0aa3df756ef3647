"""Claim 7: an exit gate needs the entropy of its exits; then easy tokens leave early."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from scipy.stats import spearmanr

import looplens
from looplens import Prompt, Run
from looplens.gallery import (
    Claim,
    Interval,
    Outcome,
    Picture,
    Scale,
    Table,
    mean_interval,
    paired,
    pictures,
    train_all,
)
from looplens.models import LoopedTransformer
from looplens.tasks import get_task, prompts_trained_on
from looplens.thinking import exit_distribution
from looplens.training import Recipe, Stage, gate_stage, ouro
from looplens.training.losses import exit_entropy

TASK = "affine"
MAIN = 0.05  # weight of the entropy; Ouro trains with 0.1 and then 0.05
COLLAPSED = 1.5  # exits in use, exp of the entropy
# Every rule gets as many thresholds, over all the range in which tokens leave at all.
THRESHOLDS = {
    "latent-diff": list(np.geomspace(0.002, 2, 30)),
    "acceleration": list(np.geomspace(0.002, 4, 30)),
    "kl": list(np.geomspace(1e-5, 10, 30)),
    "gate": [*np.linspace(0.02, 0.98, 29), 0.999],
}
RULES = ("gate", "kl", "latent-diff", "acceleration", "depth")
HUGINN = ("affine-huginn-mini", "phop-huginn-mini")  # loop long enough for two hits in a row
LONG = 32


def first_stage(weight: float, seed: int, scale: Scale) -> Recipe:
    """Running arithmetic, whose n-th operation needs about n passes of a single layer."""
    length, passes = scale.pick(smoke=(2, 3), quick=(6, 6), full=(8, 8))
    return ouro(
        TASK,
        name=f"gate-{weight:g}-{seed}",
        iterations=passes,
        entropy=weight,
        d_model=scale.pick(smoke=32, quick=64, full=64),
        n_ctx=64,
        steps=scale.pick(smoke=60, quick=1200, full=4000),
        batch=32,
        curriculum=(
            Stage(share=0.25, length=2, difficulty=(1, 2)),
            Stage(share=0.25, length=max(2, length // 2), difficulty=(1, max(2, length // 2))),
            Stage(share=0.5, length=length, difficulty=(1, length)),
        ),
        seed=seed,
    )


def record(model: LoopedTransformer, prompts: list[Prompt], name: str, scale: Scale) -> Run:
    """Record states and readouts of one model, and nothing else."""
    return looplens.record(
        model,
        prompts,
        out=scale.run_folder(f"exits-{name}"),
        iterations=scale.pick(smoke=8, quick=LONG, full=LONG)
        if model.cfg.family == "huginn"
        else model.cfg.default_iterations,
        sites=(),
        progress=False,
        overwrite=True,
    )


def bench(run: Run) -> xr.Dataset:
    """Simulate every exit rule on a recording."""
    known = {rule: grid for rule, grid in THRESHOLDS.items() if rule != "gate" or run.has_exit_gate}
    return run.analyze("exits", exit_thresholds=known)["exits"]


def accuracy_at(rules: xr.Dataset, rule: str, budgets: NDArray, cost: str) -> NDArray:
    """Best accuracy of a rule at mean costs, mixing neighbouring thresholds."""
    ends = rules["threshold"].isin([1, rules.sizes["iteration"]])
    # Leaving at once and never leaving are open to any rule.
    chosen = (rules["rule"] == rule) | ((rules["rule"] == "depth") & ends)
    part = rules.isel(policy=np.flatnonzero(chosen.values))
    order = np.lexsort((part["accuracy"].values, part[cost].values))
    best = np.maximum.accumulate(part["accuracy"].values[order])
    return np.interp(budgets, part[cost].values[order], best)


class Exits:
    """What the gate of one model says of its answers, and how every exit rule does on them."""

    def __init__(self, model: LoopedTransformer, wanted: Recipe, scale: Scale) -> None:
        last = wanted.curriculum[-1]
        prompts = get_task(TASK).prompts(
            scale.pick(smoke=8, quick=256, full=512),
            seed=100,  # the same for all models
            length=last.length,
            difficulty=last.difficulty,
        )
        self.run = record(model, prompts, wanted.name, scale)
        answers = self.run.tokens["target"].values >= 0
        gate = torch.from_numpy(self.run.readout["exit_gate"].values[0, answers].T)
        share = exit_distribution(gate).numpy()  # (iteration, answer)
        self.entropy = float(exit_entropy(gate).mean())
        self.at_end = float(share[-1].mean())
        self.expected: NDArray = np.arange(1, len(share) + 1) @ share
        self.difficulty = self.run.tokens["difficulty"].values[answers]
        self.rules = bench(self.run)
        self.accuracy = float(self.accuracy_at("depth", np.array([float(len(share))]))[0])

    def by_difficulty(self) -> list[float]:
        """Mean expected exit of the answers of each difficulty."""
        levels = np.unique(self.difficulty)
        return [float(self.expected[self.difficulty == level].mean()) for level in levels]

    def accuracy_at(self, rule: str, budgets: NDArray) -> NDArray:
        """Best accuracy of a rule at mean iterations."""
        return accuracy_at(self.rules, rule, budgets, "iterations")


def by_operations(name: str, seed: int, scale: Scale) -> dict[str, float]:
    """Mean accuracy over budgets of operations, on a model that loops long."""
    count = scale.pick(smoke=2, quick=64, full=256)
    prompts = prompts_trained_on(looplens.models.model_card(name), count, seed=seed)
    rules = bench(record(looplens.load_model(name), prompts, f"{name}-{seed}", scale))
    fixed = rules["gflops"].values[rules["rule"].values == "depth"]
    budgets = np.linspace(fixed.min(), fixed.max(), 200)
    return {
        rule: float(accuracy_at(rules, rule, budgets, "gflops").mean())
        for rule in RULES
        if rule != "gate"
    }


def run(scale: Scale) -> Outcome:
    """Train both stages, record all models on the same prompts and compare their exits."""
    weights = scale.pick(smoke=(0.0, MAIN), quick=(0.0, MAIN), full=(0.0, MAIN, 0.1))
    stages = {(w, seed): first_stage(w, seed, scale) for w in weights for seed in scale.seeds}
    steps = scale.pick(smoke=20, quick=400, full=1000)
    gated = {
        seed: gate_stage(stages[MAIN, seed], steps=steps, learning_rate=1e-2, decay_share=0.8)
        for seed in scale.seeds
    }
    models = train_all([*stages.values(), *gated.values()], scale)
    one = {key: Exits(models[r.name], r, scale) for key, r in stages.items()}
    two = {seed: Exits(models[r.name], r, scale) for seed, r in gated.items()}
    long = {name: [by_operations(name, seed, scale) for seed in scale.seeds] for name in HUGINN}

    def over(weight: float, measure: Callable[[Exits], float]) -> list[float]:
        return [measure(one[weight, seed]) for seed in scale.seeds]

    depth = stages[MAIN, 0].model.default_iterations
    entropy = {w: over(w, lambda found: found.entropy) for w in weights}
    used = {w: over(w, lambda found: math.exp(found.entropy)) for w in weights}
    at_end = {w: over(w, lambda found: found.at_end) for w in weights}
    kept = paired(entropy[MAIN], entropy[0.0])
    rises = mean_interval(
        [float(spearmanr(f.difficulty, f.expected).statistic) for f in two.values()]
    )
    # All budgets between one iteration and all count the same.
    budgets = np.linspace(1, depth, 8 * (depth - 1) + 1)
    curves = {rule: [f.accuracy_at(rule, budgets) for f in two.values()] for rule in RULES}
    for name, weight in {"gate, first stage": MAIN, "gate, no entropy": 0.0}.items():
        curves[name] = [one[weight, seed].accuracy_at("gate", budgets) for seed in scale.seeds]
    worth = {rule: [float(c.mean()) for c in found] for rule, found in curves.items()}
    trained = paired(worth["gate"], worth["gate, first stage"])
    ahead = {rule: paired(worth["gate"], worth[rule]) for rule in RULES[1:]}
    bent = {
        name: paired([each["acceleration"] for each in found], [each["kl"] for each in found])
        for name, found in long.items()
    }
    checks = {
        "the entropy term keeps exits spread": kept.low > 0,
        "without it the gate collapses": mean_interval(used[0.0]).high < COLLAPSED,
        "it collapses onto the last iteration": mean_interval(at_end[0.0]).low > 0.5,
        "easy tokens leave early": rises.low > 0,
        "training the gate alone improves it": trained.low > 0,
        "the gate beats a fixed depth": ahead["depth"].low > 0,
        "the gate beats the latent difference": ahead["latent-diff"].low > 0,
        "the gate beats KL": ahead["kl"].low > 0,
        "acceleration beats KL by operations, on models that loop long": all(
            difference.low > 0 for difference in bent.values()
        ),
    }
    difficulties = sorted(set(two[0].difficulty.astype(int)))
    leave = {
        "first stage": [one[MAIN, seed].by_difficulty() for seed in scale.seeds],
        "no entropy": [one[0.0, seed].by_difficulty() for seed in scale.seeds],
        "second stage": [found.by_difficulty() for found in two.values()],
    }
    accuracy = {w: over(w, lambda found: found.accuracy) for w in weights}
    stages_table = Table(
        title="The first stage, by the weight of the entropy",
        columns=("weight", "exit entropy (nats)", "exits in use", "share at the last", "accuracy"),
        rows=[
            [w, *(mean_interval(x[w]) for x in (entropy, used, at_end, accuracy))] for w in weights
        ],
    )
    rules_table = Table(
        title=f"Accuracy, mean over budgets of 1 to {depth} iterations a token",
        columns=("rule", "accuracy", "gate ahead by"),
        rows=[
            [rule, mean_interval(found), paired(worth["gate"], found)]
            for rule, found in worth.items()
        ],
    )
    long_table = Table(
        title="Accuracy, mean over budgets of operations, on models that loop long",
        columns=("rule", *HUGINN),
        rows=[
            [rule, *(mean_interval([each[rule] for each in long[name]]) for name in HUGINN)]
            for rule in RULES[1:]
        ],
    )
    front = pictures.lines(
        {rule: (list(budgets[::4]), _intervals(found, 4)) for rule, found in curves.items()},
        title="What a token's iterations buy under each exit rule",
        x="iterations a token, mean", y="accuracy",
    )  # fmt: skip
    exits = pictures.lines(
        {name: (difficulties, _intervals(found)) for name, found in leave.items()},
        title="When tokens leave",
        x="operations before the answer", y="expected exit (iteration)",
    )  # fmt: skip
    return Outcome(
        checks=checks,
        tables=(stages_table, rules_table, long_table),
        pictures=(
            Picture(name="front", figure=front, caption="Accuracy along each rule's thresholds."),
            Picture(name="difficulty", figure=exits, caption="Expected exit by operations needed."),
        ),
        summary=(
            f"With an entropy weight of {MAIN:g} the gate keeps {mean_interval(used[MAIN]):.2f} of "
            f"{depth} exits in use, without it {mean_interval(used[0.0]):.2f}, with "
            f"{mean_interval(at_end[0.0]):.2f} of the tokens' weight at the last iteration. "
            f"Expected exits of the second stage rise with the number of operations (rank "
            f"correlation {rises:.2f}). Over all budgets the trained gate is ahead of the first "
            f"stage's by {trained:+.3f} in accuracy, of a fixed depth by {ahead['depth']:+.3f}, "
            f"of the latent difference by {ahead['latent-diff']:+.3f} and of KL by "
            f"{ahead['kl']:+.3f}. The first stage's own gate reaches "
            f"{mean_interval(worth['gate, first stage']):.3f}, without entropy "
            f"{mean_interval(worth['gate, no entropy']):.3f}. By operations, acceleration is ahead "
            "of KL " + " and ".join(f"by {bent[name]:+.3f} on {name}" for name in HUGINN) + "."
        ),
        limits=(
            "One task, on which the number of operations sets how many iterations an answer needs; "
            "text has no such dial.",
            f"With {depth} iterations acceleration, which waits for two hits, cannot leave before "
            "the fourth. It is therefore compared with KL on Huginn-style models, of which there "
            "is one training seed each: intervals there are over draws of prompts.",
            "The label of the second stage looks at one iteration: where an answer comes at once, "
            "after several iterations that bring nothing, it asks tokens to leave before it.",
            "Operations are counted, not time. By iterations the readouts that KL needs are free.",
        ),
    )


def _intervals(rows: Sequence[Sequence[float] | NDArray], every: int = 1) -> list[Interval]:
    """Return an interval over seeds for every so many columns."""
    return [mean_interval(column) for column in np.array(rows).T[::every]]


CLAIM = Claim(
    number=7,
    slug="exit-gate",
    title="The exit gate: entropy prevents collapse, easy tokens leave early",
    paper="Zhu et al., Scaling Latent Reasoning via Looped Language Models (Ouro), "
    "arXiv:2510.25741, section 3.2; Pappone et al., arXiv:2509.23314 (acceleration; as summarised "
    "elsewhere)",
    says="A gate that is trained with the model on the expected loss alone collapses onto the "
    "last iteration, since later iterations have the lower loss and so get all the training; an "
    "entropy term of weight 0.05 to 0.1 prevents that. Training the gate alone afterwards, on how "
    "much each iteration improves the loss, makes it better: 66 against 64 % on MMLU at 2.5 of 4 "
    "iterations, with the difference of states 1 to 2 points below. Pappone et al. find that the "
    "acceleration of states is the better sign to leave than KL or the step.",
    does="Ouro-style models of one layer of width 64 learn running arithmetic modulo 7 with both "
    "stages of Ouro's gate, with and without the entropy. Each exit rule gets 30 thresholds; "
    "accuracy is averaged over all budgets of mean iterations from 1 to T, where a rule may mix "
    "neighbouring thresholds. Acceleration and KL are compared by operations, with the readouts "
    f"that KL needs, on two bundled Huginn-style models at up to {LONG} iterations.",
    robust=("the entropy term keeps exits spread",),
    run=run,
)


if __name__ == "__main__":
    CLAIM.main()
