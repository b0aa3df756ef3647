"""The page Layers & attention: what every head reads, how it changes, and which layers do alike."""

from __future__ import annotations

from typing import Any

from looplens import analysis
from looplens.errors import AnalysisError
from looplens_dashboard.panels.attention_frames import attention_frames, frames_key
from looplens_dashboard.panels.call import Call, figure_call
from looplens_dashboard.panels.drawing import thin_ticks
from looplens_dashboard.panels.panel import Page, Panel
from looplens_dashboard.selection import Choice, Selection
from looplens_dashboard.selection.choices import Options
from looplens_dashboard.view import View

_MOST_LISTED = 256
_MOST_NAMED = 16  # heads
_MOST_COMPUTED = 20_000  # tokens of a run whose maps are made on the spot


def _iterations_of(view: View) -> Options:
    """Return the iterations that another one can be compared with."""
    if not view.run.attention_prompts:
        return ()
    kept = list(view.run.kept_iterations)
    shown = kept[:: -(-len(kept) // _MOST_LISTED)]
    return tuple((str(number), f"vs iteration {number}") for number in shown)


AGAINST = Choice(
    name="against", label="The iteration that is compared with", options=_iterations_of, width=130
)
QUANTITY = Choice(
    name="likeness",
    label="How states are compared",
    options=(("distance", "distance"), ("cosine", "cosine")),
    control="segmented",
)

SETTLING = Choice(
    name="attention_settling",
    label="What is shown of every head",
    options=(("change", "change"), ("distance_to_limit", "distance to limit")),
    control="segmented",
)


def _head(selection: Selection) -> int | str:
    return "mean" if selection.head is None else selection.head


def _iteration(view: View, selection: Selection) -> int:
    """Return the iteration of the scrubber; the initial state has attended to nothing yet."""
    return max(selection.iteration, view.run.kept_iterations[0])


def _of_attention(figure: str, view: View, selection: Selection, **more: Any) -> Call:
    return figure_call(
        figure,
        prompt=selection.prompt,
        iteration=_iteration(view, selection),
        layer=selection.attention_layer if view.limits.attention_layers else None,
        restart=selection.restart,
        head=selection.head,
        **more,
    )


def _difference(view: View, selection: Selection) -> Call:
    against = int(selection["against"] or 1)
    return _of_attention(
        "attention_difference", view, selection, other=against, token=selection.token
    )


def _name_frames(figure: Any, head: int | str | None, selection: Selection) -> None:
    """Write on the figure which frames are its own."""
    meta = figure.data[0].meta
    figure.data[0].meta = {**meta, "key": frames_key(selection, head)}


def _fit_map(figure: Any, selection: Selection) -> None:
    _name_frames(figure, _head(selection), selection)
    longest = max(map(len, figure.layout.xaxis.ticktext))
    thin_ticks(figure, "xaxis", "yaxis", most=24 if longest <= 2 else 12)


def _thin_heads(figure: Any) -> None:
    axis = figure.layout.yaxis
    step = -(-len(axis.tickvals) // _MOST_NAMED)
    axis.update(tickvals=axis.tickvals[::step], ticktext=axis.ticktext[::step])


def _measured(view: View, name: str, prompt: int) -> int | None:
    """Return the prompt if an analysis has it; else None, for what the figure shows without one."""
    return prompt if prompt in analysis.get(view.run, name)["prompt"].values else None


def _similarity(view: View, selection: Selection) -> Call:
    run = view.run
    if run.n_tokens > _MOST_COMPUTED and "similarity" not in run.analyses:
        raise AnalysisError(  # nothing that takes this long is begun by a click
            "These maps compare every layer of every iteration with all others, and are not made "
            f"by themselves for a run of this size. Make them with: looplens analyze {run.path} "
            "--only similarity"
        )
    return figure_call(
        "similarity",
        prompt=_measured(view, "similarity", selection.prompt),
        quantity=selection["likeness"],
        iteration=selection.iteration,
    )


HEADS = Panel(
    name="heads",
    title="Heads",
    answers="What does every head of this layer read? A click chooses a head.",
    keys=("prompt", "restart", "layer"),
    call=lambda view, selection: _of_attention("attention_heads", view, selection),
    frames=lambda view, selection: attention_frames(view, selection, head=None),
    adjust=lambda figure, selection: _name_frames(figure, None, selection),
    span=12,
    wide=5,
    height=440,
    follows=True,
)

ATTENTION = Panel(
    name="attention",
    title="Attention",
    answers="What does each token read? Point at one to see it in the tokens above.",
    keys=("prompt", "restart", "layer", "head"),
    call=lambda view, selection: _of_attention("attention", view, selection, token=selection.token),
    frames=lambda view, selection: attention_frames(view, selection, head=_head(selection)),
    adjust=_fit_map,
    span=6,
    wide=3,
    height=440,
    follows=True,
)

DIFFERENCE = Panel(
    name="attention-difference",
    title="Change of the map",
    answers="What does each token read more or less than at another iteration?",
    keys=("prompt", "restart", "layer", "head"),
    call=_difference,
    frames=lambda view, selection: attention_frames(
        view, selection, head=_head(selection), against=int(selection["against"] or 1)
    ),
    adjust=_fit_map,
    choices=(AGAINST,),
    span=6,
    wide=4,
    height=440,
    follows=True,
)

CHANGE = Panel(
    name="attention-change",
    title="Stabilisation of the heads",
    answers="How much does every head still change, and from when on does it stay?",
    keys=("prompt", "restart"),
    call=lambda _view, selection: figure_call(
        "attention_change",
        prompt=selection.prompt,
        restart=selection.restart,
        quantity=selection["attention_settling"],
        iteration=selection.iteration,
    ),
    adjust=lambda figure, _selection: _thin_heads(figure),
    choices=(SETTLING,),
    span=6,
    wide=6,
    height=460,
    follows=True,
)

STAGES = Panel(
    name="stages",
    title="Stages of inference",
    answers="Which layer mixes, which one concentrates, and does that change with the iterations?",
    keys=("prompt", "restart"),
    call=lambda view, selection: figure_call(
        "stages",
        prompt=_measured(view, "stages", selection.prompt),
        restart=selection.restart,
        iteration=selection.iteration,
    ),
    span=6,
    wide=6,
    height=460,
    follows=True,
)

SIMILARITY = Panel(
    name="similarity",
    title="Similarity of all layers and iterations",
    answers="Which layers do the same at which iterations?",
    keys=("prompt",),
    call=_similarity,
    choices=(QUANTITY,),
    span=12,
    wide=12,
    height=430,
    follows=True,
)

PAGE = Page(
    name="layers",
    title="Layers & attention",
    panels=(HEADS, ATTENTION, DIFFERENCE, CHANGE, STAGES, SIMILARITY),
)
