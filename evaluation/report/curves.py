"""Learning curves, as training runs wrote them.

Axes: P points of a curve.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from evaluation.compare import Comparison
from evaluation.entries import expand, family, locate, names_of
from evaluation.errors import EvaluationError
from evaluation.printing import print_line
from evaluation.statistics import Floats
from storage.files import FileError, read_regular
from storage.run_folder import RunFolder

_STEPS, RETURN = "time/total_timesteps", "rollout/ep_rew_mean"
"""Columns of progress.csv; the second one is what is drawn by default."""
_MAX_BYTES = 2**28
_LARGEST = 1e100  # What is larger cannot be drawn.
_LONGEST_NAME = 1000
# In all training seeds of one agent, whose folders have the same name but for the seed.
_SAME = ("env", "perception", "agent", "objectives", "num_envs", "overlap", "init_from", "teacher")

Curve = tuple[Floats, Floats]
"""(P,) env steps, and (P,) values: by default, mean returns of the last 100 training episodes."""


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
        if curves and _overlap(curves):
            found[result.entry] = curves
    return found


def curves_of_runs(runs: Sequence[str], tag: str) -> dict[str, dict[str, list[Curve]]]:
    """Read curves of run folders; nothing is played, and no policy is needed.

    Runs of one agent in one environment, which differ in their seeds alone, are one entry.

    Args:
        runs: run folders, and patterns for them.
        tag: the column of progress.csv, a tag of TensorBoard.

    Returns:
        Curves by entry, for each environment.

    Raises:
        EvaluationError: If a pattern matches no run folder, or no run has such a curve.
        FileError: If a folder is no run.
    """
    missing: list[Path] = []
    perceptions: list[Path] = []
    groups: dict[tuple[str, ...], dict[Path, Curve]] = {}
    seeds: dict[tuple[str, ...], set[int]] = {}
    for path in expand(runs, _holds_run):
        folder = RunFolder(path)
        if folder.is_of_perception:
            perceptions.append(path)
            continue
        config = folder.read_config()
        env, seed = config["env"].get("env"), config.get("seed")
        if not (isinstance(env, str) and len(env) <= _LONGEST_NAME and isinstance(seed, int)):
            raise FileError(f"{folder.config_file} is damaged: it names no environment or seed")
        curve = read_curve(path / "progress.csv", tag)
        if curve is None:
            missing.append(path)
            continue
        same = (repr(config.get(part)) for part in _SAME)
        key = (env, family(path), *same)
        if seed in seeds.setdefault(key, set()):
            key = (*key, str(path))  # The same seed again is a separate entry.
        seeds.setdefault(key, set()).add(seed)
        groups.setdefault(key, {})[path] = curve
    if perceptions and not (groups or missing):
        raise EvaluationError(f"{perceptions[0]} holds a perception; only runs of agents are drawn")
    for path in perceptions:
        print_line(f"{path} is left out: it holds a perception without an agent", sys.stderr)
    if not groups:
        path = missing[0]
        raise EvaluationError(f"{path} has no curve of {tag}; {_there_is(path, tag)}")
    for path in missing:
        print_line(f"{path} is left out: it has no curve of {tag}", sys.stderr)
    for key, group in list(groups.items()):
        if not _overlap(list(group.values())):  # There is no step at which they have a mean.
            del groups[key]
            groups |= {(*key, str(path)): {path: curve} for path, curve in group.items()}
    names = names_of([list(group) for group in groups.values()])
    found: dict[str, dict[str, list[Curve]]] = {}
    for name, (key, group) in zip(names, groups.items(), strict=True):
        found.setdefault(key[0], {})[name] = list(group.values())
    return found


def _overlap(curves: Sequence[Curve]) -> bool:
    return bool(max(steps[0] for steps, _ in curves) <= min(steps[-1] for steps, _ in curves))


def _holds_run(path: Path) -> bool:
    return RunFolder(path).holds_run


def _there_is(path: Path, tag: str) -> str:
    """Return what can be drawn of a run."""
    rows = read_progress(path / "progress.csv")
    if not rows:
        return "it has no progress.csv yet"
    if tag in rows[0]:
        return "it has no value of it yet"
    return f"choose --tag from {', '.join(sorted(rows[0]))}"


def read_progress(path: Path) -> list[dict[str, str]]:
    """Return the rows of a progress.csv by column; none if it does not exist or is damaged."""
    try:
        lines = read_regular(path, _MAX_BYTES).decode().splitlines(keepends=True)
        return list(csv.DictReader(lines))
    except (OSError, ValueError, csv.Error):
        return []


def read_curve(path: Path, tag: str = RETURN) -> Curve | None:
    """Return a curve in the progress.csv of a run; None if it does not exist or has no such curve.

    Args:
        path: the progress.csv.
        tag: its column.
    """
    return curve_of(read_progress(path), tag)


def curve_of(progress: Sequence[Mapping[str, str]], tag: str = RETURN) -> Curve | None:
    """Return a curve in the rows of a progress.csv; see `read_curve`."""
    rows = [row for row in progress if row.get(tag)]
    try:
        curve = np.array([[float(row[_STEPS]), float(row[tag])] for row in rows])
    except (ValueError, KeyError, TypeError):
        return None
    if not len(curve):
        return None
    curve = curve[(np.abs(curve) < _LARGEST).all(axis=1)]  # A NaN is not.
    steps, places = np.unique(curve[:, 0], return_index=True)
    return (steps, curve[places, 1]) if len(steps) else None
