"""Running `train.py` and `evaluate.py` in this process, as a user does."""

from __future__ import annotations

import csv
from pathlib import Path
from types import ModuleType

import pytest

from commands.commandline import run

SHARED = (
    "--num-envs",
    "4",
    "--rollout-length",
    "16",
    "--total-env-steps",
    "128",
    "--eval-every",
    "64",
    "--eval-episodes",
    "1",
    "--checkpoint-every-s",
    "0",
)
"""The flags of the runs that tests share; see tests/conftest.py."""


def status_of(program: ModuleType, *arguments: object) -> int:
    """Run a program, and return its exit status."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", [program.__name__, *map(str, arguments)])
        return run(program.main)


def succeed(program: ModuleType, *arguments: object) -> None:
    """Run a program, and check that it succeeds."""
    assert status_of(program, *arguments) == 0


def refused(capsys: pytest.CaptureFixture[str], program: ModuleType, *arguments: object) -> str:
    """Run a program, check that it refuses in one line, and return the line."""
    capsys.readouterr()
    assert status_of(program, *arguments) == 2
    captured = capsys.readouterr()
    lines = [line for line in captured.err.splitlines() if "does not come with ViZDoom" not in line]
    assert len(lines) == 1, lines
    assert lines[0].startswith("error: ")
    return lines[0]


def logged(run_dir: Path, tag: str) -> list[float | None]:
    """Return what was logged under a tag, row by row; None where nothing was logged."""
    with (run_dir / "progress.csv").open() as file:
        return [float(row[tag]) if row[tag] else None for row in csv.DictReader(file)]


def contents(folder: Path) -> dict[Path, bytes]:
    """Return every file in a folder with its content."""
    return {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
