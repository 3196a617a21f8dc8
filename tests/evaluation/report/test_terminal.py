"""Tests of `evaluation.report.terminal`."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from envs import SCENARIOS, EnvConfig
from evaluation.report.sentences import footnotes, summary_notes, verdicts
from evaluation.report.tables import COLUMNS, OVER_SEEDS, number, rows, summary_rows
from evaluation.report.terminal import print_comparison, print_scores, print_summary
from tests.evaluation.policies import renamed
from tests.evaluation.report.results import RANDOM, compared, player


@pytest.fixture
def console():
    """A console whose output is kept, without styles."""
    return Console(file=io.StringIO(), width=200, markup=False, emoji=False)


def printed(console):
    """Return the cells of the printed table, row by row, and the whole output."""
    text = console.file.getvalue()
    lines = [line.split("│")[1:-1] for line in text.splitlines() if line.startswith("│")]
    return [[cell.strip() for cell in line] for line in lines], text


def test_scores_are_printed_with_the_reference(console):
    score = player("sampled", [1.0, 2.0, 3.0]).score
    print_scores(console, {"sampled": score}, "basic")
    cells, text = printed(console)
    interval = f"{number(score.ci_low)} to {number(score.ci_high)}"
    assert cells[0] == ["sampled", "2.00", interval, "1.00", "2.00", "1"]
    assert cells[1][:2] == ["reference", "80.40"]
    assert "basic: native return" in text
    assert f"reference: {SCENARIOS['basic'].reference.source}" in text


def test_scores_without_a_reference_are_printed_alone(console):
    print_scores(console, {"sampled": RANDOM.score}, "CartPole-v1")
    cells, text = printed(console)
    assert [row[0] for row in cells] == ["sampled"]
    assert "reference" not in text


def test_a_comparison_is_printed_with_verdicts_and_footnotes(console, comparison, capsys):
    short = renamed(comparison, "good", "bad")
    print_comparison(console, short)
    cells, text = printed(console)
    names = ("rank", "player", "mean", "95 % over episodes", OVER_SEEDS, "seeds' means")
    columns = [COLUMNS.index(name) for name in names]
    assert cells[-len(rows(short)) :] == [[row[i] for i in columns] for row in rows(short)]
    assert "CartPole-v1: native return" in text
    lines = capsys.readouterr().out.splitlines()
    assert lines == [*(f"- {sentence}" for sentence in verdicts(short)), *footnotes(short)]


def test_columns_about_training_seeds_are_printed_only_if_there_are_several(console, capsys):
    print_comparison(console, compared(player("one", [1.0, 2.0]), RANDOM))
    cells, text = printed(console)
    assert "new seeds" not in text
    assert "median" in text
    assert {len(row) for row in cells} == {5}
    assert "The policy one (sampled)" in capsys.readouterr().out


def test_a_summary_is_printed_with_its_footnotes(console, comparison, capsys):
    short = renamed(comparison, "good", "bad")
    both = [short, replace(short, config=EnvConfig(env="basic"))]
    print_summary(console, both)
    cells, text = printed(console)
    assert "All environments" in text
    # A cell may take several lines.
    assert [row[0] for row in cells if row[0]] == [row[0] for row in summary_rows(both)]
    assert capsys.readouterr().out.splitlines() == summary_notes(both)
