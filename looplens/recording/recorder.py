"""Record a looped model's trajectories to a run on disk.

The recorder goes through the run block by block, so that memory does not grow with the number of
prompts: hooks copy a block into buffers, a thread writes and commits it, and the buffers are used
again. A block depends on nothing but the run, so it does not matter who records which, or when.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from looplens.errors import InputError, LoopLensError
from looplens.models import InitialState, LoopedTransformer
from looplens.models.protocol import LoopedModel
from looplens.recording.changing.interventions import Intervention
from looplens.recording.keeping.keep import IterationChoice, LayerChoice, TokenChoice
from looplens.recording.keeping.reductions import ReductionChoice
from looplens.recording.planning import plan_recording
from looplens.recording.preparing import Request, prepare
from looplens.recording.prompts import PromptLike
from looplens.recording.streaming.blocks import record_blocks
from looplens.recording.streaming.workers import record_on, worker_of
from looplens.store import RunWriter, open_stored
from looplens.store.format.blocks import split_blocks
from looplens.store.format.reduction import Reduction

if TYPE_CHECKING:
    from looplens.run import Run


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
    layers: LayerChoice = None,
    keep_iterations: IterationChoice = "all",
    tokens: TokenChoice = "all",
    reduce: ReductionChoice = None,
    dtype: str = "float32",
    batch_size: int | None = None,
    block_tokens: int | None = None,
    seed: int = 0,
    overwrite: bool = False,
    resume: bool = False,
    takeover: bool = False,
    worker: str | tuple[int, int] | None = None,
    client: Any = None,
    check_space: bool = True,
    plan_only: bool = False,
    progress: bool = True,
) -> Run | Any:  # a RecordingPlan, where plan_only says so
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
    layers : int, sequence of int or slice, optional
        Core layers whose sites and patterns are kept; all by default.
    keep_iterations : str or sequence of int
        ``"all"``, ``"every:4"``, ``"last:8"``, or numbers of 1..T. The initial state is kept only
        with all of them.
    tokens : str, int, sequence of int or callable
        ``"all"``, ``"last"``, positions, or a function of a :class:`looplens.Prompt` that returns
        one bool a token or positions.
    reduce : str, Reduction or array (component, d_model), optional
        Store states in fewer dimensions: ``"random:64"``, ``"pca:64"``, or orthonormal rows. What
        they leave out is stored for each state.
    dtype : {"float32", "float16"}
        Of the stored states. float16 refuses to store what it cannot hold.
    batch_size : int, optional
        Most prompts in a forward; by default as many as fit. A run that is gone on with keeps the
        one it was started with, since other batches may round in another way.
    block_tokens : int, optional
        Tokens that are committed at once, rounded up to a power of two; by default about 128 MiB,
        or what a larger ``batch_size`` needs.
    seed : int
        Seed of the first restart.
    overwrite : bool
        Replace a run at ``out``, once the new one is whole.
    resume : bool
        Go on with a run that was interrupted: blocks that are committed stay. The result has the
        same bytes as that of an uninterrupted recording on this kind of machine.
    takeover : bool
        Take over blocks that are claimed by processes on other machines, which are known to be
        gone. Those of dead processes on this machine always are.
    worker : str or (int, int), optional
        Record one share of the run, ``"0/4"`` to ``"3/4"``, together with other processes that are
        given the others. Whoever is first creates the run, whoever is last completes it.
    client : distributed.Client, optional
        Record on the workers of Dask.
    check_space : bool
        Refuse to begin a run for which the disk has no room.
    plan_only : bool
        Write nothing and return what the recording would take.
    progress : bool
        Show a progress bar.

    Returns
    -------
    Run
        The run, opened; as a worker perhaps incomplete. With ``plan_only`` a
        :class:`~looplens.recording.planning.RecordingPlan`.

    Raises
    ------
    InputError
        On empty or unencodable prompts, ``iterations`` or ``restarts`` below 1, more than one
        restart of a model whose initial state is fixed, a selection of nothing, a worker that does
        not exist, or a run at ``out`` that is of another recording and cannot be gone on with.
    SiteError
        On an unknown site, or a site that did not fire as the loop declares.
    RunExistsError
        If ``out`` exists and neither ``overwrite`` nor ``resume`` is set.
    StoreError
        If the disk is too small or refuses, or another process is writing the same block.

    Examples
    --------
    >>> import looplens as ll
    >>> model = ll.load_model("affine-huginn-mini")
    >>> run = ll.record(model, ["3+4*2"], out="runs/demo", iterations=64, restarts=4)
    """
    share = worker_of(worker)
    if share is not None and client is not None:
        raise InputError("worker= and client= are two ways to share a run: give one of them")
    request = Request(
        prompts=prompts,
        iterations=iterations,
        restarts=restarts,
        sites=sites,
        attention=attention,
        readout=readout,
        initial_state=initial_state,
        interventions=interventions,
        layers=layers,
        keep_iterations=keep_iterations,
        tokens=tokens,
        reduce=reduce,
        dtype=dtype,
        batch_size=batch_size,
        block_tokens=block_tokens,
        seed=seed,
    )
    if plan_only:
        return plan_recording(prepare(model, request, only_plan=True), out)
    joins = resume or share is not None
    stored = _stored_reduction(out, overwrite) if joins and reduce is not None else None
    recording = prepare(model, request, stored=stored)
    with RunWriter(
        out,
        recording.spec,
        overwrite=overwrite,
        resume=joins,
        check_space=check_space,
        takeover=takeover,
    ) as writer:
        mine = range(writer.n_blocks)
        if share is not None:
            mine = split_blocks(writer.n_blocks, *share)
        todo = [block for block in mine if block not in writer.committed]
        with _bar(progress) as bar:
            task = bar.add_task("recording", total=len(mine), completed=len(mine) - len(todo))

            def advance(blocks: int) -> None:
                bar.advance(task, blocks)

            if client is not None:
                record_on(client, recording, writer, todo, takeover=takeover, advance=advance)
            else:
                record_blocks(recording, writer, todo, advance)
        complete = writer.finish()
    from looplens.run import open_run  # the torch-free side, needed only now

    return open_run(writer.path if complete else writer.location.path)


def _stored_reduction(out: str | os.PathLike[str], overwrite: bool) -> Reduction | None:
    """Return the basis of the run that is to be gone on with, if there is one."""
    path = os.fspath(out)
    for place in (f"{path}.partial", path) if overwrite else (path,):
        with suppress(LoopLensError):  # what is wrong with it is said when it is joined
            return open_stored(place).reduction
    return None


def _bar(show: bool) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("blocks"),
        TimeRemainingColumn(),
        console=Console(stderr=True),  # standard output may be piped into something
        disable=not show,
        transient=True,
    )
