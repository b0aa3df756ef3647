"""The section on path independence: whether restarts end in the same place.

The numbers are those of the analysis ``path_independence``; the token that depends most on
its initial state is looked up and shown.
"""

from __future__ import annotations

import numpy as np
import xarray as xr

from looplens import plots
from looplens.plots._labels import cosine, number, percent, token_labels
from looplens.reports._material import Material
from looplens.reports._report import Fact, Picture, Section, Table

_WORST, _PROMPTS = 5, 5


def path_independence(material: Material) -> Section | None:
    """Return the section on path independence; None with a single restart."""
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
                _rate(one),
                number(float(one["gap_floor"])),
            )
        )
    worst = int(order[0])
    prompt = int(run.tokens["prompt"].values[worst])
    value = material.number
    # Prompts that agree least first; a prompt without any known token comes last.
    prompts = np.argsort(results["prompt_token_aa"].values, kind="stable")[:_PROMPTS]
    rate = value("path_independence", "median_gap_rate")
    expanding = value("path_independence", "expanding_share")
    return Section(
        key="path_independence",
        title="Path independence",
        text=(
            "Each prompt was run from several initial states. If the model is path independent, "
            "all of them end in the same place.",
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
                label="Factor per iteration, median token",
                value=number(rate),
                note="of the distance between restarts, above its floor"
                + (f"; it grows for {percent(expanding)} of the tokens" if expanding > 0 else ""),
            ),
            Fact(
                label="Same regime",
                value=percent(value("path_independence", "regime_agreement")),
                note="share of pairs of restarts",
            ),
            *(
                [
                    Fact(
                        label="Same period",
                        value=percent(value("path_independence", "period_agreement")),
                        note="share of pairs of restarts that are both orbits",
                    )
                ]
                if np.isfinite(value("path_independence", "period_agreement"))
                else []
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
            Table(
                caption="The prompts that depend most on the initial state",
                columns=tuple(_prompt_row(material, 0)),
                rows=tuple(tuple(_prompt_row(material, int(p)).values()) for p in prompts),
            ),
        ),
        pictures=(
            Picture(
                name="gap",
                figure=plots.restart_gaps(run, prompt),
                caption=f"Prompt {prompt}, which holds the token that depends most on the initial "
                "state. A row that turns dark forgets it.",
            ),
            Picture(
                name="restarts",
                figure=plots.restarts(run, worst),
                caption="The token that depends most on the initial state.",
            ),
        ),
    )


def _rate(token: xr.Dataset) -> str:
    """Write the rate of one token with its error."""
    rate, error = float(token["gap_rate"]), float(token["gap_rate_error"])
    return f"{number(rate)} ± {number(error, digits=1)}" if np.isfinite(rate) else number(rate)


def _prompt_row(material: Material, prompt: int) -> dict[str, str]:
    """Write the numbers of one prompt, by the heading of their column."""
    one = material["path_independence"].isel(prompt=prompt)
    row = {
        "prompt": str(prompt),
        "mean cosine": cosine(float(one["prompt_token_aa"])),
        "median final distance": number(float(one["prompt_final_gap"])),
        "factor per iteration": number(float(one["prompt_gap_rate"])),
    }
    if "classify" in material:
        regimes = material["classify"]["prompt_regime_agreement"]
        row["same regime"] = percent(float(regimes[prompt]))
    if "prompt_readout_agreement" in one:
        row["same prediction"] = percent(float(one["prompt_readout_agreement"]))
    return row
