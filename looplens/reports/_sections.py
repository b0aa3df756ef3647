"""The sections of a report with numbers and figures, one function an analysis.

Each function takes the material and returns a section, or None when its analysis is missing. They choose what
to show (the most telling prompt, the worst token) and write it down; the numbers are those of the analyses.
"""

from __future__ import annotations

import numpy as np

from looplens import plots
from looplens.plots import _groups
from looplens.plots._labels import cosine, escape, number, percent, subtitle, token_labels
from looplens.reports._material import Material
from looplens.reports._recorded import plural
from looplens.reports._report import Fact, Picture, Section, Table
from looplens.reports.conditions import flatten

_MOST_EXAMPLES = 3
_WORST = 5


def convergence(material: Material) -> Section | None:
    """Return the section on convergence: when tokens settle, and how."""
    if "convergence" not in material:
        return None
    run, results = material.run, material["convergence"]
    settling = results["settling_iteration"]
    groups = _groups.group_tokens(run)
    medians = _groups.median_by_group(settling, groups).values
    counts = [int((groups.number == group).sum()) for group in range(len(groups.labels))]
    rows = tuple(
        (label, str(count), number(median) if np.isfinite(median) else "half or more never settle")
        for label, count, median in zip(groups.labels, counts, medians, strict=True)
    )
    prompt = telling_prompt(material)
    pictures = [
        Picture(
            name="convergence",
            figure=plots.convergence_heatmap(run, prompt=prompt),
            caption=f"Prompt {prompt}, restart 0. A token that settles turns dark and stays dark; the ring is its "
            "settling iteration. A row that stays bright orbits or drifts.",
        ),
        Picture(
            name="settling",
            figure=plots.settling(run, groups.by),
            caption="One point a trajectory. Trajectories that never settle are counted as the latest in the "
            "median, so a median can be missing.",
        ),
    ]
    return Section(
        key="convergence",
        title="Convergence",
        facts=(
            Fact(
                label="Trajectories that settle",
                value=percent(material.number("convergence", "settled_share")),
                note=threshold_note(settling.attrs),
            ),
            Fact(
                label="Median settling iteration",
                value=number(material.number("convergence", "median_settling_iteration")),
                note=f"of {plural(run.iterations, 'iteration')}",
            ),
        ),
        tables=(
            Table(
                caption=f"Settling by {groups.by}",
                columns=(groups.by, "tokens", "median settling iteration"),
                rows=rows,
            ),
        ),
        pictures=tuple(pictures),
    )


def threshold_note(attributes: dict) -> str:
    """Return the note that names the tolerance of a settling iteration."""
    tolerance = attributes.get("tolerance", attributes.get("threshold"))
    return "" if tolerance is None else f"relative step below {number(float(tolerance))} to the end"


def telling_prompt(material: Material, recorded: tuple[int, ...] | None = None) -> int:
    """Return the prompt with the most trajectories that are not fixed points; the first one on a tie."""
    run = material.run
    allowed = range(run.n_prompts) if recorded is None else recorded
    if "classify" not in material:
        return next(iter(allowed))
    moving = (material["classify"]["regime"].transpose("restart", "token") != "fixed_point").values
    return max(allowed, key=lambda prompt: int(moving[:, run.token_range(prompt)].sum()))


def regimes(material: Material) -> Section | None:
    """Return the section on regimes: counts, examples and their trajectories."""
    if "classify" not in material:
        return None
    run, results = material.run, material["classify"]
    counts = _groups.count_regimes(results["regime"]).values
    unit_counts = _groups.count_regimes(results["unit_regime"]).values
    styles = plots.palette("light").regimes
    count_rows = tuple(
        (
            styles[name].label,
            str(int(count)),
            percent(material.number("classify", f"{name}_share")),
            str(int(unit_count)),
        )
        for name, count, unit_count in zip(plots.REGIMES, counts, unit_counts, strict=True)
    )
    examples = plots.regime_examples(run, results, most=_MOST_EXAMPLES)
    example_rows = []
    for name, listed in examples.items():
        for restart, token, _ in listed:
            one = results.isel(restart=restart, token=token)
            example_rows.append(
                (
                    styles[name].label,
                    token_labels(run, [token], position=True, escaped=False)[0],
                    str(int(run.tokens["prompt"].values[token])),
                    str(restart),
                    number(float(one["period"])),
                    number(float(one["amplitude"])),
                    str(one["reason"].values),
                )
            )
    pictures = [
        Picture(
            name="regimes",
            figure=plots.regimes(run),
            caption="Restarts are counted apart. Point at a bar for examples.",
        ),
        *_example_pictures(material),
    ]
    return Section(
        key="regimes",
        title="Regimes",
        text=(
            "A fixed point is approached and kept; an orbit comes back to the same states again and "
            "again; a slider drifts on. What the recording does not decide is called unresolved, with the reason. "
            "A slider that is a fixed point on states of unit norm only grows in norm.",
            *_small_orbits(material),
        ),
        tables=(
            Table(
                caption="Trajectories per regime",
                columns=("regime", "trajectories", "share", "on states of unit norm"),
                rows=count_rows,
            ),
            Table(
                caption="Examples, the largest motion first",
                columns=(
                    "regime",
                    "token",
                    "prompt",
                    "restart",
                    "period (iterations)",
                    "relative amplitude",
                    "reason",
                ),
                rows=tuple(example_rows),
            ),
        ),
        pictures=tuple(pictures),
    )


