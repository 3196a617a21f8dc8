"""Evaluate and share trained policies: `python evaluate.py score RUN`, for example.

RUN is a run folder or a policy file, or zoo/NAME for a policy that comes with the project.
`python evaluate.py COMMAND --help` lists the options of a command.
"""

from __future__ import annotations

from commands.start import prepare

prepare(__name__)

import signal
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import tyro

from commands import (
    attack,
    board,
    compare,
    compress,
    explain,
    export,
    gallery,
    generalise,
    league,
    plot,
    pull,
    push,
    replay,
    score,
    suite,
    watch,
)
from commands.commandline import execute, parse

RUN: dict[type[Any], Callable[[Any], None]] = {
    score.ScoreOptions: score.run,
    replay.ReplayOptions: replay.run,
    watch.WatchOptions: watch.run,
    compare.CompareOptions: compare.run,
    suite.SuiteOptions: suite.run,
    generalise.GeneraliseOptions: generalise.run,
    league.LeagueOptions: league.run,
    plot.PlotOptions: plot.run,
    board.BoardOptions: board.run,
    gallery.GalleryOptions: gallery.run,
    explain.ExplainOptions: explain.run,
    compress.CompressOptions: compress.run,
    attack.AttackOptions: attack.run,
    export.ExportOptions: export.run,
    push.PushOptions: push.run,
    pull.PullOptions: pull.run,
}
Command = (
    Annotated[score.ScoreOptions, tyro.conf.subcommand("score")]
    | Annotated[replay.ReplayOptions, tyro.conf.subcommand("replay")]
    | Annotated[watch.WatchOptions, tyro.conf.subcommand("watch")]
    | Annotated[compare.CompareOptions, tyro.conf.subcommand("compare")]
    | Annotated[suite.SuiteOptions, tyro.conf.subcommand("suite")]
    | Annotated[generalise.GeneraliseOptions, tyro.conf.subcommand("generalise")]
    | Annotated[league.LeagueOptions, tyro.conf.subcommand("league")]
    | Annotated[plot.PlotOptions, tyro.conf.subcommand("plot")]
    | Annotated[board.BoardOptions, tyro.conf.subcommand("board")]
    | Annotated[gallery.GalleryOptions, tyro.conf.subcommand("gallery")]
    | Annotated[explain.ExplainOptions, tyro.conf.subcommand("explain")]
    | Annotated[compress.CompressOptions, tyro.conf.subcommand("compress")]
    | Annotated[attack.AttackOptions, tyro.conf.subcommand("attack")]
    | Annotated[export.ExportOptions, tyro.conf.subcommand("export")]
    | Annotated[push.PushOptions, tyro.conf.subcommand("push")]
    | Annotated[pull.PullOptions, tyro.conf.subcommand("pull")]
)


def main(arguments: Sequence[str]) -> int:
    """Run what a command line says, and return the exit status."""
    options = parse(Command, arguments, program="python evaluate.py", description=__doc__)
    import torch  # Here, as in `commands`, so that --help and mistakes need not wait for it.

    with torch.no_grad():
        RUN[type(options)](options)
    return 0


def command() -> None:
    """Run as a program."""
    # Ctrl-C ends a command like an error: what it has opened is closed.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    execute(main)


if __name__ == "__main__":
    command()
