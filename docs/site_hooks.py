"""What the documentation site needs beside Markdown: ``make docs`` runs it inside mkdocs.

- pages of the reference, one a package, from the public names of the package;
- pages that only some checkouts have (tasks, training, the gallery), put into the navigation;
- formulas as MathML, which browsers draw by themselves: no script is loaded for them.
"""

from __future__ import annotations

import html
import importlib
import inspect
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS))
from docstrings import to_markdown  # noqa: E402

GUIDE = {"tasks.md": "Tasks", "training.md": "Training"}
PACKAGES = {
    "looplens": "Load, record, open, generate: what most scripts need.",
    "looplens.analysis": "Analyses of arrays and of runs, without torch.",
    "looplens.dynamics": "Experiments with the live model.",
    "looplens.gallery": "The claims of the papers, run again.",
    "looplens.loops": "Addresses of passes, and declarations of loops in foreign modules.",
    "looplens.models": "Looped models, their configurations and checkpoints.",
    "looplens.plots": "A plotly figure for every analysis: from a run, and from plain arrays.",
    "looplens.prompts": "What is recorded.",
    "looplens.recording": "From a model to a run.",
    "looplens.reports": "Reports and conditions.",
    "looplens.store": "What lies in a run.",
    "looplens.tasks": "Tasks with exact answers.",
    "looplens.testing": "Systems whose regime is known.",
    "looplens.thinking": "Decoding, caches, exit rules.",
    "looplens.training": "Recipes and losses.",
}
FORMULA = re.compile(r'<(span|div) class="arithmatex">(.*?)</\1>', re.DOTALL)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the pages into the navigation that are made elsewhere."""
    assert config.nav is not None
    parts = {next(iter(part)): part for part in config.nav}
    guide = parts["Guide"]["Guide"]
    guide += [{title: page} for page, title in GUIDE.items() if (DOCS / page).exists()]
    before = list(parts).index("About")
    if gallery := _pages("gallery"):
        if full := _pages("gallery/full"):
            gallery.append({"At full size": full})
        config.nav.insert(before, {"Gallery": gallery})
        before += 1
    reference = ["reference/index.md", *({name: page_of(name)} for name in packages())]
    config.nav.insert(before, {"Reference": reference})
    return config


def _pages(folder: str) -> list[Any]:
    """Return the index of a folder and the pages that begin with a number; none without them."""
    pages = sorted(page.name for page in (DOCS / folder).glob("[0-9]*.md"))
    return [f"{folder}/{name}" for name in ("index.md", *pages)] if pages else []


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages of the reference."""
    pages = reference_pages()
    rows = [f"| [`{name}`]({Path(page_of(name)).name}) | {PACKAGES[name]} |" for name in packages()]
    head = "# Reference\n\nPublic names, from their docstrings.\n\n| package | holds |\n|---|---|\n"
    pages["reference/index.md"] = head + "\n".join(rows) + "\n"
    for path, text in pages.items():
        files.append(File.generated(config, path, content=text))
    return files


def on_page_content(html_text: str, **_: Any) -> str:
    """Turn formulas into MathML."""
    return FORMULA.sub(lambda found: mathml(found[2], block=found[1] == "div"), html_text)


def mathml(formula: str, *, block: bool) -> str:
    r"""Return MathML of a formula between ``\(`` and ``\)`` or ``\[`` and ``\]``."""
    latex = html.unescape(formula).strip()[2:-2].strip().replace("\\arg", r"\operatorname{arg}")
    return convert(latex, display="block" if block else "inline")


def packages() -> list[str]:
    """Return the packages of ``PACKAGES`` that this checkout has."""
    return [name for name in PACKAGES if importlib.util.find_spec(name) is not None]


def page_of(package: str) -> str:
    """Return the address of the page on a package."""
    return f"reference/{package.removeprefix('looplens.').replace('.', '-')}.md"


def public_names(module: ModuleType) -> list[str]:
    """Return public names: ``__all__`` without modules, else what the module itself defines."""
    listed = getattr(module, "__all__", None)
    if listed is not None:
        shown = [name for name in listed if not name.startswith("_")]
        return [name for name in shown if not inspect.ismodule(getattr(module, name))]
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__
    ]


def reference_pages() -> dict[str, str]:
    """Return the pages by address. A name of two packages is documented in the deeper one."""
    homes: dict[str, str] = {}
    modules = {name: importlib.import_module(name) for name in packages()}
    for package in reversed(modules):
        for name in public_names(modules[package]):
            value = getattr(modules[package], name)
            if documented(value):
                homes.setdefault(path_of(value), package)
    return {page_of(name): reference_page(name, module, homes) for name, module in modules.items()}


def reference_page(package: str, module: ModuleType, homes: dict[str, str]) -> str:
    """Return the page on a package: names of other pages, classes, functions, constants."""
    groups: dict[str, list[str]] = {"Classes": [], "Functions": [], "Constants": []}
    elsewhere = []
    for name in public_names(module):
        value, heading = getattr(module, name), f"{package}.{name}"
        if not documented(value):
            groups["Constants"].append(constant(heading, value))
        elif homes[path_of(value)] != package:
            first = to_markdown((inspect.getdoc(value) or "").partition("\n")[0])
            elsewhere.append(f"| [`{heading}`][{path_of(value)}] | {first} |")
        else:
            kind = "Classes" if inspect.isclass(value) else "Functions"
            groups[kind].append(directive(path_of(value), heading))
    parts = [f"# {package}", to_markdown(inspect.cleandoc(module.__doc__ or ""))]
    if elsewhere:
        parts.append("\n".join(["| name | is |", "|---|---|", *elsewhere]))
    for title, entries in groups.items():
        if entries:
            parts += [f"## {title}", *entries]
    return "\n\n".join(parts) + "\n"


def documented(value: Any) -> bool:
    """Return whether a value has a page entry of its own: classes and functions have."""
    return inspect.isclass(value) or inspect.isfunction(value)


def path_of(value: Any) -> str:
    """Return where a class or function is defined."""
    return f"{value.__module__}.{value.__qualname__}"


def directive(path: str, heading: str) -> str:
    """Return what mkdocstrings turns into the documentation of one name."""
    short = heading.rpartition(".")[2]
    return f"::: {path}\n    options:\n      heading: {heading}\n      toc_label: {short}"


def constant(heading: str, value: Any) -> str:
    """Return a heading and what can be said of a value: its keys, or itself if short."""
    if isinstance(value, dict):
        said = "Keys: " + ", ".join(f"`{key}`" for key in value)
    else:
        text = repr(value)
        said = f"`{text}`" if len(text) <= 200 else f"A `{type(value).__name__}`."
    return f'### `{heading}` {{ data-toc-label="{heading.rpartition(".")[2]}" }}\n\n{said}'
