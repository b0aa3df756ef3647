"""What runs the code blocks of the documentation notices what is wrong in them."""

from __future__ import annotations

from pathlib import Path

import pytest
from code_blocks import SYBIL, begin, commands, end, parse_looplens, run_command


def evaluate_page(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
    document = SYBIL.parse(path)
    begin(document.namespace)
    try:
        for example in document.examples():
            example.evaluate()
    finally:
        end(document.namespace)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("```python\nprint(1 + 1)\n```\n\n```text\n3\n```\n", AssertionError),
        ("```python\nprint(unknown)\n```\n", NameError),
        ('```python title="not run: needs a cluster"\nprint(\n```\n', SyntaxError),
        ("```console\nmake no-such-target\n```\n", AssertionError),
        ("```console\nrm -r runs\n```\n", AssertionError),
        ("```cobol\nDISPLAY\n```\n", AssertionError),
    ],
)
def test_what_is_wrong_in_a_block_fails(tmp_path: Path, text: str, error: type) -> None:
    with pytest.raises(error):
        evaluate_page(tmp_path / "page.md", text)


def test_blocks_share_names_and_print_what_is_below(tmp_path: Path) -> None:
    evaluate_page(
        tmp_path / "page.md",
        "```python\nx = 2\n```\n\n```python\nprint(x)\n```\n\n```text\n2\n```\n\n"
        '```python title="not run: there is no such name"\nprint(y)\n```\n\n'
        "```text\nwhat this would print is not compared\n```\n",
    )


def test_command_lines_are_split_as_a_shell_does() -> None:
    source = "$ looplens info 'a run'  # a comment\nlooplens models \\\n    --help\n"
    assert commands(source) == [["looplens", "info", "a run"], ["looplens", "models", "--help"]]


def test_options_that_looplens_does_not_have_are_noticed() -> None:
    assert parse_looplens(["record", "MODEL", "--out", "runs/a", "--dry-run"]) == "record"
    with pytest.raises(Exception, match="No such option"):
        parse_looplens(["record", "MODEL", "--out", "runs/a", "--unheard-of"])
    with pytest.raises(AssertionError, match="no command"):
        parse_looplens(["explode"])


def test_extras_and_modules_that_are_named_exist() -> None:
    run_command(["pip", "install", "looplens-interp[record]"], run=False)
    run_command(["python", "-m", "benchmarks", "--only", "dynamics"], run=False)
    with pytest.raises(AssertionError, match="nothing"):
        run_command(["pip", "install", "looplens-interp[nothing]"], run=False)
