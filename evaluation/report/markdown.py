"""Comparisons as Markdown, for a README, a wiki or TensorBoard."""

from __future__ import annotations

import re
from collections.abc import Sequence

from evaluation.compare import Comparison
from evaluation.report.sentences import footnotes, summary_notes, verdicts
from evaluation.report.tables import COLUMNS, SUMMARY_COLUMNS, rows, summary_rows

# Two tables, because one would be wider than a page.
_SPLIT = COLUMNS.index("min to max")
_SCORES, _CIRCUMSTANCES = COLUMNS[:_SPLIT], ("player", *COLUMNS[_SPLIT:])


def markdown(comparison: Comparison, figures: Sequence[str] = ()) -> str:
    """Return a comparison as Markdown.

    Args:
        comparison: the comparison.
        figures: names of image files beside the Markdown file.
    """
    lines = [f"# {plain(comparison.config.env)}: native return", ""]
    table = rows(comparison)
    played = table[: len(comparison.results)]
    lines += [*markdown_table(_SCORES, [row[:_SPLIT] for row in table], text=(1,)), ""]
    circumstances = [(row[1], *row[_SPLIT:]) for row in played]
    lines += [*markdown_table(_CIRCUMSTANCES, circumstances, text=(0,)), ""]
    lines += [f"{note}\n" for note in footnotes(comparison)]
    lines += [f"- {plain(sentence)}" for sentence in verdicts(comparison)]
    lines += ["", *(f"![{name.partition('.')[0]}]({name})" for name in figures)]
    return "\n".join(lines).rstrip() + "\n"


def summary_markdown(comparisons: Sequence[Comparison]) -> str:
    """Return the table of all environments as Markdown."""
    lines = ["# All environments: mean native return, 95 % interval over episodes", ""]
    lines += [*markdown_table(SUMMARY_COLUMNS, summary_rows(comparisons), text=(0, 1)), ""]
    lines += [f"- {plain(note)}" for note in summary_notes(comparisons)]
    return "\n".join(lines) + "\n"


def markdown_table(
    columns: Sequence[str], table: Sequence[Sequence[str]], text: Sequence[int]
) -> list[str]:
    """Return the lines of a table.

    Args:
        columns: names of the columns.
        table: rows of cells.
        text: indices of the columns that are aligned to the left; numbers are aligned to the right.
    """
    marks = ["---" if column in text else "---:" for column in range(len(columns))]
    cells = [[plain(cell) for cell in row] for row in (columns, *table)]
    return [f"| {' | '.join(row)} |" for row in (cells[0], marks, *cells[1:])]


def plain(text: str) -> str:
    """Escape a text, so that it is not interpreted as Markdown or HTML."""
    text = re.sub(r"[&<>|`*~$\\\[\]]|(?<![^\W_])_|_(?![^\W_])", lambda m: f"&#{ord(m[0])};", text)
    return re.sub(r"\s", " ", text)
