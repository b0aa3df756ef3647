"""The process that records for the page ``Live`` of the dashboard: ``python -m`` this module.

It reads one JSON object from standard input, records and analyses a run, and writes a line of JSON
for each step to standard output. Standard input stays open as long as the process that asked is
alive: when it closes, this one ends, with all that it started. It knows nothing of the page; what
is asked for was checked there, and what only the loaded model can say is checked here.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, cast

from looplens.errors import InputError, LoopLensError

if TYPE_CHECKING:
    from looplens.models.protocol import LoopedModel
    from looplens.recording.planning import RecordingPlan

_TELL_EVERY = 0.1  # seconds
_HELD_BYTES = 640 * 2**20  # buffers of a recording and its analysis, apart from the patterns

Tell = Callable[..., None]


def main() -> int:
    """Record what standard input says; return the exit code, 0 where there is a run."""
    tell = _teller()
    try:
        asked = json.loads(sys.stdin.readline())
        _end_with_the_parent()
        _record(asked, tell)
    except LoopLensError as error:
        tell(error=str(error))
        return 2
    except ImportError as error:
        tell(
            error=f"Recording needs {error.name or error}, which is not installed here. Install it "
            "with: pip install 'looplens-interp[record]'"
        )
        return 2
    except Exception as error:
        out_of_memory = isinstance(error, MemoryError) or "allocate memory" in str(error)
        if not out_of_memory:
            traceback.print_exc()
        tell(
            error="There was not enough memory for this recording. Use fewer iterations, restarts "
            "or tokens, leave out the attention, or choose a smaller model."
            if out_of_memory
            else f"The recording failed ({type(error).__name__}). The terminal shows where."
        )
        return 2 if out_of_memory else 70
    return 0


def _teller() -> Tell:
    """Keep standard output for messages alone: what else is printed goes to standard error."""
    own = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    out: TextIO = os.fdopen(own, "w", buffering=1, encoding="utf-8")

    def tell(**message: Any) -> None:
        print(json.dumps(message), file=out, flush=True)

    return tell


def _end_with_the_parent() -> None:
    def wait() -> None:
        with contextlib.suppress(OSError, ValueError):
            while sys.stdin.buffer.raw.read(1):  # type: ignore[union-attr]
                pass
        if hasattr(os, "killpg") and os.getpgid(0) == os.getpid():
            os.killpg(0, signal.SIGKILL)
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _record(asked: Mapping[str, Any], tell: Tell) -> None:
    _be_modest()
    tell(stage="loading")
    import looplens
    from looplens.models.native import as_looped

    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_where, **_named: tell(note=str(message))
        _bound_memory(int(asked["memory_bytes"]))
        loaded = as_looped(looplens.load_model(Path(asked["model"])))
        options = _options(asked, loaded, tell)
        _check_size(loaded, asked, options)
        tell(stage="recording", share=0.0)
        _count_passes(loaded, asked, options, tell)
        run = looplens.record(loaded, asked["prompts"], out=asked["out"], progress=False, **options)
        tell(stage="analysing", share=0.0)
        run.analyze(
            progress=_throttled(lambda done, total: tell(stage="analysing", share=done / total))
        )
    tell(stage="done", tokens=run.n_tokens, iterations=run.iterations)


def _be_modest() -> None:
    """Let the page stay quick, and be the first to go when memory runs out."""
    with contextlib.suppress(AttributeError, OSError):
        os.nice(5)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def _bound_memory(nbytes: int) -> None:
    """Make the system refuse more than so many bytes beyond what is held now."""
    try:
        import resource

        status = Path("/proc/self/status").read_text()
        held = int(status.split("VmData:")[1].split()[0]) * 1024
        resource.setrlimit(resource.RLIMIT_DATA, (held + nbytes, held + nbytes))
    except (ImportError, OSError, ValueError, IndexError):
        return  # not Linux: the sizes were checked all the same


def _options(asked: Mapping[str, Any], model: LoopedModel, tell: Tell) -> dict[str, Any]:
    """Return the arguments of `looplens.record`, fitted to what the model offers."""
    start, restarts = asked["initial_state"], int(asked["restarts"])
    own = model.parse_start(start, seed=int(asked["seed"]))
    if restarts > 1 and not own.is_random:
        if start is not None:
            raise InputError(
                f"Every restart from {own.scheme} would be the same: ask for one restart, or "
                "choose another start."
            )
        start = "perturbed"
        tell(
            note=f"{model.model_name} always starts from its {own.scheme}; the restarts are that "
            "with 10 % noise."
        )
    attention = bool(asked["attention"])
    if attention and "pattern" not in model.recordable:
        attention = False
        tell(note=f"{model.model_name} offers no attention patterns; none are kept.")
    return {
        "iterations": asked["iterations"],
        "restarts": restarts,
        "initial_state": start,
        "seed": int(asked["seed"]),
        "attention": attention,
    }


def _check_size(model: LoopedModel, asked: Mapping[str, Any], options: dict[str, Any]) -> None:
    """Refuse what would be too large or take too long, before anything is written."""
    import looplens
    from looplens.recording.planning import shown_bytes

    tokens = sum(model.to_tokens(text).numel() for text in asked["prompts"])
    if tokens > asked["most_tokens"]:
        raise InputError(
            f"The prompts have {tokens} tokens; at most {asked['most_tokens']} can be recorded "
            "from this page."
        )
    passes = model.check_iterations(options["iterations"])
    if passes > asked["most_iterations"]:
        raise InputError(
            f"{model.model_name} would run {passes} iterations; at most "
            f"{asked['most_iterations']} can be recorded from this page. Give a number."
        )
    plan: RecordingPlan = looplens.record(  # type: ignore[assignment]
        model, asked["prompts"], out=asked["out"], plan_only=True, progress=False, **options
    )
    patterns = sum(
        variable.nbytes for path, variable in plan.variables.items() if "attention" in path
    )
    less = "Use fewer tokens, iterations or restarts" + (
        f"; the attention alone takes {shown_bytes(patterns)}." if patterns else "."
    )
    if plan.total_bytes > asked["run_bytes"] or not plan.fits:
        free = "" if plan.fits else f", and {shown_bytes(plan.free_bytes or 0)} are free"
        raise InputError(
            f"The run would take {shown_bytes(plan.total_bytes)} on the disk; at most "
            f"{shown_bytes(asked['run_bytes'])} are allowed here{free}. {less}"
        )
    module: Any = getattr(model, "model", None) or cast(Any, model).module
    weights = sum(weight.numel() * weight.element_size() for weight in module.parameters())
    needed = weights + 2 * patterns + min(plan.total_bytes, _HELD_BYTES)
    if needed > asked["memory_bytes"]:
        raise InputError(
            f"This recording needs about {shown_bytes(needed)} of memory, and "
            f"{shown_bytes(asked['memory_bytes'])} are allowed. {less}"
        )
    if plan.seconds is not None and plan.seconds > asked["seconds"]:
        raise InputError(
            f"This recording would take about {plan.seconds / 60:.0f} minutes; at most "
            f"{asked['seconds'] / 60:.0f} are allowed here. {less}"
        )


def _count_passes(
    model: LoopedModel, asked: Mapping[str, Any], options: dict[str, Any], tell: Tell
) -> None:
    """Tell after each pass of the loop which share of all passes of all tokens is done."""
    from looplens.models.protocol import STATE

    passes = model.check_iterations(options["iterations"])
    tokens = sum(model.to_tokens(text).numel() for text in asked["prompts"])
    total = tokens * int(options["restarts"]) * passes
    done = 0
    run_loop = model.run_loop
    say = _throttled(lambda share, _whole: tell(stage="recording", share=min(share, 1.0)))

    def counted(ids: Any, starts: Any, iterations: int, listen: Mapping[Any, Any]) -> int:
        weight = ids.numel() * len(starts)
        hear = listen.get(STATE)

        def heard(iteration: int, value: Any) -> None:
            nonlocal done
            if hear is not None:
                hear(iteration, value)
            done += weight if iteration else 0
            say(done / total, 1)

        return run_loop(ids, starts, iterations, {**listen, STATE: heard})

    model.run_loop = counted  # type: ignore[method-assign]


def _throttled(tell: Callable[[Any, Any], None]) -> Callable[[Any, Any], None]:
    said = 0.0

    def sometimes(done: Any, total: Any) -> None:
        nonlocal said
        now = time.monotonic()
        if now - said >= _TELL_EVERY or done == total:
            said = now
            tell(done, total)

    return sometimes


if __name__ == "__main__":
    sys.exit(main())
