"""The results of `evaluation.league` as tables and as Markdown."""

from __future__ import annotations

from envs import EnvConfig
from evaluation.league.league import League
from evaluation.protocol import Protocol
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


def notes(protocol: Protocol, config: EnvConfig) -> str:
    """Return what was played and what the numbers are, as text.

    Args:
        protocol: as for `play_league`.
        config: the environment.
    """
    facts = protocol.facts(config)
    maps = -(-protocol.episodes // 2)
    return (
        f"Protocol: {2 * maps} matches of each pair, two on each map of the seeds {protocol.seed} "
        f"to {protocol.seed + maps - 1}, which training never uses, with sides exchanged; against "
        f"the bot, {2 * maps} maps; frame_skip {facts['frame_skip']}; at most "
        f"{facts['time_limit_frames']:,} frames; actions are sampled. Points: a win 1, a draw 0.5. "
        "Ratings: Bradley-Terry by maximum likelihood, on the scale of Elo: a difference of "
        "400 means that the stronger player wins ten of eleven; random has 0. Half a drawn match "
        "against an average player is added for each player, so that ratings are finite. Intervals "
        "of ratings are a bootstrap over matches, those of points Wilson's; they do not say what "
        "other training seeds would give."
    )


def markdown(league: League, notes: str) -> str:
    """Return the results as Markdown, with notes below."""
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
        plain(notes),
    ]
    return "\n".join(lines) + "\n"
