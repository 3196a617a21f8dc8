"""`evaluate.py generalise`: play maps that a policy has not seen, and maps that look different."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.table import Table

from commands.options import CONSOLE, ScoringOptions, check_folder
from evaluation.printing import print_line
from storage.files import check_writable


@dataclass(frozen=True, kw_only=True)
class GeneraliseOptions(ScoringOptions):
    """Play the training's maps, unseen ones, and unseen ones that differ in one respect at a time.

    The policies were trained on generated maps, `maps:KIND`. If it is interrupted, the same command
    continues.
    """

    runs: Annotated[
        tyro.conf.Positional[tuple[str, ...]],
        tyro.conf.arg(metavar="RUN [RUN ...]", help_behavior_hint="(required)"),
    ]
    """A run folder or policy file, or those of several training seeds."""
    greedy: bool = False
    """Take the most likely actions; by default, actions are sampled as in training."""
    out: Path | None = None
    """The folder to write to. None: the run folder; of several seeds, its name without the seed."""

    def __post_init__(self) -> None:
        """Check ranges."""
        super().__post_init__()
        if not self.runs:
            raise ValueError("name a run")
        if self.out is not None:
            check_folder(self.out)


def run(options: GeneraliseOptions) -> None:
    """Measure generalisation, and write it as a table, as JSON and as a picture."""
    from evaluation.entries import family, find_entries, locate, output_folder
    from evaluation.errors import EvaluationError
    from evaluation.generalise import TRAINING, UNSEEN, as_dict, generalise
    from evaluation.report import generalisation
    from evaluation.report.layout import rendered
    from storage.files import write_atomically, write_json
    from storage.run_folder import RunFolder

    options.check_writable()
    entries = find_entries(options.runs, trust=options.trust)
    if len(entries) > 1:
        names = ", ".join(entry.name for entry in entries)
        raise EvaluationError(f"{names} are different agents; name one, or seeds of one")
    entry = entries[0]
    path = entry.contestants[0].path
    out = options.out
    if out is None and len(entry.contestants) > 1:
        out = Path(family(path))
    if out is None:
        place = locate(path)
        out = output_folder(path, RunFolder(place if place.is_dir() else place.parent))
    check_writable(out)
    out.mkdir(parents=True, exist_ok=True)
    file = out / "generalise.json"
    with CONSOLE.progress() as show:
        outcomes = generalise(
            entry,
            options.protocol,
            greedy=options.greedy,
            file=file,
            progress=lambda name: show(f"{entry.name}: {name}"),
        )
    title = f"{entry.config.env}: generalisation of {entry.name}"
    columns, rows = generalisation.table(outcomes)
    shown = Table(title=title, title_justify="left")
    for column in columns:
        shown.add_column(column, justify="left" if column == columns[0] else "right")
    for row in rows:
        shown.add_row(*row)
    CONSOLE.print(shown)
    notes = generalisation.notes(options.protocol.sentence(entry.config), TRAINING, UNSEEN)
    print_line(notes)
    written = generalisation.markdown(title, outcomes, notes)
    write_atomically(out / "generalise.md", written.encode())
    figure = generalisation.picture(title, outcomes)
    write_atomically(out / "generalise.png", rendered(figure, "png"))
    if options.json:
        write_json(options.json, [as_dict(outcome) for outcome in outcomes])
    print_line(f"written to {out}: generalise.md, generalise.json, generalise.png")
