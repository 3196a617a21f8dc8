"""The results of `evaluation.league` as tables and as Markdown."""

from __future__ import annotations

from evaluation.league.league import League
from evaluation.report.markdown import markdown_table, plain

COLUMNS = ("player", "rating", "95 % interval", "points per match", "95 % interval", "matches")


def table(league: League) -> list[list[str]]:
    """Return the rows of the standings, best first."""
    return [
        [
            each.name,
            f"{each.rating.rating:.0f}",
            f"{each.rating.low:.0f} to {each.rating.high:.0f}",
            f"{100 * each.win_rate.estimate:.0f} %",
            f"{100 * each.win_rate.low:.0f} to {100 * each.win_rate.high:.0f} %",
            f"{each.matches:,}",
        ]
        for each in league.standings
    ]


def pairs(league: League) -> tuple[list[str], list[list[str]]]:
    """Return the columns and rows of the table of all pairs: points per match of the row's player.

    In brackets are wins, draws and losses.
    """
    order = [league.names.index(each.name) for each in league.standings]
    rows = []
    for i in order:
        row = [league.names[i]]
        for j in order:
            if i == j:
                row.append("")
                continue
            each = league.between(i, j)
            counts = "-".join(str(int((each == points).sum())) for points in (1.0, 0.5, 0.0))
            row.append(f"{100 * each.mean():.0f} % ({counts})")
        rows.append(row)
    return ["", *(league.names[j] for j in order)], rows


def notes(protocol: str) -> str:
    """Return what the numbers are, as text."""
    return (
        f"{protocol} Points: a win 1, a draw half. Ratings: Bradley-Terry by maximum likelihood on "
        "the scale of Elo, on which a difference of 400 means that the stronger player wins ten of "
        "eleven; random has 0. Half a drawn match against an average player is added for each "
        "player, so that ratings are finite. Intervals of ratings are a bootstrap over matches, "
        "those of points Wilson's; they do not say what other training seeds would give."
    )


def markdown(league: League, protocol: str) -> str:
    """Return the results as Markdown."""
    columns, rows = pairs(league)
    lines = [
        f"# {plain(league.env)}: league",
        "",
        *markdown_table(COLUMNS, table(league), text=(0,)),
        "",
        "Points of the player on the left (wins-draws-losses):",
        "",
        *markdown_table(columns, rows, text=(0,)),
        "",
        plain(notes(protocol)),
    ]
    return "\n".join(lines) + "\n"
