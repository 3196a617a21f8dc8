"""`evaluate.py league`: let policies play against each other, and rate them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.table import Table

from commands.options import CONSOLE, ReadingOptions, check_at_least_one, check_folder, check_seeds
from evaluation.printing import print_line
from evaluation.seeds import SCORING
from storage.files import check_writable


@dataclass(frozen=True, kw_only=True)
class LeagueOptions(ReadingOptions):
    """Let all policies play against each other, against random actions, and the engine's bot.

    Ratings and win rates are reported with intervals, as tables and as JSON.
    """

    runs: Annotated[
        tyro.conf.Positional[tuple[str, ...]],
        tyro.conf.arg(metavar="RUN [RUN ...]", help_behavior_hint="(required)"),
    ]
    """Run folders, policy files, or patterns for them in quotes, all of one environment."""
    matches: int = 20
    """Matches of each pair; half of them with sides exchanged."""
    seed: int = SCORING
    """Seed of the first map; the others follow. Training never uses these seeds."""
    num_envs: int = 4
    """Number of matches in parallel; each takes an engine for each player."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device of the policies. auto: the GPU if there is one."""
    out: Path | None = None
    """The folder to write to. None: runs/league/ENV."""

    def __post_init__(self) -> None:
        """Check ranges."""
        check_at_least_one(self, "matches", "num_envs")
        check_seeds(self.seed, self.matches)
        if not self.runs:
            raise ValueError("name at least one run")
        if self.out is not None:
            check_folder(self.out)


def run(options: LeagueOptions) -> None:
    """Play a league, and write it as tables and as JSON."""
    from envs.registry import folder_name
    from evaluation.entries import find_entries
    from evaluation.league.league import BOT, RANDOM, play_league
    from evaluation.protocol import Protocol
    from evaluation.report import league as report
    from storage.files import write_atomically, write_json

    entries = find_entries(options.runs, trust=options.trust)
    found = [contestant for entry in entries for contestant in entry.contestants]
    names = [str(contestant.path) for contestant in found]
    names = [f"./{name}" if name in (RANDOM, BOT) else name for name in names]
    contestants = list(zip(names, found, strict=True))
    protocol = Protocol(
        episodes=options.matches,
        seed=options.seed,
        num_envs=options.num_envs,
        device=options.device,
    )
    config = contestants[0][1].config
    out = options.out or Path("runs", "league", folder_name(config.env))
    check_writable(out)
    with CONSOLE.progress() as show:
        league = play_league(contestants, protocol, progress=show)
    shown = Table(title=f"{league.env}: league", title_justify="left")
    for column in report.COLUMNS:
        shown.add_column(column, justify="left" if column == "player" else "right")
    for row in report.table(league):
        shown.add_row(*row)
    CONSOLE.print(shown)
    notes = report.notes(protocol, config)
    print_line(notes)
    out.mkdir(parents=True, exist_ok=True)
    write_atomically(out / "league.md", report.markdown(league, notes).encode())
    write_json(out / "league.json", {"protocol": protocol.facts(config), **league.as_dict()})
    print_line(f"written to {out}: league.md, league.json")
