"""The command ``record``: run a model and write its run, in part, in parts, or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from looplens.cli import options
from looplens.errors import InputError, LoopLensError

if TYPE_CHECKING:
    import torch

    from looplens.prompts import Prompt

WHAT, HOW, LARGE = "What is recorded", "How it is run", "Large runs"


def _option(panel: str, help: str, *names: str, **more: Any) -> Any:
    return typer.Option(*names, help=help, rich_help_panel=panel, **more)


def record(
    model: Annotated[str, typer.Argument(help="A bundled model or a checkpoint directory.")],
    out: Annotated[str, typer.Option(help="Directory or URL of the run.")],
    prompt: Annotated[list[str] | None, typer.Option(help="A prompt; may be repeated.")] = None,
    prompts: Annotated[
        Path | None, typer.Option(help="A text file with one prompt a line.")
    ] = None,
    task: Annotated[str | None, typer.Option(help="Draw prompts from a synthetic task.")] = None,
    n: Annotated[int, typer.Option("--n", min=1, help="How many prompts to draw.")] = 16,
    site: Annotated[
        list[str] | None, _option(WHAT, "Site to keep, e.g. resid_post; may be repeated.")
    ] = None,
    layers: Annotated[
        str | None, _option(WHAT, "Core layers to keep: 0,3 or 1:4 or -1. All by default.")
    ] = None,
    keep_iterations: Annotated[
        str, _option(WHAT, "Iterations to keep: all, every:4, last:8 or 1,2,3.")
    ] = "all",
    tokens: Annotated[
        str, _option(WHAT, "Tokens to keep of each prompt: all, last, or positions such as 0,-1.")
    ] = "all",
    reduce: Annotated[
        str | None, _option(WHAT, "Store states in fewer dimensions: random:64 or pca:64.")
    ] = None,
    attention: Annotated[int, _option(WHAT, "Keep attention of the first so many.")] = 0,
    readout: Annotated[bool, _option(WHAT, "Keep what the model would say.")] = True,
    dtype: Annotated[str, _option(WHAT, "float32 or float16, of the stored states.")] = "float32",
    iterations: Annotated[
        int | None, _option(HOW, "Passes of the loop; the model's recommended depth.")
    ] = None,
    restarts: Annotated[int, _option(HOW, "Random initial states for each prompt.")] = 1,
    initial_state: Annotated[
        str | None, _option(HOW, "noise, zeros, embedding, prelude, perturbed[:SCALE].")
    ] = None,
    seed: Annotated[int, _option(HOW, "Seed of the first restart.", min=0)] = 0,
    loop: Annotated[
        str | None, _option(HOW, "START:STOP, the layers to loop of an ordinary decoder.")
    ] = None,
    device: Annotated[str, _option(HOW, "cpu, cuda, ...")] = "cpu",
    precision: Annotated[
        str | None, _option(HOW, "float32 or bfloat16, of the model; as stored by default.")
    ] = None,
    batch_size: Annotated[int | None, _option(HOW, "Prompts in a forward.")] = None,
    dry_run: Annotated[
        bool, _option(LARGE, "Print bytes, disk and time, and write nothing.", "--dry-run")
    ] = False,
    resume: Annotated[
        bool, _option(LARGE, "Go on with a run that was interrupted.", "--resume")
    ] = False,
    worker: Annotated[
        str | None,
        _option(LARGE, "I/N: record part I (from 0) of N of the run, beside other processes."),
    ] = None,
    scheduler: Annotated[
        str | None, _option(LARGE, "Address of a Dask scheduler whose workers record.")
    ] = None,
    takeover: Annotated[
        bool,
        _option(LARGE, "Take over blocks from a process on another host that died.", "--takeover"),
    ] = False,
    check_space: Annotated[
        bool,
        _option(
            LARGE, "Refuse a run that does not fit on the disk.", "--check-space/--no-check-space"
        ),
    ] = True,
    block_tokens: Annotated[
        int | None, _option(LARGE, "Tokens that are committed together.", min=1)
    ] = None,
    overwrite: Annotated[bool, _option(LARGE, "Replace a run that is there.", "--overwrite")] = (
        False
    ),
    progress: Annotated[bool, typer.Option(help="Show a progress bar.")] = True,
) -> None:
    """Run a model and write every state of every pass to a run.

    Without prompts, they are drawn from the task that the model was trained on.

    Example: `looplens record affine-huginn-mini --out runs/a --prompt "3+4*2" --iterations 64`
    """
    import looplens

    loaded = looplens.load_model(
        model, device=device, dtype=_precision(precision), loop=options.span(loop)
    )
    given = _prompts(model, prompt, prompts, task, n, seed)
    settings: dict[str, Any] = {
        "out": out,
        "iterations": iterations,
        "restarts": restarts,
        "initial_state": initial_state,
        "sites": site or ("resid_post",),
        "layers": options.layers(layers),
        "keep_iterations": options.words_or_numbers(keep_iterations, "--keep-iterations"),
        "tokens": options.words_or_numbers(tokens, "--tokens"),
        "reduce": reduce,
        "attention": attention,
        "readout": readout,
        "dtype": dtype,
        "batch_size": batch_size,
        "block_tokens": block_tokens,
        "seed": seed,
        "overwrite": overwrite,
        "check_space": check_space,
    }
    console = Console()
    if dry_run:
        plan = looplens.record(loaded, given, **settings, plan_only=True)
        console.print(str(plan), highlight=False, markup=False, soft_wrap=True)
        return
    before = _complete_since(out) if resume or worker else None
    with options.dask_client(scheduler) as client:
        run = looplens.record(
            loaded,
            given,
            **settings,
            resume=resume,
            takeover=takeover,
            worker=worker,
            client=client,
            progress=progress,
        )
    if before is not None and run.attrs["created"] == before:
        console.print(f"{out} was complete already; nothing was written", highlight=False)
        return
    console.print(
        f"wrote {out}: {run.n_prompts} prompts, {run.n_tokens} tokens, "
        f"{run.iterations} iterations, {run.restarts} restarts",
        highlight=False,
    )
    if not run.complete:
        console.print(
            f"{len(run.committed)} of {run.n_blocks} blocks are recorded; the other workers, or "
            "--resume, record the rest",
            highlight=False,
        )
        return
    page = options.beside(out, ".html")
    console.print(f"next: looplens report {out} --out {page}", highlight=False)


def _complete_since(out: Any) -> str | None:
    """Return when the complete run that is at a path was created; None if there is none."""
    from looplens.store import open_stored

    try:
        run = open_stored(out)
    except LoopLensError:
        return None
    return str(run.attrs["created"]) if run.complete else None


def _prompts(
    model: str,
    typed: list[str] | None,
    file: Path | None,
    task: str | None,
    n: int,
    seed: int,
) -> list[str | Prompt]:
    """Return the prompts that were typed, read from a file, or drawn."""
    from looplens.models import model_card
    from looplens.tasks import get_task, prompts_trained_on

    given: list[str | Prompt] = list(typed or [])
    if file is not None:
        given += _read_prompts(file)
    if task is not None:
        given += get_task(task).prompts(n, seed=seed)
    elif not given:
        given += prompts_trained_on(model_card(model), n, seed)
    return given


def _precision(name: str | None) -> torch.dtype | None:
    import torch

    known = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if name is not None and name not in known:
        raise InputError(f"unknown precision {name!r}: expected {', '.join(known)}")
    return known[name] if name else None


def _read_prompts(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read the prompts in {path}: {error}") from None
    found = [line for line in lines if line.strip()]
    if not found:
        raise InputError(f"{path} holds no prompts: expected one a line")
    return found
