"""Robustness as a table and as pictures.

Axes: S training seeds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from envs import EnvConfig
from evaluation.protocol import Protocol
from evaluation.report.layout import GREY, SETTINGS, fit, number
from evaluation.report.looks import COLOURS
from evaluation.report.markdown import markdown_table, plain
from evaluation.robustness.attacker import ATTACKS
from evaluation.robustness.measure import CLEAN, RANDOM, Cell, Measured
from evaluation.robustness.shifts import SHIFTS
from evaluation.statistics import Score, summarize

COLUMNS = (
    "policy",
    "change",
    "epsilon",
    "mean",
    "95 % interval",
    "kept",
    "distance",
    "decisions",
    "value",
)
"""Columns of the table; `NOTES` says what they are."""
NOTES = (
    "epsilon: largest change of a pixel, in 255ths of the brightest one.",
    "kept: the mean return on a scale on which random actions are 0 % and the clean policy 100 %.",
    "decisions: share of env steps in which the change makes another action the most likely one.",
    "distance: total variation between the distributions over actions with and without the change, "
    "at the same memory; value: by how much the critic's value changes.",
)
_MARKERS = "os^Dv<>ph*"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One cell of an entry, over its training seeds.

    Attributes:
        entry: name of the entry.
        cell: what was done.
        seeds: what was measured, for each of S training seeds.
        score: statistics of the returns.
        kept: share of the clean return, with that of random actions as 0; None if both are equal.
    """

    entry: str
    cell: Cell
    seeds: tuple[Measured, ...]
    score: Score
    kept: float | None

    def mean_effect(self, name: str) -> float | None:
        """Return the mean of a field of `Effect` over seeds; None if there is none."""
        effects = [seed.effect for seed in self.seeds if seed.effect is not None]
        return float(np.mean([effect[name] for effect in effects])) if effects else None

    def as_dict(self) -> dict[str, Any]:
        """Return the row for JSON."""
        return {
            "policy": self.entry,
            "change": self.cell.name,
            "epsilon": self.cell.epsilon,
            "score": self.score.as_dict(),
            "kept": self.kept,
            "effects": [seed.effect for seed in self.seeds],
            "recovery": [seed.recovery for seed in self.seeds if seed.recovery],
            "returns": [seed.returns for seed in self.seeds],
            "seconds": sum(seed.seconds for seed in self.seeds),
        }


def rows_of(entry: str, measured: Mapping[str, tuple[Cell, Sequence[Measured]]]) -> list[Row]:
    """Return the rows of an entry.

    Args:
        entry: its name.
        measured: by key, a cell and what was measured for each training seed.
    """
    scores = {
        key: summarize(
            [np.array(seed.returns) for seed in seeds],
            float(np.mean([seed.length for seed in seeds])),
        )
        for key, (_, seeds) in measured.items()
    }
    clean, random = scores[CLEAN].mean, scores[RANDOM].mean
    return [
        Row(
            entry=entry,
            cell=cell,
            seeds=tuple(seeds),
            score=scores[key],
            kept=(scores[key].mean - random) / (clean - random) if clean != random else None,
        )
        for key, (cell, seeds) in measured.items()
    ]


def text_of(name: str) -> str:
    """Return what is done in a cell."""
    if name in ATTACKS:
        return ATTACKS[name].text
    if name in SHIFTS:
        return SHIFTS[name].text
    return {CLEAN: "the policy without any change", RANDOM: "random actions"}[name]


