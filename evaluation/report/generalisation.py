"""The results of `evaluation.generalise` as a table, as Markdown and as a picture."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from evaluation.generalise import Outcome
from evaluation.report import plots
from evaluation.report.looks import COLOURS, Look, is_baseline, looks_of
from evaluation.report.markdown import markdown_table, plain
from evaluation.report.tables import number, with_interval

_COLUMNS = ("condition", "mean", "95 % interval", "difference from unseen maps (95 %)")


def table(outcomes: Sequence[Outcome]) -> tuple[Sequence[str], list[list[str]]]:
    """Return the columns of a table, and its rows."""
    rows = []
    for outcome in outcomes:
        score, loss = outcome.score, outcome.loss
        away = ""
        if loss is not None:
            # Losses are how much lower a mean is than that on unseen maps, but the gap is how much
            # higher that of the training's maps is.
            sign = 1 if outcome is outcomes[0] else -1
            low, high = sorted((sign * loss.low, sign * loss.high))
            # Rounded first, so that there is no minus zero.
            shown = [round(value, 4) + 0.0 for value in (sign * loss.estimate, low, high)]
            away = with_interval(*shown)
        interval = f"{number(score.ci_low)} to {number(score.ci_high)}"
        rows.append([outcome.condition.name, number(score.mean), interval, away])
    return _COLUMNS, rows


def notes(protocol: str, training: str, unseen: str) -> str:
    """Return what the conditions are, as text.

    Args:
        protocol: the protocol's sentence.
        training: name of the condition with the training's maps.
        unseen: name of the condition with others.
    """
    return (
        f"{protocol} {training.capitalize()}: the first episodes of the training, with its seeds. "
        f"{unseen.capitalize()}: as in training, but with seeds that it never uses; all further "
        "conditions have these seeds, too, and differ from unseen maps by what their name says, so "
        "they are compared episode by episode. Intervals are over episodes; several training seeds "
        "are pooled."
    )


def markdown(title: str, outcomes: Sequence[Outcome], protocol: str) -> str:
    """Return the results as Markdown."""
    columns, rows = table(outcomes)
    lines = [f"# {plain(title)}", "", *markdown_table(columns, rows, text=(0,)), ""]
    changes = [
        f"- {plain(o.condition.name)}: "
        + ", ".join(f"`{name}` {value}" for name, value in o.condition.changes.items())
        for o in outcomes
        if o.condition.changes
    ]
    return "\n".join([*lines, plain(protocol), "", *changes, "", "![](generalise.png)"]) + "\n"


def picture(title: str, outcomes: Sequence[Outcome]) -> Figure:
    """Draw the mean of each condition with its intervals, in the order of the conditions."""
    scores = {outcome.condition.name: outcome.score for outcome in outcomes}
    of_baselines = looks_of([name for name in scores if is_baseline(name)])
    looks = {name: of_baselines.get(name, Look(COLOURS[0], "-")) for name in scores}
    return plots.intervals(title, "native return", scores, looks=looks, keeps_order=True)
