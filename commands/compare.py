"""`evaluate.py compare`: play the same episodes with several policies, and compare them."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from commands.options import CONSOLE, ScoringOptions, check_folder
from evaluation.printing import print_line
from storage.files import check_writable


@dataclass(frozen=True, kw_only=True)
class CompareOptions(ScoringOptions):
    """Play the same episodes with several policies, and report which are better.

    Folders that differ only in -seedN are seeds of one entry; random and noop are always included.
    Tables, pictures and TensorBoard's files are written to a folder for each environment.
    """

    runs: Annotated[
        tyro.conf.Positional[tuple[str, ...]],
        tyro.conf.arg(metavar="RUN [RUN ...]", help_behavior_hint="(required)"),
    ]
    """Run folders, policy files, or patterns for them in quotes."""
    out: Path = Path("runs/compare")
    """The folder to write to."""
    labels: tuple[str, ...] = ()
    """Names for the entries in tables and pictures, in the order in which they are named."""

    def __post_init__(self) -> None:
        """Check ranges."""
        super().__post_init__()
        if not self.runs:
            raise ValueError("name at least one run")
        check_folder(self.out)


def run(options: CompareOptions) -> None:
    """Compare policies, environment by environment."""
    compare_all(options)


def compare_all(options: CompareOptions) -> list[dict[str, Any]]:
    """Compare policies, environment by environment; report, and return what is in the JSON."""
    from envs.registry import folder_name
    from evaluation.compare import by_env, compare
    from evaluation.entries import find_entries, labelled
    from evaluation.protocol import counted
    from evaluation.report import report
    from evaluation.report.tensorboard import write_board
    from evaluation.report.terminal import print_comparison, print_summary
    from storage.files import write_json

    options.check_writable()
    check_writable(options.out)
    comparisons, documents = [], []
    groups = by_env(labelled(find_entries(options.runs, trust=options.trust), options.labels))
    # The environments of two files may have the same name.
    names = report.folder_names(folder_name(entries[0].config.env) for entries in groups)
    for entries, name in zip(groups, names, strict=True):
        with CONSOLE.progress() as show:
            comparison = compare(
                entries,
                options.protocol,
                modes=options.modes,
                progress=lambda name: show(
                    f"{name}: playing {counted(options.episodes, 'episode')}"
                ),
            )
        print_comparison(CONSOLE, comparison)
        folder = options.out / name
        documents.append(report.write_report(comparison, folder))
        write_board(comparison, folder)
        print_line(f"written to {folder}: compare.md, compare.json, pictures, and for TensorBoard")
        print_line()
        comparisons.append(comparison)
    if len(comparisons) > 1:
        report.write_summary(comparisons, options.out)
        print_summary(CONSOLE, comparisons)
        print_line(f"written to {options.out}: summary.md, summary.json")
        print_line()
    if options.json:
        write_json(options.json, documents)
    out = shlex.quote(str(options.out))
    print_line(f"see it:  tensorboard --logdir {out} --samples_per_plugin scalars=100000")
    return documents