def _small_orbits(material: Material) -> tuple[str, ...]:
    """Return the caution about orbits that are probably driven by another token."""
    small = material.number("classify", "n_small_orbits")
    threshold = material["classify"]["amplitude"].attrs.get("threshold")
    if not small > 0 or threshold is None:
        return ()
    return (
        f"{plural(int(small), 'orbit')} had a relative amplitude below {number(threshold)}: such orbits are often "
        "driven by another token of the prompt and not of the token's own making.",
    )


def _example_pictures(material: Material) -> list[Picture]:
    """Return one trajectory figure a regime, with a few tokens of restart 0."""
    if "pca" not in material:
        return []
    run, basis = material.run, material["pca"]
    first = material["classify"].isel(restart=[0])
    pictures = []
    for name, listed in plots.regime_examples(run, first, most=_MOST_EXAMPLES).items():
        tokens = [token for _, token, _ in listed]
        if not tokens:
            continue
        label = plots.palette("light").regimes[name].label
        prompts = run.tokens["prompt"].values[tokens]
        labels = [
            f"{text}, prompt {prompt}"
            for text, prompt in zip(token_labels(run, tokens, position=True), prompts, strict=True)
        ]
        figure = plots.trajectory_figure(
            basis["projection"].isel(restart=0, token=tokens),
            basis["explained_variance_ratio"],
            tokens=tokens,
            labels=labels,
            subtitle=subtitle(run, escape(label), "restart 0", "loop state"),
        )
        figure.update_layout(title_text=f"Trajectories: {label}")
        pictures.append(
            Picture(
                name=f"trajectory-{name}",
                figure=figure,
                caption="Examples in the first two principal components of all states of the run.",
            )
        )
    return pictures


def path_independence(material: Material) -> Section | None:
    """Return the section on path independence: do restarts end in the same place?"""
    if "path_independence" not in material:
        return None
    run, results = material.run, material["path_independence"]
    order = np.argsort(results["token_aa"].values, kind="stable")[:_WORST]
    labels = token_labels(run, order, position=True, escaped=False)
    rows = []
    for label, token in zip(labels, order, strict=True):
        one = results.isel(token=int(token))
        rows.append(
            (
                label,
                str(int(run.tokens["prompt"].values[token])),
                cosine(float(one["token_aa"])),
                number(float(one["final_gap"])),
                number(float(one["gap_rate"])),
                number(float(one["gap_floor"])),
            )
        )
    worst = int(order[0])
    prompt = int(run.tokens["prompt"].values[worst])
    value = material.number
    return Section(
        key="path_independence",
        title="Path independence",
        text=(
            "Each prompt was run from several initial states. If the model is path independent, all of them "
            "end in the same place.",
        ),
        facts=(
            Fact(
                label="Alignment score",
                value=cosine(value("path_independence", "aa_score")),
                note="mean cosine between the limits of restarts; 1 is path independent",
            ),
            Fact(
                label="Final distance, median token",
                value=number(value("path_independence", "median_final_gap")),
                note="relative to the norm of the state",
            ),
            Fact(
                label="Final distance, worst token",
                value=number(value("path_independence", "max_final_gap")),
                note="relative to the norm of the state",
            ),
            Fact(
                label="Same regime",
                value=percent(value("path_independence", "regime_agreement")),
                note="share of pairs of restarts",
            ),
            *(
                [
                    Fact(
                        label="Same prediction at the end",
                        value=percent(value("path_independence", "readout_agreement")),
                        note="share of pairs of restarts",
                    )
                ]
                if "readout_agreement" in results
                else []
            ),
        ),
        tables=(
            Table(
                caption="The tokens that depend most on the initial state",
                columns=(
                    "token",
                    "prompt",
                    "cosine of the limits",
                    "final distance",
                    "factor per iteration",
                    "floor",
                ),
                rows=tuple(rows),
            ),
        ),
        pictures=(
            Picture(
                name="gap",
                figure=plots.convergence_heatmap(run, prompt=prompt, quantity="gap"),
                caption=f"Prompt {prompt}, which holds the token that depends most on the initial state. "
                "A row that turns dark forgets it.",
            ),
            Picture(
                name="restarts",
                figure=plots.restarts(run, worst),
                caption="The token that depends most on the initial state.",
            ),
        ),
    )


