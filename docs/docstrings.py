"""Docstrings for the reference: what they have of reStructuredText, as Markdown.

mkdocstrings reads the sections of numpydoc, but takes the text between for Markdown. Formulas,
roles, footnotes and double colons are translated here. It changes no file.
"""

from __future__ import annotations

import re
import textwrap
from typing import Any

import griffe

DIRECTIVE = re.compile(
    r"^(?P<indent> *)\.\. math::(?P<body>.*(?:\n(?:(?P=indent) +\S.*| *$))*)", re.MULTILINE
)


class ReStructuredText(griffe.Extension):
    """Rewrites every docstring once, when its object has been read."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite the docstring of an object."""
        if obj.docstring is not None:
            obj.docstring.value = to_markdown(obj.docstring.value)


def to_markdown(text: str) -> str:
    """Translate a docstring."""
    text = DIRECTIVE.sub(_formula, text)
    text = re.sub(r"::$", ":", text, flags=re.MULTILINE)
    text = re.sub(r":math:`([^`]*)`", r"$\1$", text)
    text = re.sub(r":[a-z]+:`[~!]?([^`]*)`", r"`\1`", text)
    text = re.sub(r"^( *)\.\. \[(\d+)\] ", r"\1\2. ", text, flags=re.MULTILINE)
    text = re.sub(r"\[(\d+)\]_", r"[\1]", text)
    return re.sub(r"\[([a-z]+,)\]", r"\\[\1\\]", text)  # optional axes, not links


def _formula(found: re.Match[str]) -> str:
    body = " ".join(textwrap.dedent(found["body"]).split())
    return textwrap.indent(f"\n$$ {body} $$\n", found["indent"])
