"""Commands that make models and a first run: demo, models, train."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from looplens.cli.exploring import print_findings
from looplens.cli.options import Overwrite

if TYPE_CHECKING:
    from looplens.models import LoopedTransformer
    from looplens.run import Run

# What `looplens models` says of a family; docs/models.md has the rest.
FACTS = (
    *("load", "initial_state", "injection", "default_depth", "exit_rule"),
    *("not_supported", "left_out"),
)
LAB_TOKENS = 4  # of the demo; more would take longer and say the same


def demo(
    out: Annotated[Path, typer.Option(help="Directory of the run.")] = Path("runs/demo"),
    model: Annotated[str, typer.Option(help="A bundled model.")] = "affine-huginn-mini",
    prompts: Annotated[int, typer.Option(min=1, help="How many prompts.")] = 16,
    iterations: Annotated[int, typer.Option(help="Passes of the loop.")] = 64,
    restarts: Annotated[int, typer.Option(help="Random initial states.")] = 4,
    overwrite: Overwrite = False,
) -> None:
    """Record a trained looped model, analyse the run, write a report.

    Example: `looplens demo --out runs/demo`
    """
    import looplens
    from looplens.models import model_card
    from looplens.tasks import prompts_trained_on

    console = Console()
    started = time.perf_counter()
    loaded = looplens.load_model(model)
    console.print(f"[bold]{model}[/] · {prompts} prompts, {iterations} iterations")
    random_start = loaded.cfg.initial_state == "noise"
    run = looplens.record(
        loaded,
        prompts_trained_on(model_card(model), prompts),
        out=out,
        iterations=iterations,
        restarts=restarts,
        initial_state=None if random_start else "perturbed",
        attention=2,
        overwrite=overwrite,
    )
    run.analyze()
    _ask_why(loaded, run)
    page = out.with_suffix(".html")
    run.report(page)
    summary = run.summary()
    _print_regimes(console, summary)
    _print_settling(console, summary)
    score = summary.get("path_independence", {}).get("aa_score")
    if score is not None:
        console.print(
            f"Path independence over {run.restarts} restarts (AA score, 1 is independent): "
            f"[bold]{score:.4f}[/]"
        )
    console.print(f"\nThe dynamics lab, on {LAB_TOKENS} tokens of the first prompt:")
    print_findings(run, console)
    console.print(f"\nRecorded and analysed in {time.perf_counter() - started:.0f} s")
    console.print(f"  run        {out}", highlight=False)
    console.print(f"  report     {page}   (open it in a browser)", highlight=False)
    console.print(f"  dashboard  looplens app {out}", highlight=False)


def _ask_why(model: LoopedTransformer, run: Run) -> None:
    """Let the dynamics lab look at a few tokens, so that its figures can be seen."""
    from looplens.dynamics import investigate

    parts = ["fixed_points", "spectra", "causes", "landscape"]
    investigate(model, run, parts, prompts=0, max_tokens=LAB_TOKENS)


def models() -> None:
    """List the models that ship with looplens, and the published families that it loads.

    Example: `looplens models`
    """
    import json

    from looplens.models import bundled_models, families, model_card

    console = Console()
    table = Table(box=None)
    table.add_column("name", no_wrap=True)
    for header in ("core", "parameters", "trained on", "accuracy", "at iteration"):
        table.add_column(header)
    for name, path in bundled_models().items():
        card = model_card(name)
        config = json.loads((path / "config.json").read_text())
        table.add_row(
            name,
            f"{config['n_core']} of d_model {config['d_model']}",
            f"{card['parameters']:,}",
            card["task"],
            f"{card['accuracy']:.2%}",
            str(card["recommended_iterations"]),
        )
    console.print("[bold]Bundled models[/]")
    console.print(table)
    console.print("\n[bold]Published families[/], loaded from a directory or the hub")
    for row in families.supported():
        console.print(f"\n[bold]{row['name']}[/]  {row['title']}", highlight=False)
        for fact in FACTS:
            name = f"  {fact.replace('_', ' '):<14}"
            console.print(name, row[fact], markup=False, soft_wrap=True, highlight=False)


def train(
    recipe: Annotated[
        str | None, typer.Argument(help="Name of a recipe; without one they are listed.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Directory of the model; models/RECIPE by default.")
    ] = None,
    steps: Annotated[
        int | None, typer.Option(help="Stop after so many steps instead of the recipe's.")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...")] = "cpu",
    threads: Annotated[int, typer.Option(help="CPU threads; results depend on it.")] = 1,
    resume: Annotated[bool, typer.Option(help="Go on from an interrupted training.")] = True,
) -> None:
    """Train a small looped model by a recipe.

    The resumable state lies in checkpoints/RECIPE until it is removed. Without a name the recipes
    are listed.

    Example: `looplens train affine-huginn-mini --out models/affine`
    """
    from looplens.training import train as run_training

    if recipe is None:
        _list_recipes()
        return
    target = out or Path("models") / recipe
    result = run_training(
        recipe, target, steps=steps, resume=resume, device=device, threads=threads
    )
    table = Table("iterations", "held-out accuracy")
    for iterations, accuracy in zip(
        result.evaluation.iterations, result.evaluation.accuracy, strict=True
    ):
        table.add_row(str(iterations), f"{accuracy:.4f}")
    console = Console()
    console.print(table)
    console.print(
        f"{result.steps} steps in {result.seconds:.0f} s; model: {target}", highlight=False
    )


def _list_recipes() -> None:
    from looplens.training import RECIPES

    console = Console()
    for name, recipe in sorted(RECIPES.items()):
        console.print(f"[bold]{name}[/]  {recipe.summary}", highlight=False, soft_wrap=True)
        facts = [f"task {recipe.task}", f"family {getattr(recipe.model, 'family', 'frey')}"]
        facts += [f"depth {recipe.depth}", f"{recipe.steps} steps of {recipe.batch}"]
        facts += [] if recipe.loss.kind == "last" else [f"loss: {recipe.loss}"]
        base = recipe.base
        facts += [] if base is None else [f"after {base.steps} steps of {base.name} ({base.loss})"]
        console.print("  " + " · ".join(facts), highlight=False, soft_wrap=True)
    console.print("\nTrain one: looplens train NAME", highlight=False)
    console.print(
        "More, by family and size, in Python: looplens.training.k_by_l, huginn, ouro, gate_stage, "
        "etd_recipe, frey, equal_flops, equal_parameters",
        highlight=False,
        soft_wrap=True,
    )


def _print_regimes(console: Console, summary: dict) -> None:
    from looplens.analysis import REGIMES

    counts = summary["classify"]
    table = Table("regime", "trajectories", "share", title="Regimes found", title_justify="left")
    for name in REGIMES:
        table.add_row(name, str(counts[f"n_{name}"]), f"{counts[f'{name}_share']:.1%}")
    console.print(table)


def _print_settling(console: Console, summary: dict) -> None:
    settling = summary.get("convergence", {}).get("settling_by_difficulty")
    if not settling:
        return
    table = Table(
        "difficulty",
        "iteration",
        title="Median settling iteration by difficulty",
        title_justify="left",
    )
    for level, value in settling.items():
        table.add_row(str(level), "never" if value is None else f"{value:.1f}")
    console.print(table)
