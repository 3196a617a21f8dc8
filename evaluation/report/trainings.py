"""How policies were trained, from their run folders: length, machine, commit, learning curve.

A comparison stores this beside the scores, so that tables and curves can be made from its JSON
after the run folders are gone.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.report.curves import curve_of, read_progress
from evaluation.statistics import Floats
from storage.files import FileError
from storage.run_folder import RunFolder

MOST_POINTS = 200
"""Largest number of points of a stored curve."""
_DIGITS = 5  # Significant digits of a stored curve: more than a picture can show.
_FACTS = ("command", "git", "hardware", "precision")


def training_of(run: Path) -> dict[str, Any] | None:
    """Return how the policy of a run folder was trained, for JSON; None for anything else.

    What is missing in the folder is None. `env_steps` and `seconds` are those of the whole
    training, of which the chosen policy may have been saved earlier; `planned` is the length that
    was configured.
    """
    record: dict[str, Any] = {"config": {}}
    with contextlib.suppress(FileError):
        record = RunFolder(run).read_record()
    progress = read_progress(run / "progress.csv")
    curve, end = curve_of(progress), _last_values(progress)
    if curve is None and not record["config"]:
        return None
    return {
        "env_steps": end.get("time/total_timesteps"),
        "seconds": end.get("time/time_elapsed"),
        "planned": record["config"].get("total_env_steps"),
        **{name: record.get(name) for name in _FACTS},
        "curve": None if curve is None else _stored(*curve),
    }


def _stored(steps: Floats, returns: Floats) -> dict[str, list[float]]:
    places = np.unique(np.linspace(0, len(steps) - 1, MOST_POINTS).round().astype(int))
    rounded = [float(f"{value:.{_DIGITS}g}") for value in returns[places]]
    return {"env_steps": [int(step) for step in steps[places]], "returns": rounded}


def _last_values(progress: Sequence[Mapping[str, str]]) -> dict[str, float]:
    """Return the last values of the counters in the rows of a progress.csv."""
    found: dict[str, float] = {}
    for row in progress:
        for name in ("time/total_timesteps", "time/time_elapsed"):
            with contextlib.suppress(ValueError, TypeError):
                found[name] = float(row.get(name) or "")
    return found
