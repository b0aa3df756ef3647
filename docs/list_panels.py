"""Write the tables of app.md, one a page, from the panels of the app: ``make images`` does it."""

from __future__ import annotations

from pathlib import Path

from looplens_dashboard import pages

PAGE = Path(__file__).parent / "app.md"
START, END = "## What each panel answers\n", "## Out of the app\n"


def tables() -> str:
    """Return a heading, a picture and a table of panels and their questions for each page."""
    parts = ["", "| panel of every page | answers |", "|---|---|"]
    parts += [f"| {panel.title} | {panel.answers} |" for panel in pages.BAR]
    for page in pages.PAGES:
        parts += ["", f"### {page.title}", ""]
        parts += [f"![{page.title}](images/app-{page.name}-light.png)", ""]
        parts += ["| panel | answers |", "|---|---|"]
        parts += [f"| {panel.title} | {panel.answers} |" for panel in page.panels]
    return "\n".join([*parts, "", ""])


def main() -> None:
    """Put the tables into app.md."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(START)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{START}{tables()}{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
