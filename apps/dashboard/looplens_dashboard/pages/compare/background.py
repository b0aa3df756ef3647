"""Comparisons of whole runs, made beside the answers to the page and remembered.

A comparison reads thousands of tokens and draws prompts hundreds of times, which takes seconds; no
request waits for it.
"""

from __future__ import annotations

import threading
import warnings
import weakref
from collections import OrderedDict
from typing import Any

from looplens.errors import AnalysisError, InputError, LoopLensError
from looplens.run import Run
from looplens_dashboard.pages.compare import other as both

NAMES = ("classify", "convergence", "geometry", "path_independence", "exits")
"""Analyses that are compared, as far as both runs hold them stored."""

WAIT = "The runs are being compared; this takes some seconds the first time."
_MOST_KEPT = 6

_OF: weakref.WeakKeyDictionary[Any, Comparisons] = weakref.WeakKeyDictionary()
_LOCK = threading.Lock()


class WaitError(AnalysisError):
    """The comparison is not ready yet."""


class Comparisons:
    """The comparisons of one app, each made once, one after the other."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._alone = threading.Lock()
        self._made: OrderedDict[Any, Any] = OrderedDict()

    def get(self, run: Run, other: Run) -> Any:
        """Return the comparison of two runs, or start it.

        Raises
        ------
        WaitError
            While it is being made.
        LoopLensError
            If the runs cannot be compared.
        """
        names = shared_names(run, other)
        key = (run, other, names)
        with self._lock:
            if key in self._made:
                self._made.move_to_end(key)
                found = self._made[key]
            else:
                found = self._made[key] = None
                while len(self._made) > _MOST_KEPT:
                    self._made.popitem(last=False)
                threading.Thread(target=self._make, args=(key,), daemon=True).start()
        if found is None:
            raise WaitError(WAIT)
        if isinstance(found, Exception):
            raise found
        return found

    def _make(self, key: Any) -> None:
        run, other, names = key
        try:
            with self._alone, warnings.catch_warnings():
                warnings.simplefilter("ignore")  # what they say is among the notes
                found: Any = run.compare(other, names, **both.OPTIONS)
        except InputError as error:
            found = AnalysisError(str(error))  # nothing is wrong with either run
        except LoopLensError as error:
            found = error
        except Exception as error:
            kind = type(error).__name__
            found = AnalysisError(f"The runs could not be compared ({kind}: {error}).")
        with self._lock:
            if key in self._made:
                self._made[key] = found


def comparisons_of(views: Any) -> Comparisons:
    """Return the comparisons of an app."""
    with _LOCK:
        return _OF.setdefault(views, Comparisons())


def shared_names(run: Run, other: Run) -> tuple[str, ...]:
    """Return the analyses that both runs hold stored.

    Raises
    ------
    AnalysisError
        If there are none.
    """
    stored = set(run.analyses) & set(other.analyses)
    names = [name for name in NAMES if name in stored]
    if run.has_readout and other.has_readout:
        names.append("predictions")
    if not names:
        missing = next(one for one in (run, other) if not set(NAMES) & set(one.analyses))
        raise AnalysisError(
            f"{missing.name} holds no analyses. Store them with: looplens analyze {missing.path}"
        )
    return tuple(names)
