"""Claim 4: from any initial state to the same end, and what breaks it.

The 2x2 of input injection and random depth: run far beyond the trained depth, kicked, restarted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr
from torch import Tensor
from torch.nn.functional import cosine_similarity, normalize

from looplens.gallery import Claim, Outcome, Picture, Scale, Table, train_all
from looplens.gallery.intervals import Interval, above, below, mean_interval, paired, share_interval
from looplens.gallery.pictures import lines
from looplens.models import LoopedTransformer
from looplens.tasks import get_task
from looplens.training import DepthSampling, Recipe, Stage, evaluate, ouro

TASK, LENGTH, HOPS = "phop", 20, 2
ASKED = "phop:last=true"  # evaluated at the last letter, from which the hops exist by construction
TEXTS = {"length": LENGTH, "difficulty": (1, HOPS)}
TRAINED = 4  # iterations; the mean where the depth is random
CELLS = {
    "injection, random depth": ("add", "log_normal_poisson"),
    "injection, fixed depth": ("add", "fixed"),
    "no injection, random depth": ("none", "log_normal_poisson"),
    "no injection, fixed depth": ("none", "fixed"),
}
BOTH, INJECTED, _, NEITHER = CELLS
READ = (1, 2, 3, 4, 6, 8, 12, 16, 32, 64)  # iterations that are read out
FAR = 64
KICK = 0.1  # size of the noise over that of the state of each letter
LATE = FAR // 4  # the mean of so many last states stands for the end, so that orbits have one
KEPT = 0.05  # accuracy that may be lost between the trained depth and FAR


def seeds(scale: Scale) -> range:
    """Return more seeds than other claims have: four cells are compared with each other."""
    return range(scale.pick(smoke=1, quick=5, full=5))


def recipe(name: str, seed: int, scale: Scale) -> Recipe:
    """Describe one model: a looped layer that starts from the embedding, with a norm at the end."""
    injection, depth = CELLS[name]
    return ouro(
        TASK,
        iterations=TRAINED,
        gate=False,
        d_model=scale.pick(smoke=16, quick=48, full=64),
        n_ctx=64,
        name=f"{name} {seed}",
        model={"injection": injection},
        depth=DepthSampling(kind=depth, mean=TRAINED),
        backprop_iterations=6,
        steps=scale.pick(smoke=15, quick=700, full=2500),
        batch=scale.pick(smoke=8, quick=32, full=64),
        curriculum=(
            Stage(share=0.3, length=LENGTH, difficulty=(1, 1)),
            Stage(share=0.7, length=LENGTH, difficulty=(1, HOPS)),
        ),
        seed=seed,
    )


def guess() -> float:
    """Return how often the letter that a text has most often is the answer."""
    drawn = get_task(ASKED).sample(np.random.default_rng(0), 4000, **TEXTS)
    counts = np.apply_along_axis(np.bincount, 1, drawn.tokens[:, 1:], minlength=12)
    return float((counts.argmax(axis=1) == drawn.targets[:, -1]).mean())


def path(model: LoopedTransformer, tokens: Tensor, start: Tensor | None, count: int) -> Tensor:
    """Return the states (iteration 0..count, prompt, letter, d_model)."""
    embedding = model.token_embedding(tokens)
    injected = model.run_prelude(embedding)
    state = model.initial_state(injected, start, embedding=embedding)
    return torch.stack([state, *model.iterate(state, injected, count)])


def size(states: Tensor) -> Tensor:
    """Return the mean length over prompts and letters, without the mark of the hops."""
    return states[..., 1:, :].norm(dim=-1).mean(dim=(-2, -1))


@torch.no_grad()
def measure(model: LoopedTransformer, wanted: Recipe, scale: Scale) -> dict[str, NDArray | float]:
    """Measure accuracy, kick the state, and restart prompts from the ends of others."""
    task, rng = get_task(ASKED), wanted.generator("held_out")
    many = scale.pick(smoke=32, quick=1024, full=2048)
    accuracy = evaluate(model, task, rng, iterations=READ, sequences=many, **TEXTS).accuracy
    drawn = task.sample(rng, scale.pick(smoke=8, quick=96, full=192), **TEXTS)
    tokens = torch.from_numpy(drawn.tokens).to(scale.device)
    ran = path(model, tokens, None, FAR)
    own = ran[-LATE:].mean(0)
    # The kick: what it leaves, in units of how far different prompts are apart at that iteration.
    before = ran[TRAINED]
    noise = normalize(torch.from_numpy(rng.standard_normal(before.shape)).to(before), dim=-1)
    noise *= KICK * before.norm(dim=-1, keepdim=True)
    kicked = path(model, tokens, before + noise, FAR - TRAINED)
    apart = size(ran - ran.roll(1, dims=1))[TRAINED:]
    left = size(kicked - ran[TRAINED:]) / apart
    # The restarts: from where the loop ended on other prompts, as long again.
    cosines, between = [], []  # (prompt, letter) each
    for shift in range(1, scale.pick(smoke=2, quick=4, full=8)):
        again = path(model, tokens, ran[-1].roll(shift, dims=0), FAR)
        cosines.append(cosine_similarity(again[-LATE:].mean(0), own, dim=-1)[:, 1:])
        between.append(cosine_similarity(own.roll(shift, dims=0), own, dim=-1)[:, 1:])
    right = model.readout(ran[-1])[:, -1].argmax(-1).cpu().numpy() == drawn.targets[:, -1]
    last = torch.stack(cosines).mean(0)[:, -1].cpu().numpy()
    return {
        "accuracy": np.array(accuracy),
        "left": left.cpu().numpy(),
        "kick": float(left[-LATE:].mean()),
        "apart": float(apart[-1] / size(ran[-1])),
        "aa": float(torch.stack(cosines).mean()),
        "between": float(torch.stack(between).mean()),
        "told": last[right].mean() - last[~right].mean() if 0 < right.mean() < 1 else np.nan,
    }


def effects(value: Mapping[str, NDArray]) -> dict[str, Interval]:
    """Split the four cells, paired by seed, into two main effects and their interaction."""
    a, b, c, d = (value[name] for name in CELLS)
    return {
        "injection": mean_interval((a + b - c - d) / 2),
        "random depth": mean_interval((a - b + c - d) / 2),
        "interaction": mean_interval(a - b - c + d),
    }


def geometric(values: NDArray) -> Interval:
    """Return the geometric mean over seeds with its interval; below 1e-8 all is rounding."""
    found = mean_interval(np.log(np.maximum(values, 1e-8)))
    return replace(found, **{end: math.exp(getattr(found, end)) for end in ("mean", "low", "high")})


def helpers(on: Mapping[str, Interval]) -> str:
    """Name the main effects that surely make less of what is measured."""
    return " and ".join(n for n in ("injection", "random depth") if below(on[n])) or "neither"


def run(scale: Scale) -> Outcome:
    """Train the four kinds, run them far beyond their depth, kick and restart them."""
    recipes = {(name, seed): recipe(name, seed, scale) for name in CELLS for seed in seeds(scale)}
    models = train_all(recipes.values(), scale)
    scale.say("kicking and restarting")
    found = {key: measure(models[made.name], made, scale) for key, made in recipes.items()}

    def of(name: str, what: str) -> NDArray:
        return np.array([found[name, seed][what] for seed in seeds(scale)])

    def at(name: str, iterations: int) -> NDArray:
        return of(name, "accuracy")[:, READ.index(iterations)]

    level = guess()
    lost = {name: at(name, TRAINED) - at(name, FAR) for name in CELLS}
    fall = {name: mean_interval(values) for name, values in lost.items()}
    on_loss, on_kick = effects(lost), effects({name: of(name, "kick") for name in CELLS})
    aa, between, kick, apart = (
        {name: mean_interval(of(name, what)) for name in CELLS}
        for what in ("aa", "between", "kick", "apart")
    )
    told = of(INJECTED, "told")[np.isfinite(of(INJECTED, "told"))]
    apart_more = paired(of(BOTH, "aa"), of(BOTH, "between"))
    depth_more = paired(of(BOTH, "aa"), of(INJECTED, "aa"))
    right_more = mean_interval(told) if len(told) > 1 else None
    known = (BOTH, INJECTED)
    rank = spearmanr([of(n, "aa") for n in known], [at(n, FAR) for n in known], axis=None).statistic
    learned, after = (
        [np.mean([at(n, count) for n in CELLS if word in n]) for word in ("random", "fixed")]
        for count in (TRAINED, FAR)
    )
    gone = [(a - b) / (a - level) for a, b in zip(learned, after, strict=True)]
    columns = {
        f"accuracy at {TRAINED}": lambda name: share_interval(at(name, TRAINED)),
        f"at {FAR}": lambda name: share_interval(at(name, FAR)),
        "lost": fall.get,
        "alignment of restarts": aa.get,
        "of different prompts": between.get,
        "kick left": kick.get,
        f"distance between prompts at {FAR}, over the norm": apart.get,
    }
    accuracies = lines(
        {name: (READ, list(map(share_interval, of(name, "accuracy").T))) for name in CELLS},
        title="Accuracy by iterations at test time", x="iterations", y="held-out accuracy",
        subtitle=f"p-hop of 1 to {HOPS} hops, at the last of {LENGTH} letters", log_x=True,
        y_range=(0, 1.02), marks={"trained depth": TRAINED}, level=("", level),
    )  # fmt: skip
    since = (1, 2, 4, 8, 16, 32, FAR - TRAINED)
    kicks = lines(
        {name: (since, list(map(geometric, of(name, "left")[:, since].T))) for name in CELLS},
        title=f"What is left of a kick at iteration {TRAINED}", x="iterations since the kick",
        subtitle="distance from the path without it, over the distance between prompts",
        y="share of the distance between prompts", log_x=True, log_y=True,
    )  # fmt: skip
    return Outcome(
        checks={
            "with both, restarts align with the own end (above 0.95)": above(aa[BOTH], 0.95),
            "with both, restarts align more than different prompts do": above(apart_more),
            "with injection, random depth makes restarts align more": above(depth_more),
            "with injection and fixed depth, prompts that end wrong align less": right_more
            and above(right_more),
            f"with both, less than {KEPT:g} of accuracy is lost": below(fall[BOTH], KEPT),
            f"with neither, more than {KEPT:g} is lost": above(fall[NEITHER], KEPT),
            "injection reduces the loss (main effect)": below(on_loss["injection"]),
            "random depth reduces the loss (main effect)": below(on_loss["random depth"]),
            "injection reduces what a kick leaves (main effect)": below(on_kick["injection"]),
            "random depth reduces what a kick leaves (main effect)": below(on_kick["random depth"]),
        },
        tables=(
            Table(
                title=f"Accuracy (guess: {level:.2f}), restarts from the ends of other prompts, "
                f"and a kick of {KICK:g} of the state at iteration {TRAINED}",
                columns=("model", *columns),
                rows=[(name, *(cell(name) for cell in columns.values())) for name in CELLS],
            ),
            Table(
                title="The 2x2, paired by seed",
                columns=("effect", "on accuracy lost", "on what a kick leaves"),
                rows=[(name, on_loss[name], on_kick[name]) for name in on_loss],
            ),
        ),
        pictures=(
            Picture(
                name="accuracy",
                figure=accuracies,
                caption="Held-out accuracy beyond the trained depth; bands are 95 % intervals over "
                "seeds. Level line: guessing the letter that the text has most often.",
            ),
            Picture(
                name="kick",
                figure=kicks,
                caption=f"Noise of {KICK:g} of the state. Geometric means with 95 % intervals.",
            ),
        ),
        summary=(
            "Restarted from the ends of other prompts, models with injection and random depth "
            f"align to {aa[BOTH]:.3f} (different prompts to {between[BOTH]:.2f}), those with "
            f"injection and a fixed depth to {aa[INJECTED]:.3f}. From {TRAINED} to {FAR} "
            f"iterations accuracy falls by {', '.join(f'{fall[n]:.2f} ({n})' for n in CELLS)}. "
            f"As main effects, injection changes the fall by {on_loss['injection']:.2f} and random "
            f"depth by {on_loss['random depth']:.2f}; what a kick leaves changes by "
            f"{on_kick['injection']:.2f} and {on_kick['random depth']:.2f}. So accuracy is kept by "
            f"{helpers(on_loss)}, and the way back after a kick by {helpers(on_kick)}. Alignment "
            f"and accuracy at {FAR} iterations have a rank correlation of {rank:.2f} over models "
            "with injection, in which the two kinds of depth are mixed; within those of fixed "
            f"depth, prompts that end right align {right_more or 'an unknown amount'} more."
        ),
        limits=(
            f"Accuracy at {TRAINED} iterations is {learned[0]:.2f} with random and "
            f"{learned[1]:.2f} with fixed depth; where less is learned, there is less to lose. Of "
            f"what is above guessing, {gone[0]:.0%} and {gone[1]:.0%} is lost.",
            "Nothing harder than in training is asked; the paper is about harder problems.",
            "Without injection the state is all that the loop knows of the prompt, and a restart "
            "from another prompt's end is that prompt going on, by definition. Restarts are "
            "compared among models with injection only; all four are compared by a small kick.",
            "A kick tests the neighbourhood of one path (large noise at the start, tried first, "
            "drowns the prompt without injection). An orbit in another phase counts as left over; "
            f"alignments are of means of the last {LATE} states, in the paper's code of the last.",
            "Injection is an addition here and all start from the embedding, as models without "
            "injection must; Huginn concatenates and starts from noise. Training has targets at "
            "every letter, accuracy is that at the last letter of texts in which the hops exist.",
        ),
    )


CLAIM = Claim(
    number=4,
    slug="path-independence",
    title="With injection and random depth, a loop forgets where it started",
    paper="Anil et al., Path Independent Equilibrium Models Can Better Exploit Test-Time "
    "Computation, arXiv:2211.09961 (abstract and public code); Blayney et al., arXiv:2604.11791, "
    "on injection; Geiping et al., arXiv:2502.05171, figure 22",
    says="Anil et al.: equilibrium models do better with more iterations the more path independent "
    "they are (an asymptotic alignment score near 1), over models and over single inputs, and "
    "interventions that promote it help; from secondary sources, these are mixed starts and a "
    "random depth. Blayney et al.: injection gives stable fixed points, at initialisation. Huginn, "
    "which has injection and random depth, goes to the same orbits and fixed points from several "
    "random starts, by eye. That each of the two has a share of its own is put together here and "
    "stated by none of them.",
    does="One looped layer (norm at the loop boundary, start from the embedding) learns p-hop "
    "induction in the four combinations of input injection (added, or none) and depth (always "
    "four iterations, or log-normal-Poisson with that mean), over five seeds. Each is read out at "
    "up to 64 iterations. At iteration 4, when the input has been read, noise of a tenth of the "
    "state is added, and what is left of it measured in distances between prompts. Then each "
    "prompt is restarted from the states in which the loop ended on other prompts, as in the "
    "score of Anil et al.",
    robust=("with both, restarts align more than different prompts do",),
    run=run,
)

if __name__ == "__main__":
    CLAIM.main()
