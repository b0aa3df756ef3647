"""How much a claim of the gallery computes, and where it keeps what it computed."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeVar

from looplens.errors import InputError

T = TypeVar("T")

ScaleName = Literal["smoke", "quick", "full"]
SEEDS: dict[str, int] = {"smoke": 1, "quick": 3, "full": 5}
FOLDER = Path("runs/gallery")
WORKERS, DEVICE = 2, "cpu"  # of the command line


@dataclass(slots=True)
class Tally:
    """What a run of a claim cost besides its own process.

    Attributes
    ----------
    worker_seconds : float
        CPU seconds of the jobs that ran in other processes.
    computed, reused : int
        Jobs that ran, and jobs whose results lay in the cache.
    trained : set of str
        Keys of the models that this run trained.
    own : int
        How many of the reused jobs are models of ``trained``, most often bases of others.
    kept_seconds : float
        What the other reused models took to train, by the clock of one process each.
    """

    worker_seconds: float = 0.0
    computed: int = 0
    reused: int = 0
    trained: set[str] = field(default_factory=set)
    own: int = 0
    kept_seconds: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Scale:
    """The size at which a claim is run.

    Attributes
    ----------
    name : {"smoke", "quick", "full"}
        Seconds for the tests (one seed), minutes (three seeds), up to an hour (five seeds).
    folder : Path
        Trained models, results of jobs and recordings are kept here and used again.
    workers : int
        Processes that train or measure side by side, each with one thread. 1: this process.
    device : str
        Where models are trained.
    quiet : bool
        Print no progress.
    tally : Tally
        What was computed and what was found in the folder.
    """

    name: ScaleName = "quick"
    folder: Path = FOLDER
    workers: int = 1
    device: str = "cpu"
    quiet: bool = False
    tally: Tally = field(default_factory=Tally)

    def __post_init__(self) -> None:
        if self.name not in SEEDS:
            raise InputError(f"A scale is one of {', '.join(SEEDS)}; got {self.name!r}.")
        if self.workers < 1:
            raise InputError(f"A scale needs at least 1 worker; got {self.workers}.")
        object.__setattr__(self, "folder", Path(self.folder))
        if self.folder.exists() and not self.folder.is_dir():
            raise InputError(f"Trained models are kept in a folder, but {self.folder} is a file.")

    @property
    def seeds(self) -> tuple[int, ...]:
        """Return the seeds to train with: 1 at smoke size, 3 at quick, 5 at full."""
        return tuple(range(SEEDS[self.name]))

    def pick(self, *, smoke: T, quick: T, full: T) -> T:
        """Return the value of this scale."""
        return {"smoke": smoke, "quick": quick, "full": full}[self.name]

    def say(self, text: str) -> None:
        """Print one line of progress on standard error."""
        if not self.quiet:
            print(text, file=sys.stderr, flush=True)

    def run_folder(self, name: str) -> Path:
        """Return where a recording of this name and scale goes; the folder above it exists."""
        path = self.folder / "runs" / self.name / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path
