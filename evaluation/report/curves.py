"""Learning curves, as training runs wrote them.

Axes: P points of a curve.
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from evaluation.compare import Comparison
from evaluation.entries import locate
from evaluation.statistics import Floats
from storage.files import read_regular

_STEPS, _RETURN = "time/total_timesteps", "rollout/ep_rew_mean"
_MAX_BYTES = 2**28

Curve = tuple[Floats, Floats]
"""(P,) env steps and (P,) mean native returns of the last 100 training episodes."""


def learning_curves(comparison: Comparison) -> dict[str, list[Curve]]:
    """Read the learning curves of all entries' training seeds from their run folders.

    Returns:
        Curves by entry. Entries are left out if they were named as policy files, or if their seeds
        have no env steps in common.
    """
    found: dict[str, list[Curve]] = {}
    for result in comparison.results:
        folders = (locate(contestant.path) for contestant in result.contestants)
        read = (read_curve(folder / "progress.csv") for folder in folders)
        curves = [curve for curve in read if curve is not None]
        if curves and max(steps[0] for steps, _ in curves) <= min(s[-1] for s, _ in curves):
            found[result.entry] = curves
    return found


def read_curve(path: Path) -> Curve | None:
    """Return the curve in the progress.csv of a run; None if it does not exist or has no curve."""
    try:
        lines = read_regular(path, _MAX_BYTES).decode().splitlines(keepends=True)
        rows = [row for row in csv.DictReader(lines) if row.get(_RETURN)]
        curve = np.array([[float(row[_STEPS]), float(row[_RETURN])] for row in rows])
    except (OSError, ValueError, KeyError, TypeError, csv.Error):
        return None
    if not len(curve):
        return None
    curve = curve[np.isfinite(curve).all(axis=1)]
    steps, places = np.unique(curve[:, 0], return_index=True)
    return (steps, curve[places, 1]) if len(steps) else None
