"""Evaluate and share trained policies: `python evaluate.py score RUN`, for example.

RUN is a run folder or a policy file, or zoo/NAME for a policy that comes with the project.
`python evaluate.py COMMAND --help` lists the options of a command.
"""

from __future__ import annotations

from commands.start import prepare

prepare(__name__)

import functools
import operator
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

COMMANDS: dict[str, tuple[type[Any], Callable[[Any], None]]] = {
    "score": (score.ScoreOptions, score.run),
    "replay": (replay.ReplayOptions, replay.run),
    "watch": (watch.WatchOptions, watch.run),
    "compare": (compare.CompareOptions, compare.run),
    "suite": (suite.SuiteOptions, suite.run),
    "generalise": (generalise.GeneraliseOptions, generalise.run),
    "league": (league.LeagueOptions, league.run),
    "plot": (plot.PlotOptions, plot.run),
    "board": (board.BoardOptions, board.run),
    "gallery": (gallery.GalleryOptions, gallery.run),
    "explain": (explain.ExplainOptions, explain.run),
    "compress": (compress.CompressOptions, compress.run),
    "attack": (attack.AttackOptions, attack.run),
    "export": (export.ExportOptions, export.run),
    "push": (push.PushOptions, push.run),
    "pull": (pull.PullOptions, pull.run),
}
RUN = dict(COMMANDS.values())
Command: Any = functools.reduce(
    operator.or_,
    (Annotated[kind, tyro.conf.subcommand(name)] for name, (kind, _) in COMMANDS.items()),
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
