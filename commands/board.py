"""`evaluate.py board`: put the learning curves of a suite's JSON on one board of TensorBoard."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from commands.commandline import UsageError
from commands.options import check_folder
from evaluation.printing import print_line

_PUBLISHED = Path(__file__).resolve().parent.parent / "benchmarks" / "results" / "suite"


@dataclass(frozen=True, kw_only=True)
class BoardOptions:
    """Write learning curves for TensorBoard: one chart for each environment, with bands over seeds.

    Random, noop and the reference are horizontal lines. The curves are read from the JSON that
    compare and suite write, so the run folders need not be there.
    """

    comparisons: Annotated[
        tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="[JSON ...]")
    ] = ()
    """Files compare.json, or folders that hold them. None: the project's published results."""
    out: Path = Path("runs/board")
    """The folder to write to."""

    def __post_init__(self) -> None:
        """Check the folder."""
        check_folder(self.out)


def run(options: BoardOptions) -> None:
    """Write the event files."""
    from evaluation.report.skill import read_documents
    from evaluation.report.tensorboard import write_curves
    from storage.files import check_writable

    check_writable(options.out)
    documents = read_documents(options.comparisons or (_PUBLISHED,))
    found = write_curves(documents, options.out)
    if not found:
        raise UsageError("the comparisons have no learning curves; name run folders to compare")
    left_out = [str(d["env"]) for d in documents if d["env"] not in found]
    print_line(f"written to {options.out}: {', '.join(found)}")
    if left_out:
        print_line(f"left out, without learning curves: {', '.join(left_out)}")
    out = shlex.quote(str(options.out))
    print_line(f"see it:  tensorboard --logdir {out}, under Custom Scalars")
