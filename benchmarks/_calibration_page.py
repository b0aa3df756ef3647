"""``docs/analysis/calibration.md``: its tables are made from ``regimes.json``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from benchmarks._calibration import COST_LENGTHS, Row, goals, pick, rejected, right, wrong
from looplens.analysis import REGIMES

RESULTS = Path(__file__).parent / "regimes.json"
PAGE = Path(__file__).parents[1] / "docs" / "analysis" / "calibration.md"
BEGIN, END = "<!-- made, do not edit -->", "<!-- end of what is made -->"


def page(text: str, document: Row) -> str:
    """Return the page with its made part made anew."""
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2]
    return f"{before}{BEGIN}\n{made(document)}\n{END}{after}"


def made(document: Row) -> str:
    """Return the tables in Markdown."""
    rows = document["rows"]
    rules = list(dict.fromkeys(row["rule"] for row in rows))
    lines = [
        "",
        f"{document['systems']} draws of every kind, from seed {document['seed'] * 1000:,} on; "
        f"{document['seconds'] / 60:.1f} minutes on {document['machine']}.",
        "",
        "### Goals",
        "",
        *table_of(("goal", "measured", "asked", "met"), [goal.cells() for goal in goals(document)]),
        "",
        "### All rules, T ≥ 64 and SNR ≥ 20 dB",
        "",
        "Per cent. *Right* is over all four truths, abstaining being right where there is no "
        "regime; *wrong* is a label that is not the truth; *rejected* is the share of systems "
        "without a regime on which the rule abstains.",
        "",
    ]
    head = ("rule", *(f"{part}: {what}" for part in ("known", "unseen")
                      for what in ("right", "wrong", "rejected")))  # fmt: skip
    body = []
    for rule in rules:
        cells = [rule]
        for part in ("known", "unseen"):
            table = pick(rows, part=part, rule=rule, least=64, snr=("inf", 40, 20))
            cells += [f"{share(table):.1f}" for share in (right, wrong, rejected)]
        body.append(tuple(cells))
    lines += table_of(head, body)
    if document["previous"]:
        lines += ["", f"The previous detector is not in the table: {document['previous']}."]
    for part in ("known", "unseen"):
        lines += _part(rows, part)
    lines += ["", "### Trained models", "", _TRAINED, ""]
    lines += table_of(
        ("model", "T", "right", "wrong", "truth: fixed, orbit, slider, none"),
        [
            (row["model"], str(row["T"]), f"{right(row['table']):.1f}",
             f"{wrong(row['table']):.1f}", ", ".join(str(sum(part)) for part in row["table"]))
            for row in document["trained"]
        ],
    )  # fmt: skip
    lines += ["", "### Cost", ""]
    cells = tuple(f"{document['cost'][str(length)]:.2f}" for length in COST_LENGTHS)
    lines += table_of(
        ("T", *map(str, COST_LENGTHS)), [("milliseconds a trajectory, d = 512", *cells)]
    )
    return "\n".join(lines)


_TRAINED = (
    "Tokens of the bundled models, also with the state's half of the adapter multiplied by a gain. "
    "The verdict sees the first T iterations; the truth is what states 1500 to 2048 do, by a "
    "direct test. Per cent; abstaining counts as right only where the truth is no regime."
)


def _part(rows: list[Row], part: str) -> list[str]:
    ratios = ("inf", 40, 20, 10)
    lines = ["", f"### Today's detector on {part} kinds", "", "Right (wrong), per cent:", ""]
    body = []
    for length in dict.fromkeys(row["T"] for row in rows):
        tables = {
            row["snr"]: row["table"]
            for row in rows
            if (row["part"], row["rule"], row["T"]) == (part, "current", length)
        }
        shown = (f"{right(tables[snr]):.1f} ({wrong(tables[snr]):.1f})" for snr in ratios)
        body.append((str(length), *shown))
    lines += table_of(("T", "no noise", "40 dB", "20 dB", "10 dB"), body)
    table = pick(rows, part=part, least=64, snr=("inf", 40, 20))
    lines += ["", "Confusion at T ≥ 64 and SNR ≥ 20 dB, truths in rows:", ""]
    lines += table_of(
        ("truth", *REGIMES),
        [(name, *map(str, row)) for name, row in zip(REGIMES, table, strict=True)],
    )
    ours = [row for row in rows if (row["part"], row["rule"]) == (part, "current")]
    found, off = (sum(row["period"][i] for row in ours) for i in (0, 1))
    lines += ["", f"Of {found} orbits found, {off} have a period off by more than 3 %."]
    missed: Counter[str] = Counter()
    for row in ours:
        if row["T"] >= 64 and row["snr"] != 10:
            missed.update(row["missed"])
    if missed:
        named = "; ".join(f"{name} ({count})" for name, count in missed.most_common(5))
        lines += ["", f"Most missed at T ≥ 64 and SNR ≥ 20 dB: {named.replace('_', ' ')}."]
    return lines


def table_of(head: tuple[str, ...], body: Iterable[tuple[str, ...]]) -> list[str]:
    rows = [head, tuple("---" for _ in head), *body]
    return ["| " + " | ".join(cells) + " |" for cells in rows]
