"""Write the part of ``docs/tasks.md`` that ``looplens tasks show`` prints: one block a task.

Run ``python docs/make_tasks.py`` after a task was added or changed; a test says when it is due.
"""

from __future__ import annotations

from pathlib import Path

from looplens.tasks import TASKS, describe

PAGE = Path(__file__).parent / "tasks.md"
MARK = "## The tasks\n"


def blocks() -> str:
    """Return the generated part of the page."""
    made = []
    for name, task in sorted(TASKS.items()):
        console = f"```console\n$ looplens tasks show {name}\n```"
        made.append(f"### {name}\n\n{console}\n\n```text\n{describe(task)}```\n")
    return "\n".join(made)


def page(text: str) -> str:
    """Return a page with its generated part renewed."""
    written, mark, _ = text.partition(MARK)
    if not mark:
        raise SystemExit(f"{PAGE} has no heading {MARK.strip()!r}")
    return f"{written}{mark}\n{blocks()}"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
