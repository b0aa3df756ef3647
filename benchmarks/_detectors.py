"""Rules that name the regime of a trajectory: those of others, the earlier one of ours, today's.

Each takes states of shape (trajectory, iteration 0..T, d_model) and returns one of ``fixed_point``,
``orbit``, ``slider``, ``unresolved`` for each. The rules of others have no floor of rounding and
no second window; they are here for what they cost in wrong labels.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Self

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Labels = NDArray[np.str_]
Detector = Callable[[Floats], Labels]

PREVIOUS = "b283bd4"  # the last revision before the detector was calibrated
_TINY = 1e-300
_CHILD = """
import sys
import numpy as np
import looplens
from looplens.analysis import classify
print(looplens.__file__, flush=True)
for line in sys.stdin:
    print(" ".join(classify(np.load(line.strip()), unit=False).regime), flush=True)
"""


def current(states: Floats) -> Labels:
    """`looplens.analysis.classify` as it is."""
    from looplens.analysis import classify

    return classify(states).regime


def _labels(count: int) -> Labels:
    return np.full(count, "unresolved", dtype="<U11")


def _half(states: Floats) -> Floats:
    return states[:, states.shape[1] // 2 :]


def _spread(states: Floats) -> Floats:
    return np.sqrt(states.var(axis=1).sum(-1))


def _straightness(states: Floats) -> Floats:
    steps = np.linalg.norm(np.diff(states, axis=1), axis=-1).sum(-1)
    return np.linalg.norm(states[:, -1] - states[:, 0], axis=-1) / (steps + _TINY)


def _recurrence(states: Floats) -> Floats:
    """Smallest ratio of a mean squared displacement to the largest at a shorter lag."""
    n = states.shape[1]
    lags = range(1, n // 2 + 1)
    msd = np.stack([((states[:, k:] - states[:, :-k]) ** 2).sum(-1).mean(-1) for k in lags], axis=1)
    highest = np.maximum.accumulate(msd, axis=1)
    return (msd[:, 1:] / (highest[:, :-1] + _TINY)).min(axis=1)


def step_slope(states: Floats) -> Labels:
    """Shrinking steps: fixed; otherwise straight: slider; otherwise orbit. It never abstains."""
    tail = _half(states)
    steps = np.log(np.linalg.norm(np.diff(tail, axis=1), axis=-1) + _TINY)
    t = np.arange(steps.shape[1]) - (steps.shape[1] - 1) / 2
    slope = (steps * t).sum(-1) / (t * t).sum()
    found = np.where(_straightness(tail) > 0.5, "slider", "orbit")
    return np.where(slope < -0.02, "fixed_point", found)


def tail_rule(states: Floats) -> Labels:
    """Tail small against the whole: fixed; states that return: orbit; straight: slider."""
    tail = _half(states)
    found = _labels(len(states))
    found[_straightness(tail) > 0.5] = "slider"
    found[_recurrence(tail) < 0.1] = "orbit"
    found[_spread(tail) / (_spread(states) + _TINY) < 0.1] = "fixed_point"
    return found


def cosine_rule(states: Floats, *, tau: float = 0.05, rho: float = 0.9) -> Labels:
    """Return the verdicts of Blayney et al. (arXiv:2604.11791), Algorithm 1, as we reconstruct it.

    The paper describes the input (the cosine of each state with the last one), the two thresholds
    and the four outputs; the branches of its Algorithm 1 were not in the copy that was read. Here,
    in the second half: at least `rho` of the states within `tau` of the last is a fixed point; two
    or more returns into that band an orbit; a cosine that rises in at least `rho` of the steps, in
    the whole record, a slider.
    """
    norms = np.linalg.norm(states, axis=-1) + _TINY
    cosine = (states * states[:, -1:]).sum(-1) / (norms * norms[:, -1:])
    inside = 1 - _half(cosine) < tau
    returns = (inside[:, 1:] & ~inside[:, :-1]).sum(-1)
    rising = (np.diff(cosine, axis=1) > 0).mean(-1)
    found = _labels(len(states))
    found[rising >= rho] = "slider"
    found[returns >= 2] = "orbit"
    found[inside[:, :-1].mean(-1) >= rho] = "fixed_point"
    return found


def prototype(states: Floats) -> Labels:
    """Return the verdicts of the procedure that the project started from, with its thresholds."""
    tail = _half(states)
    n = tail.shape[1]
    centred = tail - tail.mean(1, keepdims=True)
    t = np.arange(n) - (n - 1) / 2
    slope = np.einsum("bnd,n->bd", centred, t) / (t * t).sum()
    whole = (centred**2).sum((1, 2)) + _TINY
    linear = (slope**2).sum(-1) * (t * t).sum() / whole
    thirds = [part.mean(1) for part in np.array_split(tail, 3, axis=1)]
    early, late = thirds[1] - thirds[0], thirds[2] - thirds[1]
    lengths = np.linalg.norm(early, axis=-1), np.linalg.norm(late, axis=-1)
    along = (early * late).sum(-1) / (lengths[0] * lengths[1] + _TINY)
    drifting = (linear > 0.15) & (along > 0.45)
    slows = lengths[1] / (lengths[0] + _TINY) < 0.78

    flat = centred - slope[:, None] * t[:, None]
    periodic = (_oscillation(flat) > 0.65) | (_folding(flat) > 0.45) | (_recurrence(flat) < 0.08)
    amplitude = _spread(flat[:, n // 2 :]) / (_spread(flat[:, : n // 2]) + _TINY)
    small = (_spread(tail) / (_spread(states) + _TINY) < 0.55) | (amplitude < 0.5)
    at_rest = _spread(tail) < 1e-5 * np.linalg.norm(tail.mean(1), axis=-1)

    found = _labels(len(states))
    found[small] = "fixed_point"
    found[periodic] = np.where(amplitude > 0.85, "orbit", "fixed_point")[periodic]
    found[drifting] = np.where(slows, "fixed_point", "slider")[drifting]
    found[at_rest] = "fixed_point"
    return found


def _oscillation(flat: Floats) -> Floats:
    """Largest share of the variance at a single frequency."""
    n = flat.shape[1]
    power = (np.abs(np.fft.rfft(flat, 8 * n, axis=1)) ** 2).sum(-1)
    power[:, 1:-1] *= 2  # each frequency but zero and Nyquist stands for itself and its mirror
    return power[:, 4:].max(-1) / (n * (flat**2).sum((1, 2)) + _TINY)


def _folding(flat: Floats) -> Floats:
    """Largest share of the variance that folding on an integer period explains, by freedom."""
    n = flat.shape[1]
    whole = (flat**2).sum((1, 2)) + _TINY
    best = np.full(len(flat), -np.inf)
    for period in range(2, n // 2 + 1):
        between = np.zeros(len(flat))
        for phase in range(period):
            rows = flat[:, phase::period]
            between += rows.shape[1] * (rows.mean(1) ** 2).sum(-1)
        best = np.maximum(best, 1 - (1 - between / whole) * (n - 1) / (n - period))
    return best


class Previous:
    """The detector of an earlier revision of this project, run in a process of its own.

    Attributes
    ----------
    missing : str
        Why it cannot run (no git history, for instance); empty where it can.
    """

    def __init__(self, revision: str = PREVIOUS) -> None:
        self.revision, self.missing = revision, ""
        self._folder = tempfile.TemporaryDirectory()
        self._child: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        root, folder = Path(__file__).parents[1], Path(self._folder.name).resolve()
        try:
            packed = subprocess.run(
                ["git", "-C", str(root), "archive", self.revision, "looplens"], capture_output=True
            )
        except FileNotFoundError:
            self.missing = "there is no git here to take it from"
            return self
        if packed.returncode:
            self.missing = f"revision {self.revision} is not in the history of this copy"
            return self
        with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as archive:
            archive.extractall(folder, filter="data")
        self._child = subprocess.Popen(
            [sys.executable, "-c", _CHILD],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(folder)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        where = self._pipes()[1].readline().strip()
        if not where.startswith(str(folder)):
            self.missing = f"revision {self.revision} does not load: {where or 'no answer'}"
        return self

    def __call__(self, states: Floats) -> Labels:
        stdin, stdout = self._pipes()
        path = Path(self._folder.name) / "states.npy"
        np.save(path, states)
        print(path, file=stdin, flush=True)
        found = stdout.readline().split()
        if len(found) != len(states):
            raise RuntimeError(f"Revision {self.revision} named {len(found)} of {len(states)}.")
        return np.array(found)

    def __exit__(self, *_: object) -> None:
        if self._child is not None:
            stdin, stdout = self._pipes()
            stdin.close()
            self._child.wait()
            stdout.close()
        self._folder.cleanup()

    def _pipes(self) -> tuple[IO[str], IO[str]]:
        if self._child is None or self._child.stdin is None or self._child.stdout is None:
            raise RuntimeError(f"Revision {self.revision} does not run: {self.missing}.")
        return self._child.stdin, self._child.stdout


# In the order of the tables. "previous" is put among them by whoever started it.
RULES: dict[str, Detector] = {
    "step slope": step_slope,
    "tail, recurrence": tail_rule,
    "cosine rule": cosine_rule,
    "prototype": prototype,
}
