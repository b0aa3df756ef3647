"""Record a looped model's trajectories to a run on disk.

The recorder goes through the prompts block by block, so that memory does not grow with their
number: it captures a block, hands the arrays to the store's writer, and forgets them.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from looplens.models import InitialState, LoopedTransformer
from looplens.models.inputs import whole_number
from looplens.models.native import as_looped
from looplens.models.protocol import LoopedModel
from looplens.prompts import Prompt
from looplens.recording.applying import applied, check_interventions
from looplens.recording.capture import CapturePlan, capture
from looplens.recording.choices import (
    attention_prompts,
    readout_size,
    site_families,
    starts_of,
)
from looplens.recording.early_exit import annotated, iterations_run
from looplens.recording.interventions import Intervention
from looplens.recording.prompts import PromptLike, as_prompts
from looplens.store import RunSpec, RunWriter

if TYPE_CHECKING:
    from looplens.run import Run

BLOCK_BYTES = 64 * 2**20
LARGEST_VOCABULARY = 2**16


def record(
    model: LoopedTransformer | LoopedModel,
    prompts: PromptLike | Iterable[PromptLike],
    *,
    out: str | os.PathLike[str],
    iterations: int | None = None,
    restarts: int = 1,
    sites: str | Sequence[str] = ("core.*.hook_resid_post",),
    attention: bool | int | Sequence[int] = False,
    readout: bool | int = True,
    initial_state: str | int | InitialState | None = None,
    interventions: Intervention | Iterable[Intervention] = (),
    dtype: str = "float32",
    batch_size: int | None = None,
    seed: int = 0,
    overwrite: bool = False,
    progress: bool = True,
) -> Run:
    """Run a looped model and write every state of every pass to a run on disk.

    Parameters
    ----------
    model : LoopedTransformer or LoopedModel
        The model: our own, or any module in :func:`looplens.wrap`.
    prompts : str, sequence of int, Prompt, tensor, or an iterable of these
        What to run; see :class:`looplens.Prompt` for prompts with targets and metadata.
    out : path
        Directory of the run; must not exist.
    iterations : int, optional
        Passes of the loop; by default the model's recommended depth. A model that exits early by
        itself is recorded with the iterations it ran; prompts then have a column
        ``iterations_run``, and what was asked for is in the run's settings.
    restarts : int
        How many initial states each prompt is run from. Restart ``r`` draws from seed
        ``seed + r``; the draw depends on the seed and the position only, so all prompts start from
        the same noise.
    sites : str or sequence of str
        Which states of the core layers to keep: site addresses such as
        ``core.*.hook_resid_post``, or their short names ``resid_post``. The loop state itself is
        always kept.
    attention : bool, int or sequence of int
        Keep attention patterns of all prompts, of the first so many, or of these prompts.
    readout : bool or int
        Keep what the model would say after each iteration; an integer is the number of most
        probable tokens kept (5 by default).
    initial_state : str, int or InitialState, optional
        ``None`` for the model's own, a seed, or a scheme such as ``"noise"``, ``"perturbed"``,
        ``"perturbed:0.3"``, ``"zeros"``.
    interventions : Intervention or iterable of Intervention
        What is changed in the loop while it runs; the run's settings say so.
    dtype : {"float32", "float16"}
        Of the stored states. float16 refuses to store what it cannot hold.
    batch_size : int, optional
        Prompts in a block; by default as many as fit 64 MiB. Does not change the numbers.
    seed : int
        Seed of the first restart.
    overwrite : bool
        Replace a run at ``out``.
    progress : bool
        Show a progress bar.

    Returns
    -------
    Run
        The recorded run, opened.

    Raises
    ------
    InputError
        On empty or unencodable prompts, ``iterations`` or ``restarts`` below 1, or more than one
        restart of a model whose initial state is fixed.
    SiteError
        On an unknown site, or a site that did not fire as the loop declares.
    RunExistsError
        If ``out`` exists and ``overwrite`` is not set.

    Examples
    --------
    >>> import looplens as ll
    >>> model = ll.load_model("affine-huginn-mini")
    >>> run = ll.record(model, ["3+4*2"], out="runs/demo", iterations=64, restarts=4)
    """
    looped = as_looped(model)
    asked = looped.check_iterations(iterations)
    checked = as_prompts(prompts, looped)
    starts = starts_of(looped, initial_state, restarts, seed)
    families = site_families(looped, sites)
    top_k = readout_size(readout, looped)
    maps = attention_prompts(attention, len(checked), looped)
    if batch_size is not None:
        batch_size = whole_number(batch_size, "batch_size", least=1)
    described = looped.describe()
    settings: dict[str, Any] = {
        "batch_size": batch_size,
        "initial_state_scale": starts[0].scale,
    }
    changes = check_interventions(interventions, model, asked)
    if changes:
        settings["interventions"] = [change.describe() for change in changes]
    count = asked
    if looped.exits_early:
        with applied(model, changes):
            ran = iterations_run(looped, checked, starts, asked)
        checked, described, exit_settings = annotated(checked, described, ran, asked)
        settings |= exit_settings
        count = int(ran.max())
    spec = RunSpec(
        prompts=checked,
        iterations=count,
        n_layers=looped.n_layers,
        d_model=looped.d_model,
        restarts=restarts,
        restart_seeds=tuple(start.seed if start.is_random else None for start in starts),
        initial_state=starts[0].scheme,
        sites=families,
        n_heads=looped.n_heads,
        n_kv_heads=looped.n_kv_heads,
        d_head=looped.d_head,
        inject=looped.injects,
        attention_prompts=maps,
        readout_top_k=top_k,
        dtype=dtype,
        source_dtype=str(looped.dtype).removeprefix("torch."),
        model=described,
        settings=settings | looped.loop_settings(count),
        vocabulary=_vocabulary(looped),
        seed=seed,
    )
    plan = CapturePlan(iterations=count, asked=asked, starts=starts, sites=families, top_k=top_k)
    size = batch_size or _block_size(spec, looped.d_vocab)
    with (
        RunWriter(out, spec, overwrite=overwrite) as writer,
        applied(model, changes),
        _bar(progress) as bar,
    ):
        task = bar.add_task("recording", total=len(checked))
        token = 0
        for first in range(0, len(checked), size):
            block = range(first, min(first + size, len(checked)))
            arrays, patterns = _capture_block(looped, checked, block, plan, maps)
            length = sum(len(checked[index]) for index in block)
            writer.write(token, token + length, arrays)
            for index, pattern in patterns.items():
                writer.write_attention(index, pattern)
            token += length
            bar.advance(task, len(block))
    from looplens.run import open_run  # the torch-free side, needed only now

    return open_run(out)


def _capture_block(
    model: LoopedModel,
    prompts: Sequence[Prompt],
    block: range,
    plan: CapturePlan,
    maps: Sequence[int],
) -> tuple[dict[str, np.ndarray], dict[int, np.ndarray]]:
    """Capture a block in groups of equal length and lay its tokens end to end again."""
    groups: dict[tuple[int, bool], list[int]] = {}
    for index in block:
        groups.setdefault((len(prompts[index]), index in maps), []).append(index)
    captured: dict[str, list[np.ndarray]] = {}
    patterns: dict[int, np.ndarray] = {}
    for (_, attention), members in groups.items():
        arrays, pattern = capture(model, [prompts[i] for i in members], plan, attention=attention)
        for path, array in arrays.items():
            captured.setdefault(path, []).append(_flat(array, _token_axis(path)))
        if pattern is not None:
            patterns |= {index: pattern[:, place] for place, index in enumerate(members)}
    if len(groups) == 1:  # the usual case costs no copy
        return {path: arrays[0] for path, arrays in captured.items()}, patterns
    # Groups stand one behind the other: put their tokens back into the order of the prompts.
    order = [index for members in groups.values() for index in members]
    starts = dict(zip(order, np.cumsum([0, *(len(prompts[i]) for i in order)]), strict=False))
    tokens = np.concatenate([starts[i] + np.arange(len(prompts[i])) for i in block])
    return {
        path: np.take(np.concatenate(arrays, axis=_token_axis(path)), tokens, _token_axis(path))
        for path, arrays in captured.items()
    }, patterns


def _token_axis(path: str) -> int:
    return 0 if path == "loop/injected" else 1  # behind the restarts, where there are any


def _flat(array: np.ndarray, axis: int) -> np.ndarray:
    """Lay prompts of equal length end to end: (..., prompt, pos, ...) to (..., token, ...)."""
    return array.reshape(*array.shape[:axis], -1, *array.shape[axis + 2 :])


def _vocabulary(model: LoopedModel) -> dict[int, str]:
    tokenizer, size = model.tokenizer, model.d_vocab
    if tokenizer is None or size > LARGEST_VOCABULARY:
        return {}
    return {i: tokenizer.token_text(i) for i in range(min(size, tokenizer.d_vocab))}


def _block_size(spec: RunSpec, d_vocab: int) -> int:
    """Return how many prompts of the longest kind fit the memory of a block."""
    longest = max(map(len, spec.prompts))
    variables = spec.layout.variables().values()
    kept = sum(v.nbytes for v in variables if v.token_axis is not None) * longest // spec.n_tokens
    patterns = max((v.nbytes for v in variables if v.token_axis is None), default=0)
    # The readout holds the logits of this, the last and the previous pass, and their difference.
    logits = 4 * 4 * d_vocab * longest * spec.restarts if spec.readout_top_k else 0
    return max(1, min(64, BLOCK_BYTES // (kept + patterns + logits)))


def _bar(show: bool) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("prompts"),
        TimeRemainingColumn(),
        console=Console(stderr=True),  # standard output may be piped into something
        disable=not show,
        transient=True,
    )
