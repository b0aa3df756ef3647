"""What the command prints of a task, and that the page of the documentation shows just that."""

import runpy
from pathlib import Path

import pytest
from typer.testing import CliRunner

from looplens.cli.main import app
from looplens.errors import InputError
from looplens.tasks import TASKS, describe, get_task

DOCS = Path(__file__).parents[2] / "docs"
LOOK = CliRunner()


def test_the_page_shows_what_the_command_prints():
    renew = runpy.run_path(str(DOCS / "make_tasks.py"))["page"]
    text = (DOCS / "tasks.md").read_text(encoding="utf-8")
    assert text == renew(text), "run: python docs/make_tasks.py"


@pytest.mark.parametrize("name", sorted(TASKS))
def test_a_description_fits_the_page_and_has_answers_below_their_tokens(name):
    task = TASKS[name]
    lines = describe(task, examples=2, seed=5).splitlines()
    assert max(map(len, lines)) <= 96
    assert lines[0] == f"{name}: {task.title}"
    labels = [line.split("  ")[0] for line in lines[2:] if line and line[0] != " "]
    expected = ["source", "texts", "vocabulary", "length", "difficulty", "options", "answers"]
    assert labels == expected[: 7 if task.answers_move else 6]


def test_answers_stand_under_their_tokens():
    lines = describe(get_task("addition:digits=1,reverse=true"), examples=1, seed=2).splitlines()
    text, answers = lines[-2:]
    equals = text.index("=")
    total = sum(map(int, text[2:equals].split("+")))
    assert answers == " " * equals + str(total)[::-1] + "."
    assert text[equals + 1 :] == str(total)[::-1]


def test_the_command_lists_shows_and_explains():
    listed = LOOK.invoke(app, ["tasks"], terminal_width=200)
    assert listed.exit_code == 0
    assert all(name in listed.stdout for name in TASKS)
    shown = LOOK.invoke(app, ["tasks", "show", "mano:modulus=5", "--examples", "1"])
    assert shown.stdout == describe(get_task("mano:modulus=5"), examples=1)
    assert shown.stdout.startswith("mano:modulus=5: prefix expressions modulo 5")
    wrong = LOOK.invoke(app, ["tasks", "show", "manos"])
    assert isinstance(wrong.exception, InputError)
    assert "Did you mean 'mano'" in str(wrong.exception)
