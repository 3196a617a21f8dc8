"""Compare learning curves of the same training runs by two versions of the code.

    python -m benchmarks.learning_curves before=OLD after=NEW --out benchmarks/results/gradient

Each folder holds run folders, SCENARIO/AGENT-seedN. A curve is the mean native return of the last
100 training episodes, with sampled actions. The plot is written to OUT.png, and Markdown tables of
the env steps and seconds to certain returns and of the last mean to OUT.md.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import tyro
from matplotlib.figure import Figure

from evaluation.report.curves import Curve, read_curve
from storage.run_folder import RunFolder

# Two returns for each scenario: one above that of random actions, and one near the score that this
# project had published before.
TARGETS: dict[str, tuple[float, float]] = {
    "basic": (0.0, 75.0),
    "defend_the_center": (4.0, 14.0),
    "health_gathering": (1000.0, 1900.0),
    "take_cover": (320.0, 400.0),
    "predict_position": (0.2, 0.4),
    "deadly_corridor": (400.0, 1000.0),
}
_COLOURS = ("tab:gray", "tab:red")
_COLUMNS = 3
_EPISODES = 100  # over which the means are taken


@dataclass(frozen=True, kw_only=True)
class Curves:
    """What is compared."""

    folders: tyro.conf.Positional[tuple[str, ...]]
    """NAME=FOLDER, where each folder holds run folders."""
    out: Path = Path("learning_curves")
    """Path of the plot and of the tables, without extension."""


@dataclass(frozen=True)
class Run:
    """One training run.

    Attributes:
        curve: env steps and returns.
        seconds: since the start of the training, at each point of the curve; None if it ran on a
            GPU, because such times are not comparable.
        total: configured length of the training, in env steps.
    """

    curve: Curve
    seconds: np.ndarray[Any, np.dtype[np.float64]] | None
    total: int

    def reach(self, value: float) -> tuple[float, float | None] | None:
        """Return the env steps and seconds to a return; None if it was not reached."""
        above = np.flatnonzero(self.curve[1] >= value)
        if not len(above):
            return None
        at = int(above[0])
        return self.curve[0][at], None if self.seconds is None else self.seconds[at]


def main() -> None:
    """Read the runs, and write the plot and the tables."""
    config = tyro.cli(Curves, description=__doc__)
    groups = {}
    for named in config.folders:
        name, _, folder = named.partition("=")
        groups[name] = read_runs(Path(folder))
    if not groups or not all(groups.values()):
        sys.exit("learning_curves: name folders with runs, as in before=runs/old after=runs/new")
    draw(groups).savefig(config.out.with_suffix(".png"), dpi=110)
    text = table(groups)
    config.out.with_suffix(".md").write_text(text)
    print(text)


def read_runs(folder: Path) -> dict[str, list[Run]]:
    """Read the runs in a folder, by scenario."""
    runs: dict[str, list[Run]] = {}
    for path in sorted(folder.glob("*/*/progress.csv")):
        curve, record = read_curve(path), RunFolder(path.parent).read_record()
        with path.open(newline="") as file:
            rows = [row for row in csv.DictReader(file) if row.get("time/time_elapsed")]
        # Means over fewer episodes are too noisy.
        times = {
            float(row["time/total_timesteps"]): float(row["time/time_elapsed"])
            for row in rows
            if float(row["time/episodes"]) >= _EPISODES
        }
        if curve is None or not times:
            continue
        kept = np.isin(curve[0], list(times))
        curve = curve[0][kept], curve[1][kept]
        on_gpu = record["config"]["device"] == "cuda"
        seconds = None if on_gpu else np.array([times[steps] for steps in curve[0]])
        run = Run(curve, seconds, record["config"]["total_env_steps"])
        runs.setdefault(path.parent.parent.name, []).append(run)
    return runs


def draw(groups: Mapping[str, Mapping[str, Sequence[Run]]]) -> Figure:
    """Plot the curve of every seed, with one panel for each scenario."""
    scenarios = [s for s in TARGETS if any(s in runs for runs in groups.values())]
    lines = -(-len(scenarios) // _COLUMNS)
    figure = Figure(figsize=(4.2 * _COLUMNS, 3.0 * lines), layout="constrained")
    axes = figure.subplots(lines, _COLUMNS, squeeze=False).flat
    for field, scenario in zip(axes, scenarios, strict=False):
        for (name, runs), colour in zip(groups.items(), _COLOURS, strict=False):
            for i, run in enumerate(runs.get(scenario, [])):
                steps, returns = run.curve
                label = name if i == 0 else None
                field.plot(steps / 1000, returns, color=colour, lw=1.1, alpha=0.8, label=label)
        field.set_title(scenario, fontsize=10)
        field.set_xlabel("thousand env steps", fontsize=8)
        field.tick_params(labelsize=8)
        field.grid(alpha=0.3)
        field.legend(fontsize=8)
    for field in list(axes)[len(scenarios) :]:
        field.set_axis_off()
    return figure


def table(groups: Mapping[str, Mapping[str, Sequence[Run]]]) -> str:
    """Return Markdown tables of env steps and seconds to each target, and of the last means."""
    lines = [
        "| scenario | return | code | env steps to it, by seed | seconds to it, by seed | median |",
        "| --- | ---: | --- | --- | --- | ---: |",
    ]
    for scenario, values in TARGETS.items():
        for value in values:
            for name, runs in groups.items():
                if scenario not in runs:
                    continue
                found = [run.reach(value) for run in runs[scenario]]
                steps = [f"{at[0]:,.0f}" if at else "not reached" for at in found]
                times = [f"{at[1]:,.0f}" if at and at[1] is not None else "" for at in found]
                middle = median(at[0] if at else np.inf for at in found)
                shown = f"{middle:,.0f}" if np.isfinite(middle) else "not reached"
                cells = [scenario, f"{value:g}", name, ", ".join(steps)]
                lines.append(f"| {' | '.join([*cells, ', '.join(filter(None, times)), shown])} |")
    lines += [
        "",
        "| scenario | code | env steps | mean return of the last 100 training episodes, by seed |",
        "| --- | --- | ---: | --- |",
    ]
    for scenario in TARGETS:
        for name, runs in groups.items():
            if scenario in runs:
                means = ", ".join(f"{run.curve[1][-1]:,.2f}" for run in runs[scenario])
                ends = ", ".join(f"{run.curve[0][-1]:,.0f}" for run in runs[scenario])
                lines.append(f"| {scenario} | {name} | {ends} | {means} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
