"""The goals of the detector of regimes, and what they are measured by."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from looplens.analysis import REGIMES

COST_LENGTHS = (64, 128, 256, 512, 1024)
UNRESOLVED = REGIMES.index("unresolved")
Row = dict[str, Any]
Table = list[list[int]]


class Goal(NamedTuple):
    """One goal and what was measured."""

    name: str
    value: float
    goal: float
    at_least: bool
    unit: str = "%"

    @property
    def met(self) -> bool:
        """Whether it holds."""
        return self.value >= self.goal if self.at_least else self.value <= self.goal

    def cells(self) -> tuple[str, str, str, str]:
        """Return the cells of its row."""
        sign = "≥" if self.at_least else "≤"
        return (
            self.name,
            f"{self.value:.2f} {self.unit}",
            f"{sign} {self.goal:g} {self.unit}",
            "yes" if self.met else "**missed**",
        )


def total(tables: Iterable[Table]) -> Table:
    """Sum confusion matrices."""
    size = range(len(REGIMES))
    tables = list(tables)
    return [[sum(table[i][j] for table in tables) for j in size] for i in size]


def right(table: Table) -> float:
    """Percentage of all systems whose label is the truth; abstaining is right on no regime."""
    return 100 * sum(table[i][i] for i in range(len(table))) / max(_count(table), 1)


def wrong(table: Table) -> float:
    """Percentage of all systems that got a label, and the wrong one."""
    off = sum(
        value
        for i, row in enumerate(table)
        for j, value in enumerate(row)
        if j not in (i, UNRESOLVED)
    )
    return 100 * off / max(_count(table), 1)


def rejected(table: Table) -> float:
    """Percentage of systems without a regime on which it abstains."""
    row = table[UNRESOLVED]
    return 100 * row[UNRESOLVED] / max(sum(row), 1)


def _count(table: Table) -> int:
    return sum(map(sum, table))


def pick(
    rows: list[Row], *, part: str, rule: str = "current", least: int = 0, snr: Iterable[Any]
) -> Table:
    """Sum the matrices of a rule over records of at least so many iterations."""
    return total(
        row["table"]
        for row in rows
        if row["part"] == part
        and row["rule"] == rule
        and row["T"] >= least
        and row["snr"] in tuple(snr)
    )


def goals(document: Row) -> list[Goal]:
    """Return the goals that the document has numbers for."""
    rows, clear, noisy = document["rows"], ("inf", 40, 20), (10,)
    every = (*clear, *noisy)
    found = []
    for part in dict.fromkeys(row["part"] for row in rows):
        tables = {name: pick(rows, part=part, least=64, snr=snr) for name, snr in
                  (("clear", clear), ("noisy", noisy), ("every", every))}  # fmt: skip
        found += [
            Goal(f"{part} kinds: right, T ≥ 64, SNR ≥ 20 dB", right(tables["clear"]), 99, True),
            Goal(f"{part} kinds: right, T ≥ 64, SNR 10 dB", right(tables["noisy"]), 97, True),
            Goal(
                f"{part} kinds: no regime, abstained, T ≥ 64, SNR ≥ 10 dB",
                rejected(tables["every"]),
                95,
                True,
            ),
            Goal(
                f"{part} kinds: wrong label, T ≥ 64, SNR ≥ 10 dB",
                wrong(tables["every"]),
                0.5,
                False,
            ),
            Goal(
                f"{part} kinds: wrong label, all T, SNR ≥ 10 dB",
                wrong(pick(rows, part=part, snr=every)),
                0.5,
                False,
            ),
        ]
    for length in dict.fromkeys(row["T"] for row in document["trained"]):
        seen = [row for row in document["trained"] if row["T"] == length]
        plain = total(row["table"] for row in seen if " x " not in row["model"])
        table, early = (total(row[what] for row in seen) for what in ("table", "not repeated"))
        rest = [
            [a - b for a, b in zip(*two, strict=True)] for two in zip(table, early, strict=True)
        ]
        both = "bundled models and gains"
        found += [
            Goal(f"bundled models, T = {length}: right", right(plain), 97, True),
            Goal(f"{both}, T = {length}: right", right(table), 97, True),
            Goal(
                f"{both}, T = {length}, without orbits that have not repeated a turn: right",
                right(rest),
                97,
                True,
            ),
            Goal(f"{both}, T = {length}: wrong label", wrong(table), 0.5, False),
        ]
    if document["cost"]:
        cost = document["cost"]
        found += [
            Goal("cost at T = 128, d = 512", cost["128"], 1.0, False, "ms"),
            Goal("cost at T = 1024 over eight times that at T = 128",
                 cost["1024"] / cost["128"] / 8, 1.5, False, "x"),
        ]  # fmt: skip
    return found


def counts(row: Row) -> str:
    """Return a confusion matrix in one line: truths between bars, labels between commas."""
    cells = " | ".join(",".join(f"{value:4d}" for value in part) for part in row["table"])
    shares = f"right {right(row['table']):5.1f}  wrong {wrong(row['table']):4.1f}"
    return f"T={row['T']:<4d} {shares}  {cells}"


def show(found: list[Goal]) -> None:
    """Print goals."""
    print()
    for goal in found:
        name, value, asked, met = goal.cells()
        print(f"{name:76s} {value:>10s}  {asked:>10s}  {met.strip('*')}")
