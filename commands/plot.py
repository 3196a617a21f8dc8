"""`evaluate.py plot`: draw learning curves of run folders; nothing is played."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from evaluation.printing import print_line

_SUFFIXES = (".png", ".pdf", ".svg")


@dataclass(frozen=True, kw_only=True)
class PlotOptions:
    """Draw learning curves of run folders, with a band over seeds; nothing is played.

    Runs that differ only in their seed are one curve. With several environments, a picture is
    written for each.
    """

    runs: Annotated[
        tyro.conf.Positional[tuple[str, ...]],
        tyro.conf.arg(metavar="RUN [RUN ...]", help_behavior_hint="(required)"),
    ]
    """Run folders, or patterns for them in quotes."""
    out: Path = Path("curves.png")
    """The picture to write: .png, .pdf or .svg."""
    tag: str = "rollout/ep_rew_mean"
    """The column of progress.csv to draw, as in eval/mean_reward."""
    labels: tuple[str, ...] = ()
    """Names for the curves, in the order of the runs; those of a pattern are in that of `ls`."""

    def __post_init__(self) -> None:
        """Check the names."""
        if not self.runs:
            raise ValueError("name at least one run")
        if self.out.suffix not in _SUFFIXES or self.out.is_dir():
            raise ValueError(f"--out {self.out}: a picture is a .png, .pdf or .svg file")


def run(options: PlotOptions) -> None:
    """Draw the curves of each environment."""
    from envs.registry import folder_name
    from evaluation.entries import own_names
    from evaluation.report.curve_plots import curves
    from evaluation.report.curves import RETURN, curves_of_runs
    from evaluation.report.layout import rendered
    from evaluation.report.looks import looks_of, renamed, short_names
    from evaluation.report.report import folder_names
    from storage.files import check_writable, write_atomically

    check_writable(options.out.parent)
    by_env = curves_of_runs(options.runs, options.tag)
    entries = [name for of_env in by_env.values() for name in of_env]
    if options.labels:
        shown = dict(zip(entries, own_names(entries, options.labels), strict=True))
    else:
        shown = short_names(entries)
    looks = looks_of(shown.values())
    unit = "mean return of the last 100 episodes" if options.tag == RETURN else options.tag
    places = folder_names(folder_name(env) for env in by_env)
    for (env, of_env), place in zip(by_env.items(), places, strict=True):
        figure = curves(env, unit, renamed(of_env, shown), looks)
        stem = options.out.stem if len(by_env) == 1 else f"{options.out.stem}-{place}"
        out = options.out.with_name(f"{stem}{options.out.suffix}")
        write_atomically(out, rendered(figure, out.suffix[1:]))
        names = [f"{shown[e]} = {e}" if options.labels else shown[e] for e in of_env]
        print_line(f"{out}: {env}, {', '.join(names)}")
