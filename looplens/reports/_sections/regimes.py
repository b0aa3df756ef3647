"""The section on regimes: how many trajectories orbit, drift or settle, and what they look like.

The verdicts are those of the analysis ``classify``; here they are counted and examples are shown.
"""

from __future__ import annotations

import numpy as np

from looplens import plots
from looplens.analysis import KINDS_OF_REGIMES, grouping
from looplens.analysis.measures import power
from looplens.plots._labels import escape, number, percent, subtitle, token_labels
from looplens.plots._verdict import OF_REGIME
from looplens.reports._material import Material
from looplens.reports._recorded import plural
from looplens.reports._report import Picture, Section, Table

_MOST_EXAMPLES = 3
_NUMBERS = {
    "rate": "rate",
    "turns": "turns",
    "speed": "speed (1 / iteration)",
    "straightness": "straightness",
    "p_value": "p-value",
}


def regimes(material: Material) -> Section | None:
    """Return the section on regimes: counts, examples and their trajectories."""
    if "classify" not in material:
        return None
    run, results = material.run, material["classify"]
    counts = grouping.count_regimes(results["regime"]).values
    unit_counts = grouping.count_regimes(results["unit_regime"]).values
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
                    number(float(one["p_value"])),
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
            "A fixed point is approached and kept; an orbit comes back to the same states again "
            "and again; a slider drifts on. What the recording does not decide is called "
            "unresolved, with the reason. A slider that is a fixed point on states of unit norm "
            "only grows in norm.",
            *_small_orbits(material),
            *_significance(material),
            *_power(material),
        ),
        tables=(
            Table(
                caption="Trajectories per regime",
                columns=("regime", "trajectories", "share", "on states of unit norm"),
                rows=count_rows,
            ),
            _kinds(material),
            Table(
                caption="Examples, the largest motion first",
                columns=(
                    "regime",
                    "token",
                    "prompt",
                    "restart",
                    "period (iterations)",
                    "relative amplitude",
                    "p-value",
                    "reason",
                ),
                rows=tuple(example_rows),
            ),
        ),
        pictures=tuple(pictures),
    )


def _kinds(material: Material) -> Table:
    """Return the kinds that occur, with the numbers that go with them."""
    results = material["classify"]
    kind = results["kind"].values
    styles = plots.palette("light").regimes
    rows = []
    for regime, kinds in KINDS_OF_REGIMES.items():
        for name, meaning in kinds.items():
            here = kind == name
            if not here.any():
                continue
            middle = [
                _middle(results[column].values[here]) if column in OF_REGIME[regime] else "–"
                for column in _NUMBERS
            ]
            rows.append(
                (
                    styles[regime].label,
                    name.replace("_", " "),
                    str(int(here.sum())),
                    meaning,
                    *middle,
                )
            )
    return Table(
        caption="Kinds, with medians",
        columns=("regime", "kind", "trajectories", "meaning", *_NUMBERS.values()),
        rows=tuple(rows),
    )


def _middle(values: np.ndarray) -> str:
    known = values[np.isfinite(values)]
    return number(float(np.median(known))) if known.size else "–"


def _significance(material: Material) -> tuple[str, ...]:
    """Return how many p-values are small, and how many would be by chance."""
    found = material.summary["classify"]
    tested, chance = material.number("classify", "n_tested"), found.get("n_significant_by_chance")
    if not tested > 0 or not isinstance(chance, float):
        return ()
    small = int(material.number("classify", "n_significant"))
    return (
        f"Of {plural(int(tested), 'trajectory', 'trajectories')} without a fixed point {small} "
        f"{'has' if small == 1 else 'have'} a p-value of at most 0.05 against surrogates that keep "
        f"all sizes and lose the order; by chance alone about {number(chance)} would.",
    )


def _power(material: Material) -> tuple[str, ...]:
    """Return what so many tokens can show of rare orbits and sliders."""
    found = material.summary["classify"]
    needed, chance = found.get("tokens_needed"), found.get("chance_of_seeing")
    if not isinstance(needed, dict) or not isinstance(chance, dict):
        return ()
    moving = int(found["n_moving_tokens"])
    sources = {f"{rate:g}": source for rate, source in power.BASE_RATES}
    words = "; ".join(
        f"at a share of {percent(float(rate))} ({sources[rate]}) it takes "
        f"{plural(int(tokens), 'token')}, and this run had a chance of "
        f"{percent(float(chance[rate]))}"
        for rate, tokens in needed.items()
    )
    seen = (
        f"{plural(moving, 'token')} orbit{'s' if moving == 1 else ''} or "
        f"slide{'s' if moving == 1 else ''}"
        if moving
        else "No token with a regime orbits or slides"
    )
    unseen = found.get("largest_moving_share")
    if not moving and isinstance(unseen, float):
        seen += f", which rules out only shares above {percent(unseen)} (at 95 %)"
    return (
        f"{seen}. To see at least one token that does not settle with a probability of 95 %: "
        f"{words}. Tokens of one prompt are not independent, so this is the best case.",
    )


def _small_orbits(material: Material) -> tuple[str, ...]:
    """Return the caution about orbits that are probably driven by another token."""
    small = material.number("classify", "n_small_orbits")
    threshold = material["classify"]["amplitude"].attrs.get("threshold")
    if not small > 0 or threshold is None:
        return ()
    return (
        f"{plural(int(small), 'orbit')} had a relative amplitude below {number(threshold)}: such "
        "orbits are often driven by another token of the prompt and not of the token's own "
        "making.",
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
        paths = basis["projection"].isel(restart=0, token=tokens).expand_dims(layer=[-1])
        found = paths.to_dataset().assign(
            explained_variance_ratio=basis["explained_variance_ratio"]
        )
        figure = plots.trajectory_figure(
            found.isel(component=[0, 1]),
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
