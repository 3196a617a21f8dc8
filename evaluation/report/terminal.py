"""Scores and comparisons as tables in a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from evaluation.compare import Comparison
from evaluation.printing import print_line
from evaluation.report import compression, tables
from evaluation.report.compression import Variant
from evaluation.report.sentences import footnotes, summary_notes, verdicts
from evaluation.statistics import Score


def print_scores(console: Console, scores: Mapping[str, Score], env: str) -> None:
    """Print scores as a table, with the reference if one is known."""
    table = Table(title=f"{env}: native return", title_justify="left")
    table.add_column("player", overflow="fold")
    for column in ("mean", "95 % interval", "std", "median", "env steps"):
        table.add_column(column, justify="right", no_wrap=True)
    for name, s in scores.items():
        interval = f"{s.ci_low:,.2f} to {s.ci_high:,.2f}"
        numbers = (f"{s.mean:,.2f}", interval, f"{s.std:,.2f}", f"{s.median:,.2f}")
        table.add_row(name, *numbers, f"{s.mean_length:,.0f}")
    reference = tables.reference(env)
    if reference:
        table.add_row("reference", f"{reference.mean:,.2f}")
        table.caption = f"reference: {reference.source}"
    console.print(table)


def print_comparison(console: Console, comparison: Comparison) -> None:
    """Print a comparison as a table with its footnotes."""
    table = Table(title=f"{comparison.config.env}: native return", title_justify="left")
    shown = ["rank", "player", "mean", tables.OVER_EPISODES, "median"]
    if any(result.is_agent for result in comparison.results):
        shown = [*shown[:-1], tables.OVER_SEEDS, "seeds' means"]
    for column in shown:
        if column == "player":
            table.add_column(column, overflow="fold")
        else:
            # Two lines, so that the heading does not make the column wider than its numbers.
            heading = column.replace(" over ", "\nover ")
            table.add_column(Text(heading), justify="right", no_wrap=column != "seeds' means")
    for row in tables.rows(comparison):
        table.add_row(*(row[tables.COLUMNS.index(column)] for column in shown))
    console.print(table)
    for verdict in verdicts(comparison):
        print_line(f"- {verdict}")
    for note in footnotes(comparison):
        print_line(note)


def print_variants(console: Console, variants: Sequence[Variant]) -> None:
    """Print the table of compressed variants, the teacher first."""
    table = Table(title="compressed variants", title_justify="left")
    columns, *rows = compression.short_rows(variants)
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    console.print(table)


def print_summary(console: Console, comparisons: Sequence[Comparison]) -> None:
    """Print the table of all environments with its footnotes."""
    table = Table(
        title="All environments: mean native return, 95 % interval over episodes",
        title_justify="left",
    )
    for column in tables.SUMMARY_COLUMNS:
        is_text = column in ("environment", "player")
        table.add_column(column, justify="left" if is_text else "right", overflow="fold")
    for row in tables.summary_rows(comparisons):
        table.add_row(*row)
    console.print(table)
    for note in summary_notes(comparisons):
        print_line(note)
