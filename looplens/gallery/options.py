"""The options of a run of the gallery, for ``looplens gallery run`` and for every script.

Both command lines take them from here, so that a script run by itself does the same. Importing
this loads neither torch nor plotly.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from looplens.errors import InputError
from looplens.gallery.scale import DEVICE, FOLDER, WORKERS, Scale

PAGES = FOLDER / "pages"
SMOKE_PAGES = FOLDER / "smoke"  # they have no verdict, and must not take the place of one

Smoke = Annotated[bool, typer.Option("--smoke", help="Seconds; gives no verdict.")]
Quick = Annotated[bool, typer.Option("--quick", help="Minutes each, the default.")]
Full = Annotated[bool, typer.Option("--full", help="Up to an hour each.")]
Out = Annotated[
    Path | None,
    typer.Option(
        help=f"Where the pages go: {PAGES} unless given, {SMOKE_PAGES} with --smoke.",
        show_default=False,
    ),
]
Cache = Annotated[Path, typer.Option(help="Where trained models are kept and found again.")]
Workers = Annotated[int, typer.Option(min=1, help="Processes side by side.")]
Device = Annotated[str, typer.Option(help="Where models are trained: cpu, cuda, ...")]

__all__ = ["DEVICE", "FOLDER", "PAGES", "SMOKE_PAGES", "WORKERS", "scale_of", "where"]


def scale_of(
    *, smoke: bool, quick: bool, full: bool, cache: Path, workers: int, device: str
) -> Scale:
    """Return the scale that the options ask for.

    Raises
    ------
    InputError
        When two sizes are asked for, the cache is no folder, or there is no such device.
    """
    sizes: list[Any] = [
        name for name, on in (("smoke", smoke), ("quick", quick), ("full", full)) if on
    ]
    if len(sizes) > 1:
        raise InputError("Choose one of --smoke, --quick and --full.")
    scale = Scale(name=sizes[0] if sizes else "quick", folder=cache, workers=workers, device=device)
    _check_device(device)
    return scale


def where(out: Path | None, scale: Scale) -> Path:
    """Return the folder that pages of a scale go to.

    Raises
    ------
    InputError
        When it is a file.
    """
    chosen = out or (SMOKE_PAGES if scale.name == "smoke" else PAGES)
    if chosen.exists() and not chosen.is_dir():
        raise InputError(f"Pages go into a folder, but --out {chosen} is a file.")
    return chosen


def _check_device(name: str) -> None:
    if name == "cpu":
        return
    import torch

    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"This machine has no device {name!r} ({reason}). Use --device cpu, the default."
        ) from None
