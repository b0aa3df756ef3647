"""What there is to say of a task, as plain text: form, vocabulary, examples with answers."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from looplens.prompts import Prompt
from looplens.tasks.base import NO_TARGET, Task
from looplens.tasks.options import options_of

WIDTH = 96
_LABEL = 13
_MOST_WORDS = 48


def describe(task: Task, *, examples: int = 3, seed: int = 0) -> str:
    """Describe a task with examples.

    Parameters
    ----------
    task : Task
        Which one, as :func:`looplens.tasks.get_task` returns it.
    examples, seed : int
        How many examples, and the seed of their draw.

    Returns
    -------
    str
        Lines of at most 96 characters. Below each line of an example, under each token with a
        target, stands the token that is right there.
    """
    low, high = task.difficulty_range
    options = ", ".join(f"{name}={_plain(value)}" for name, value in options_of(type(task)).items())
    rows = [
        ("source", task.source),
        ("texts", task.form),
        ("vocabulary", _vocabulary(task)),
        ("length", f"{task.default_length} {task.length_unit}"),
        ("difficulty", f"{task.difficulty_unit}, {low} to {high}"),
        ("options", options or "none"),
    ]
    if task.answers_move:
        rows.append(("answers", "depend on the iteration; those below are right after 16"))
    lines = [f"{task.name}: {task.title}", ""]
    for name, text in rows:
        first, *others = textwrap.wrap(text, WIDTH - _LABEL, break_on_hyphens=False)
        lines += [f"{name:<{_LABEL}}{first}", *(" " * _LABEL + other for other in others)]
    for prompt in task.prompts(examples, seed=seed):
        lines += ["", *_example(prompt, task)]
    return "\n".join(lines) + "\n"


def _plain(value: bool | int | str) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _vocabulary(task: Task) -> str:
    size = len(task.vocabulary)
    if task.characters:
        padding = f" ({task.pad} is padding)" if task.pad else ""
        return f"{size} characters: {task.characters}{padding}"
    shown = " ".join(task.words[:_MOST_WORDS])
    return f"{size} words: {shown}{' ...' if size > _MOST_WORDS else ''}"


def _example(prompt: Prompt, task: Task) -> list[str]:
    """Return the lines of one example, answers under their tokens."""
    targets = prompt.targets or (NO_TARGET,) * len(prompt)
    answers = ["" if target < 0 else task.vocabulary[target] for target in targets]
    gap = 0 if task.characters else 1
    lines: list[str] = []
    for start, stop in _rows(prompt.token_texts, answers, gap):
        columns = list(zip(prompt.token_texts[start:stop], answers[start:stop], strict=True))
        widths = [max(len(text), len(answer)) for text, answer in columns]
        for which in range(2):
            cells = (
                column[which].ljust(width) for column, width in zip(columns, widths, strict=True)
            )
            line = "  " + (" " * gap).join(cells).rstrip()
            lines += [line] if line.strip() else []
    return lines


def _rows(texts: Sequence[str], answers: Sequence[str], gap: int) -> list[tuple[int, int]]:
    """Cut columns into stretches that fit a line."""
    rows, start, used = [], 0, 2
    for place, (text, answer) in enumerate(zip(texts, answers, strict=True)):
        width = max(len(text), len(answer)) + gap
        if used + width - gap > WIDTH and place > start:
            rows.append((start, place))
            start, used = place, 2
        used += width
    return [*rows, (start, len(texts))]
