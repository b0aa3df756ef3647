"""The section on lenses, where their result was stored: what is decoded inside the loop, and where.

The numbers are those of the analysis ``lens``.
"""

from __future__ import annotations

from looplens import plots
from looplens.plots._labels import number, percent
from looplens.reports._material import Material
from looplens.reports._report import Fact, Picture, Section, Table


def lens(material: Material) -> Section | None:
    """Return the section on lenses."""
    if "lens" not in material:
        return None
    results, run = material["lens"], material.run
    names = [str(name) for name in results["lens"].values]
    last = results["final_agreement"].isel(iteration=-1)
    rows = tuple(
        (str(layer), *(percent(float(last.sel(layer=layer, lens=name))) for name in names))
        for layer in results["layer"].values
    )
    iteration = int(results["iteration"].values[-1])
    difference = results.attrs["self_check_difference"]
    note = "the coda lens at the end of the loop against the model's own logits"
    if difference is not None:
        note += f"; largest difference {number(difference)} nats"
    return Section(
        key="lens",
        title="Lenses",
        text=(
            "What the model would say if a state inside the loop were read out at once: the logit "
            "lens goes straight to the norm and the head, the coda lens through the coda too. A "
            "lens tells something only after those layers where it agrees with the model.",
        ),
        facts=(
            Fact(
                label="Self-check",
                value=str(results.attrs["self_check"]),
                note=note,
            ),
        ),
        tables=(
            Table(
                caption=f"Tokens whose final prediction the lens shows, at iteration {iteration}",
                columns=("after layer", *(f"{name} lens" for name in names)),
                rows=rows,
            ),
        ),
        pictures=(
            Picture(
                name="lens-ranks",
                figure=plots.lens_ranks(run),
                caption="The last token that was read out. The rank of its target and of the "
                "model's final prediction, after every layer of every iteration.",
            ),
        ),
    )
