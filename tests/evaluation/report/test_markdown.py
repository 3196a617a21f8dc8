"""Tests of `evaluation.report.markdown`, by reading tables back and rendering them."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from markdown import markdown as html

from envs import SCENARIOS, EnvConfig
from evaluation.report.markdown import markdown, markdown_table, plain, summary_markdown
from evaluation.report.sentences import footnotes, verdicts
from evaluation.report.tables import COLUMNS, SUMMARY_COLUMNS, rows
from tests.evaluation.policies import renamed

HOSTILE = [
    "a|b",
    "`rm -rf`",
    "two\nlines",
    "<script>alert(1)</script>",
    "*bold*",
    "_it_",
    "&lt;",
    "[link](http://x)",
    "\\|",
    "~~gone~~",
    "$x^2$",
    "![i](x.png)",
    "a_b_c",
    "a<br>b",
    "\r",
]


def tables(text):
    """Return the cells of all Markdown tables in a text, row by row."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def as_text(cell):
    """Return a cell as it is displayed."""
    return re.sub(r"&#(\d+);", lambda match: chr(int(match[1])), cell)


def test_two_tables_together_have_every_column(comparison):
    lines, num = tables(markdown(comparison)), len(comparison.results)
    scores, circumstances = lines[: num + 2], lines[num + 2 :]
    assert [*scores[0], *circumstances[0][1:]] == list(COLUMNS)
    for table in (scores, circumstances):
        assert len(table) == num + 2 == 7
        assert {len(row) for row in table} == {len(table[0])}
    joined = [tuple(a + b[1:]) for a, b in zip(scores[2:], circumstances[2:], strict=True)]
    assert [tuple(map(as_text, row)) for row in joined] == rows(comparison)


@pytest.mark.parametrize("name", HOSTILE)
def test_names_stay_text(comparison, name):
    other = renamed(comparison, name)
    for text, widths in (
        (markdown(other), {9, 6}),
        (summary_markdown([other, other]), {len(SUMMARY_COLUMNS)}),
    ):
        cells = tables(text)
        assert {len(row) for row in cells} == widths
        shown = name.replace("\n", " ").replace("\r", " ").strip()
        assert any(as_text(cell).startswith(shown) for row in cells for cell in row)
        # This renderer is the one of TensorBoard.
        page = html(text, extensions=["tables"])
        assert not re.search(r"<(script|strong|em|code|img|a|del)\b", page)
        assert page.count("<h1>") == 1


def test_figures_are_shown(comparison):
    assert '<img alt="scores" src="scores.svg"' in html(markdown(comparison, ["scores.svg"]))


def test_footnotes_and_verdicts_follow_the_tables(comparison):
    text = markdown(comparison)
    for note in footnotes(comparison):
        assert f"\n{note}\n" in text
    for sentence in verdicts(comparison):
        assert f"\n- {plain(sentence)}" in text
    sentence = comparison.protocol.sentence(comparison.config)
    assert f"- CartPole-v1: {sentence}" in summary_markdown([comparison])


def test_the_reference_appears_with_its_source(comparison):
    assert "eference" not in markdown(comparison)
    in_doom = replace(comparison, config=EnvConfig(env="basic"))
    source = f"Reference: {SCENARIOS['basic'].reference.source}."
    assert source in markdown(in_doom)
    assert source in summary_markdown([comparison, in_doom])


def test_text_is_aligned_to_the_left_and_numbers_to_the_right():
    assert markdown_table(("name", "mean"), [("a|b", "1.00")], text=(0,)) == [
        "| name | mean |",
        "| --- | ---: |",
        "| a&#124;b | 1.00 |",
    ]
