"""Commands that run models: demo, models, train, record."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from looplens.errors import InputError

if TYPE_CHECKING:
    import torch

    from looplens.prompts import Prompt

Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace a run that is there.")]
# What `looplens models` says of a family; docs/models.md has the rest.
FACTS = (
    *("load", "initial_state", "injection", "default_depth", "exit_rule"),
    *("not_supported", "left_out"),
)
Seed = Annotated[int, typer.Option(min=0, help="Seed of the first restart.")]


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
    console.print(f"\nRecorded and analysed in {time.perf_counter() - started:.0f} s")
    console.print(f"  run        {out}", highlight=False)
    console.print(f"  report     {page}   (open it in a browser)", highlight=False)
    console.print(f"  dashboard  looplens app {out}", highlight=False)


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
    recipe: Annotated[str, typer.Argument(help="Name of a recipe, as in `looplens models`.")],
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

    The resumable state lies in checkpoints/RECIPE until it is removed.

    Example: `looplens train affine-huginn-mini --out models/affine`
    """
    from looplens.training import train as run_training

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


def record(
    model: Annotated[str, typer.Argument(help="A bundled model or a checkpoint directory.")],
    out: Annotated[Path, typer.Option(help="Directory of the run.")],
    prompt: Annotated[list[str] | None, typer.Option(help="A prompt; may be repeated.")] = None,
    prompts: Annotated[
        Path | None, typer.Option(help="A text file with one prompt a line.")
    ] = None,
    task: Annotated[str | None, typer.Option(help="Draw prompts from a synthetic task.")] = None,
    n: Annotated[int, typer.Option("--n", min=1, help="How many prompts to draw.")] = 16,
    iterations: Annotated[
        int | None, typer.Option(help="Passes of the loop; the model's recommended depth.")
    ] = None,
    restarts: Annotated[int, typer.Option(help="Random initial states for each prompt.")] = 1,
    initial_state: Annotated[
        str | None, typer.Option(help="noise, zeros, embedding, prelude, perturbed[:SCALE].")
    ] = None,
    site: Annotated[
        list[str] | None, typer.Option(help="Site to keep, e.g. resid_post; may be repeated.")
    ] = None,
    attention: Annotated[int, typer.Option(help="Keep attention of the first so many.")] = 0,
    readout: Annotated[bool, typer.Option(help="Keep what the model would say.")] = True,
    dtype: Annotated[str, typer.Option(help="float32 or float16, of the stored states.")] = (
        "float32"
    ),
    batch_size: Annotated[int | None, typer.Option(help="Prompts in a block.")] = None,
    seed: Seed = 0,
    loop: Annotated[
        str | None, typer.Option(help="START:STOP, the layers to loop of an ordinary decoder.")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, ...")] = "cpu",
    precision: Annotated[
        str | None, typer.Option(help="float32 or bfloat16, of the model; as stored by default.")
    ] = None,
    overwrite: Overwrite = False,
    progress: Annotated[bool, typer.Option(help="Show a progress bar.")] = True,
) -> None:
    """Run a model and write every state of every pass to a run.

    Without prompts, they are drawn from the task that the model was trained on.

    Example: `looplens record affine-huginn-mini --out runs/a --prompt "3+4*2" --iterations 64`
    """
    import looplens
    from looplens.models import model_card
    from looplens.tasks import get_task, prompts_trained_on

    loaded = looplens.load_model(
        model, device=device, dtype=_precision(precision), loop=_span(loop)
    )
    given: list[str | Prompt] = list(prompt or [])
    if prompts is not None:
        given += _read_prompts(prompts)
    if task is not None:
        given += get_task(task).prompts(n, seed=seed)
    elif not given:
        given += prompts_trained_on(model_card(model), n, seed)
    run = looplens.record(
        loaded,
        given,
        out=out,
        iterations=iterations,
        restarts=restarts,
        initial_state=initial_state,
        sites=site or ("resid_post",),
        attention=attention,
        readout=readout,
        dtype=dtype,
        batch_size=batch_size,
        seed=seed,
        overwrite=overwrite,
        progress=progress,
    )
    console = Console()
    console.print(
        f"wrote {out}: {run.n_prompts} prompts, {run.n_tokens} tokens, "
        f"{run.iterations} iterations, {run.restarts} restarts",
        highlight=False,
    )
    console.print(f"next: looplens report {out} --out {out.with_suffix('.html')}", highlight=False)


def _precision(name: str | None) -> torch.dtype | None:
    import torch

    known = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if name is not None and name not in known:
        raise InputError(f"unknown precision {name!r}: expected {', '.join(known)}")
    return known[name] if name else None


def _span(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    start, colon, stop = text.partition(":")
    if not (colon and start.isdigit() and stop.isdigit()):
        raise InputError(f"expected --loop START:STOP, such as 4:10, got {text!r}")
    return int(start), int(stop)


def _read_prompts(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read the prompts in {path}: {error}") from None
    found = [line for line in lines if line.strip()]
    if not found:
        raise InputError(f"{path} holds no prompts: expected one a line")
    return found


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
