"""The section by groups of tokens, and the order and length of a report."""

from __future__ import annotations

from looplens.reports._html import contents


def test_groups_are_those_of_the_prompts(report, run):
    section = report.section("groups")
    (table,) = section.tables
    assert table.caption == "By difficulty"
    assert [row[0] for row in table.rows] == ["1", "2", "3", "4"]
    tokens = dict(zip(table.columns, zip(*table.rows, strict=True), strict=True))["tokens"]
    known = run.tokens["difficulty"].values
    assert sum(map(int, tokens)) == (known == known).sum()
    assert "right at the end" in table.columns


def test_the_list_of_contents_has_every_section_in_the_order_of_the_page(report):
    listed = [section.key for _, sections in contents(report) for section in sections]
    assert listed == [section.key for section in report.sections]
    headings = [heading for heading, _ in contents(report)]
    assert len(headings) == len(set(headings))  # sections of one part stand together


def test_what_is_left_open_stays_short(report):
    texts = [statement.text for statement in report.not_concluded]
    assert max(map(len, texts)) < 700  # kinds are counted: no sentence a trajectory


def test_long_tables_are_folded_and_numbers_are_by_analysis(report):
    (numbers,) = report.appendix
    assert {table.caption for table in numbers.tables} >= {"Regimes", "How tokens settle"}
    page = report.to_html()
    assert page.count("<details>") >= len(numbers.tables)
