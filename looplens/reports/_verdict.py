"""The answer in words, computed from the numbers of a run.

Each sentence is chosen by thresholds that stand in this file and are printed with the report.
Nothing here knows a particular model.
"""

from __future__ import annotations

import math

from looplens.analysis.grouping import count_regimes
from looplens.plots._labels import cosine, number, percent
from looplens.reports._material import Material
from looplens.reports._recorded import plural
from looplens.reports._report import Statement

NEARLY_ALL, MOST = 0.98, 0.5
"""Shares from which "nearly all" and "most" are said."""
SAME_END = 0.99
"""Cosine of the limits of two restarts from which they count as the same."""
OVERTHINKING = 0.01
"""Loss of accuracy from the best to the last iteration that is worth a sentence."""


def verdict(material: Material) -> tuple[Statement, ...]:
    """Return the sentences of the verdict, the headline first.

    Parameters
    ----------
    material : Material
        The run and its analyses.
    """
    sentences = [
        *_incomplete(material),
        *_regimes(material),
        *_settling(material),
        *_path_independence(material),
        *_readout(material),
        *_cycle(material),
        *_non_finite(material),
    ]
    if not sentences:
        reasons = "; ".join(material.reasons.values()) or "nothing was recorded"
        sentences = [Statement(key="regimes", text=f"Nothing could be concluded: {reasons}")]
    return tuple(sentences)


def thresholds() -> str:
    """Return the sentence that explains how the words of the verdict are chosen."""
    return (
        f"Words: “nearly all” means at least {percent(NEARLY_ALL)}, “most” more than "
        f"{percent(MOST)}; restarts end in the same place when the cosine of their limits is at "
        f"least {SAME_END}."
    )


def _regimes(material: Material) -> list[Statement]:
    if "classify" not in material:
        return []
    counts = count_regimes(material["classify"]["regime"])
    total = int(counts.sum())
    if not total:
        return []
    fixed, orbit, slider, unresolved = (int(value) for value in counts.values)
    share = fixed / total
    if fixed == total:
        counted = plural(total, "trajectory", "trajectories")
        text = f"Every trajectory settles at a fixed point ({counted})."
        return [Statement(key="regimes", text=text)]
    if unresolved == total:
        counted = plural(total, "trajectory", "trajectories")
        return [Statement(key="regimes", text=f"No regime could be told for any of the {counted}.")]
    if fixed == 0:
        opening = "No trajectory settles at a fixed point"
    elif share >= NEARLY_ALL:
        opening = "Nearly all trajectories settle at a fixed point"
    elif share > MOST:
        opening = "Most trajectories settle at a fixed point"
    else:
        opening = "Some trajectories settle at a fixed point"
    others = [
        f"{percent(count / total)} {verb} ({count})"
        for count, verb in (
            (orbit, "orbit"),
            (slider, "drift on without settling"),
            (unresolved, "could not be resolved"),
        )
        if count
    ]
    detail = f"{percent(share)}, {fixed} of {total}"
    return [Statement(key="regimes", text=f"{opening} ({detail}); {'; '.join(others)}.")]


def _settling(material: Material) -> list[Statement]:
    if "convergence" not in material:
        return []
    settling = material["convergence"]["settling_iteration"]
    tolerance = settling.attrs.get("tolerance", settling.attrs.get("threshold"))
    share = material.number("convergence", "settled_share")
    median = material.number("convergence", "median_settling_iteration")
    if not math.isfinite(share):
        return []
    meaning = f"relative step below {number(tolerance)}" if tolerance is not None else "small steps"
    if share == 0:
        text = f"No trajectory stays still ({meaning} from some iteration on)."
    else:
        text = f"{percent(share)} of the trajectories slow down for good ({meaning})"
        text += f"; the median iteration is {number(median)}." if math.isfinite(median) else "."
    return [Statement(key="settling", text=text)]


def _path_independence(material: Material) -> list[Statement]:
    if "path_independence" not in material:
        return []
    score = material.number("path_independence", "aa_score")
    per_token = material["path_independence"]["token_aa"].values
    finite = per_token[~(per_token != per_token)]
    apart = int((finite < SAME_END).sum())
    if not finite.size or not math.isfinite(score):
        return []
    measured = f"alignment score {cosine(score)} over {plural(material.run.restarts, 'restart')}"
    if not apart:
        text = f"Where a token ends does not depend on the initial state ({measured})."
    elif apart / finite.size <= 1 - MOST:
        text = (
            f"Where a token ends depends on the initial state for {apart} of {finite.size} tokens "
            f"({measured})."
        )
    else:
        text = f"Where most tokens end depends on the initial state ({measured})."
    return [Statement(key="path_independence", text=text)]


def _readout(material: Material) -> list[Statement]:
    final = material.number("readout", "final_accuracy")
    best = material.number("readout", "best_accuracy")
    at = material.number("readout", "best_iteration")
    if not math.isfinite(final):
        return []
    after = plural(material.run.iterations, "iteration")
    text = f"After {after}, {percent(final)} of the predictions are right"
    if math.isfinite(best) and best - final > OVERTHINKING:
        text += (
            f"; the best was {percent(best)}, at iteration {number(at)}, and it fell after that."
        )
    elif math.isfinite(at):
        text += f", a level first reached at iteration {number(at)}." if best == final else "."
    return [Statement(key="readout", text=text)]


def _cycle(material: Material) -> list[Statement]:
    ratio = material.number("cycle", "median_separation_ratio")
    if not math.isfinite(ratio):
        return []
    if ratio > 10:
        text = (
            "The layers have limits of their own: they lie "
            f"{number(ratio)} times as far apart as the states still move."
        )
    else:
        text = (
            "The limits of the layers cannot be told apart from the motion that is left "
            f"(separation ratio {number(ratio)})."
        )
    return [Statement(key="cycle", text=text)]


def _incomplete(material: Material) -> list[Statement]:
    run = material.run
    if run.complete:
        return []
    blocks = f"{len(run.committed)} of {plural(run.n_blocks, 'block')}"
    text = f"The recording is not complete ({blocks}): this report is of a part of it."
    return [Statement(key="complete", text=text)]


def _non_finite(material: Material) -> list[Statement]:
    run = material.run
    if not run.non_finite:
        return []
    named = ", ".join(f"{name} ({count})" for name, count in run.non_finite.items())
    text = f"Numbers that are not finite were recorded: {named}."
    return [Statement(key="non_finite", text=text)]
