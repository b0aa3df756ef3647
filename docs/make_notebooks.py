"""Run the notebooks of ``examples`` and write each as a page, with its figures as still pictures.

`make images` calls this. A page of the site loads nothing from elsewhere, so figures are PNG here;
in the notebook itself they can be turned and zoomed.
"""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path
from typing import Any

import nbformat
import plotly.graph_objects as go
import plotly.io
from nbclient import NotebookClient

ROOT = Path(__file__).parents[1]
OUT = ROOT / "docs" / "notebooks"
PLOTLY = "application/vnd.plotly.v1+json"
SIZE = (860, 460)  # of figures that fill what they are placed in


def main() -> None:
    """Write the pages of all notebooks."""
    OUT.mkdir(exist_ok=True)
    for path in sorted((ROOT / "examples").glob("*.ipynb")):
        print(write_page(path))


def write_page(path: Path) -> Path:
    """Run one notebook and write its page and pictures."""
    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        resources = {"metadata": {"path": folder}}
        NotebookClient(notebook, timeout=600, kernel_name="python3", resources=resources).execute()
    for old in OUT.glob(f"{path.stem}-*.png"):
        old.unlink()
    title, *parts = [text for cell in notebook.cells for text in _texts(cell)]
    figures = [figure for cell in notebook.cells for figure in _figures(cell)]
    names = [f"{path.stem}-{number}.png" for number in range(1, len(figures) + 1)]
    plotly.io.write_images(
        figures,
        [OUT / name for name in names],
        scale=1.5,
        width=[figure.layout.width or SIZE[0] for figure in figures],
        height=[figure.layout.height or SIZE[1] for figure in figures],
    )
    note = f"*The notebook `examples/{path.name}`, run from top to bottom by `make images`.*"
    text = "\n\n".join([title, note, *parts]) + "\n"
    for name in names:
        text = text.replace("![]()", f"![Figure of the cell above]({name})", 1)
    page = OUT / f"{path.stem}.md"
    page.write_text(text, encoding="utf-8")
    return page


def _texts(cell: Any) -> list[str]:
    if cell.cell_type == "markdown":
        return [cell.source]
    texts = [f"```python\n{cell.source}\n```"]
    for output in cell.outputs:
        data = output.get("data", {})
        shown = output.get("text") or data.get("text/plain", "")
        if PLOTLY in data:
            texts.append("![]()")
        elif shown and output.get("name") != "stderr":
            plain = re.sub(r"\x1b\[[0-9;]*m", "", shown).rstrip()
            texts.append(f"```text\n{plain}\n```")
    return texts


def _figures(cell: Any) -> list[go.Figure]:
    outputs = [output.get("data", {}) for output in cell.get("outputs", [])]
    return [
        go.Figure({k: data[PLOTLY][k] for k in ("data", "layout")})
        for data in outputs
        if PLOTLY in data
    ]


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ["PYTHONWARNINGS"] = "ignore"  # of the kernels: a page shows results
    main()