def readout(material: Material) -> Section | None:
    """Return the section on predictions after each iteration."""
    if "readout" not in material:
        return None
    results, value = material["readout"], material.number
    by = "difficulty" if "accuracy_by_difficulty" in results else None
    facts = [
        Fact(
            label="Prediction settles, median",
            value=number(value("readout", "median_prediction_settling")),
            note="first iteration from which on the best token stays the same",
        )
    ]
    if np.isfinite(value("readout", "final_accuracy")):
        facts += [
            Fact(
                label="Accuracy at the last iteration",
                value=percent(value("readout", "final_accuracy")),
                note="tokens with a target",
            ),
            Fact(
                label="Best accuracy",
                value=percent(value("readout", "best_accuracy")),
                note=f"at iteration {number(value('readout', 'best_iteration'))}",
            ),
        ]
    return Section(
        key="readout",
        title="Predictions after each iteration",
        facts=tuple(facts),
        pictures=(
            Picture(
                name="readout",
                figure=plots.readout(material.run, by),
                caption="What the model would answer if the loop stopped there.",
            ),
        ),
    )


def cycle(material: Material) -> Section | None:
    """Return the section on the limits of the layers."""
    if "cycle" not in material or material.run.n_layers < 2:
        return None
    run, results, value = material.run, material["cycle"], material.number
    ratio = results["separation_ratio"].isel(restart=0).values
    settled = np.isfinite(ratio)
    if "classify" in material:
        settled &= material["classify"]["regime"].isel(restart=0).values == "fixed_point"
    candidates = np.flatnonzero(settled)
    pictures = []
    if candidates.size:
        typical = int(candidates[np.argsort(ratio[candidates])[candidates.size // 2]])
        pictures.append(
            Picture(
                name="cycle",
                figure=plots.cycle(run, typical),
                caption="The settled token with the middle separation ratio. Large markers are the limits of the layers, "
                "small ones the states on the way there; the lighter arrow passes the loop boundary.",
            )
        )
    return Section(
        key="cycle",
        title="Cycle over the layers",
        text=(
            "When the loop settles, every layer settles at a point of its own, and an iteration visits them "
            "in turn. Layers that all share one point add nothing any more.",
        ),
        facts=(
            Fact(
                label="Separation ratio, median",
                value=number(value("cycle", "median_separation_ratio")),
                note="mean distance between limits over the motion that is left",
            ),
            Fact(
                label="Degeneracy, median",
                value=cosine(value("cycle", "median_degeneracy")),
                note="smallest cosine between the limits of layer 0 and another; 1 is one shared point",
            ),
        ),
        pictures=tuple(pictures),
    )


def attention(material: Material) -> Section | None:
    """Return the section on attention, if it was recorded."""
    if "attention_change" not in material:
        return None
    run = material.run
    prompt = telling_prompt(material, run.attention_prompts)
    return Section(
        key="attention",
        title="Attention",
        facts=(
            Fact(
                label="Change at the last iteration",
                value=number(material.number("attention_change", "final_change")),
                note="total variation, mean over heads and queries; 0 is no change",
            ),
            Fact(
                label="Change at iteration 2",
                value=number(material.number("attention_change", "first_change")),
                note="the same measure, for comparison",
            ),
        ),
        pictures=(
            Picture(
                name="attention-change",
                figure=plots.attention_change(run, prompt),
                caption="Attention that stabilises turns dark. Total variation is half the sum of the absolute "
                "differences of the weights, between 0 and 1.",
            ),
            Picture(
                name="attention",
                figure=plots.attention(run, prompt, run.iterations),
                caption=f"Prompt {prompt} at the last iteration, first layer, mean over heads.",
            ),
        ),
    )


def numbers(material: Material) -> Section:
    """Return the table of all numbers, under the names that conditions use."""
    rows = tuple(
        (name, value if isinstance(value, str) else number(value, digits=5))
        for name, value in flatten(material.summary).items()
    )
    return Section(
        key="numbers",
        title="All numbers",
        text=("The names are those that a condition can use, such as --fail-if 'classify.orbit_share > 0.1'.",),
        tables=(Table(caption="Summary", columns=("name", "value"), rows=rows),),
    )