def table(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    """Return the cells of the table, in the order of `COLUMNS`."""
    spans = [row.score.ci_high - row.score.ci_low for row in rows]
    decimals = 0 if max(spans, default=0.0) >= 100 else 2
    return [_table_row(row, decimals) for row in rows]


def _table_row(row: Row, decimals: int) -> tuple[str, ...]:
    score = row.score
    distance, changed, value = map(row.mean_effect, ("distance", "changed", "value"))
    return (
        row.entry,
        row.cell.name,
        "" if row.cell.epsilon is None else f"{row.cell.epsilon:g}",
        number(score.mean, decimals),
        f"{number(score.ci_low, decimals)} to {number(score.ci_high, decimals)}",
        "" if row.kept is None else f"{100 * row.kept:.0f} %",
        "" if distance is None else f"{distance:.3f}",
        "" if changed is None else f"{100 * changed:.0f} %",
        "" if value is None else f"{value:+,.2f}",
    )


def recoveries(rows: Sequence[Row]) -> list[str]:
    """Return a sentence about the recovery of each entry from foreign frames."""
    sentences = []
    for row in rows:
        for seed in row.seeds:
            found = seed.recovery
            if not found:
                continue
            if not found["episodes"]:
                sentences.append(f"{row.entry}: no episode lasted until after the foreign frames.")
                continue
            median = found["median_steps"]
            time = "none recovered" if median is None else f"after {median:g} env steps (median)"
            sentences.append(
                f"{row.entry}: after one second of foreign frames, "
                f"{100 * found['recovered']:.0f} % of {found['episodes']} episodes recovered, "
                f"{time}; the distance to a twin that saw the true frames was "
                f"{found['during']:.3f} in that second and {found['curve'][0]:.3f} right after it."
            )
    return sentences


def markdown(
    rows: Sequence[Row], config: EnvConfig, protocol: Protocol, mode: str, picture: str
) -> str:
    """Return the report as Markdown.

    Args:
        rows: of all entries.
        config: the environment.
        protocol: which episodes were played.
        mode: sampled or greedy.
        picture: name of the picture's file.
    """
    lines = [f"# {plain(config.env)}: native return under attacks and shifts, {mode} actions", ""]
    lines += [*markdown_table(COLUMNS, table(rows), text=(0, 1)), ""]
    lines += [f"- {plain(note)}" for note in NOTES]
    names = dict.fromkeys(row.cell.name for row in rows)
    lines += [f"- {plain(name)}: {plain(text_of(name))}." for name in names]
    lines += ["", *(f"{plain(sentence)}\n" for sentence in recoveries(rows))]
    lines += [plain(protocol.sentence(config)), "", f"![return against epsilon]({picture})"]
    return "\n".join(lines).rstrip() + "\n"


@mpl.rc_context(SETTINGS)
def picture(rows: Sequence[Row], title: str) -> Figure:
    """Draw the return against epsilon of each attack, one row of plots for each entry.

    Beside it are the natural shifts. Bars are 95 % intervals over episodes; lines across are the
    clean policy and random actions.

    Args:
        rows: of all entries.
        title: title of the figure.
    """
    entries = list(dict.fromkeys(row.entry for row in rows))
    attacks = [name for name in ATTACKS if any(row.cell.name == name for row in rows)]
    shifts = [name for name in SHIFTS if any(row.cell.name == name for row in rows)]
    widths = [1.6] * bool(attacks) + [0.22 * max(4, len(shifts))] * bool(shifts)
    figure = Figure(figsize=(10.0, 0.9 + 3.1 * len(entries)), layout="constrained")
    figure.suptitle(fit(title, 680.0), x=0.02, ha="left", weight="bold")
    axes = figure.subplots(
        len(entries), max(1, len(widths)), sharey="row", squeeze=False, width_ratios=widths or None
    )
    for line, entry in zip(axes, entries, strict=True):
        own = [row for row in rows if row.entry == entry]
        plots = iter(line)
        if attacks:
            _draw_attacks(next(plots), own, attacks)
        if shifts:
            _draw_shifts(next(plots), own, shifts)
        for plot in line:
            _draw_controls(plot, own, named=plot is line[-1])
        line[0].set_title(fit(entry, 400.0), loc="left", fontsize=9)
        line[0].set_ylabel("native return")
    if attacks:
        handles, labels = axes[0][0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower left", ncols=6, frameon=False, fontsize=8)
    return figure


def _draw_attacks(axes: Axes, rows: Sequence[Row], attacks: Sequence[str]) -> None:
    epsilons = sorted({row.cell.epsilon for row in rows if row.cell.epsilon is not None})
    for number_, name in enumerate(attacks):
        own = sorted(
            (row for row in rows if row.cell.name == name), key=lambda row: row.cell.epsilon or 0.0
        )
        # Beside each other, because intervals would hide each other.
        beside = 0.05 * (number_ - (len(attacks) - 1) / 2)
        places = [epsilons.index(row.cell.epsilon or 0.0) + beside for row in own]
        is_control = ATTACKS[name].is_control
        _draw_points(
            axes,
            places,
            own,
            label=name,
            color=GREY if is_control else COLOURS[number_ % len(COLOURS)],
            linestyle=":" if is_control else "-",
            marker=_MARKERS[number_ % len(_MARKERS)],
        )
    axes.set_xticks(range(len(epsilons)), [f"{epsilon:g}/255" for epsilon in epsilons])
    axes.set_xlabel("epsilon, largest change of a pixel")


def _draw_shifts(axes: Axes, rows: Sequence[Row], shifts: Sequence[str]) -> None:
    own = {row.cell.name: row for row in rows if row.cell.name in shifts}
    places = [float(shifts.index(name)) for name in own]
    _draw_points(
        axes, places, list(own.values()), label="", color=COLOURS[0], linestyle="none", marker="o"
    )
    axes.set_xticks(range(len(shifts)), shifts, rotation=45, ha="right")
    axes.set_xlim(-0.6, len(shifts) - 0.4)
    axes.set_xlabel("natural shifts")


def _draw_points(axes: Axes, places: Sequence[float], rows: Sequence[Row], **look: Any) -> None:
    means = np.array([row.score.mean for row in rows])
    below = means - np.array([row.score.ci_low for row in rows])
    above = np.array([row.score.ci_high for row in rows]) - means
    errors = np.clip([below, above], 0.0, None)
    axes.errorbar(places, means, errors, markersize=4, linewidth=1.2, elinewidth=0.9, **look)


def _draw_controls(axes: Axes, rows: Sequence[Row], *, named: bool) -> None:
    for row in rows:
        if row.cell.name in (CLEAN, RANDOM):
            is_clean = row.cell.name == CLEAN
            axes.axhspan(row.score.ci_low, row.score.ci_high, color="0.5", alpha=0.15, linewidth=0)
            axes.axhline(
                row.score.mean,
                color="0.25",
                linewidth=1.0,
                linestyle="-" if is_clean else "--",
                zorder=1,
            )
            if named:
                axes.annotate(
                    row.cell.name,
                    (1.01, row.score.mean),
                    xycoords=("axes fraction", "data"),
                    ha="left",
                    va="center",
                    fontsize=7,
                    color="0.25",
                    annotation_clip=False,
                )
