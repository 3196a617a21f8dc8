"""Figures of learning curves, for comparisons and for `evaluate.py plot`.

Axes: P points of a curve.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.optimize import isotonic_regression

from evaluation.report.layout import (
    INK,
    MARGIN,
    SETTINGS,
    SMALL,
    WIDTH,
    FigureLayout,
    fit,
    limits,
    measure,
    new_figure,
    tick,
    ticks,
    y_axis,
)
from evaluation.report.looks import Look, is_baseline, looks_of
from evaluation.report.plots import key_width, line_style, write_key
from evaluation.statistics import Floats, band

_HEIGHT, _LEAST, _UNDER_SUBTITLE = 230.0, 240.0, 56.0
_LINE = Look(INK, (0, (3, 2)))  # Of a value to compare with that is no baseline.
_ENDS_EARLY = 0.98  # A curve that ends before this share of the axis has ended early.


@mpl.rc_context(SETTINGS)
def curves(
    title: str,
    unit: str,
    curves: Mapping[str, Sequence[tuple[Floats, Floats]]],
    looks: Mapping[str, Look] | None = None,
    lines: Mapping[str, float] | None = None,
) -> Figure:
    """Draw learning curves: the mean of training seeds, and a band from the lowest to the highest.

    Nothing is drawn beyond the end of a curve, and a dot marks the end of one that ended early.

    Args:
        title: title of the figure.
        unit: what the values are.
        curves: (P,) increasing env steps and (P,) values of each training seed, by entry.
        looks: looks of the entries; default: those of these entries alone.
        lines: values to compare with, by name, which are drawn as horizontal lines.

    Raises:
        ValueError: If there are no entries, or the seeds of one have no env steps in common.
    """
    lines = lines or {}
    looks = {**(looks or looks_of(curves)), **_looks_of_lines(lines)}
    bands = {name: band(seeds) for name, seeds in curves.items()}
    points = [point for seeds in curves.values() for point in seeds]
    first, last = min(steps[0] for steps, _ in points), max(steps[-1] for steps, _ in points)
    if first < 0.1 * last:
        first = 0.0
    low, high = limits([*np.concatenate([values for _, values in points]), *lines.values()])
    heights = ticks(low, high, 5)
    labels = [tick(height) for height in heights]
    scale, label = (1e6, "million env steps") if last >= 1e7 else (1.0, "env steps")

    left, beside = (
        MARGIN + max(measure(label, SMALL) for label in labels) + 6,
        key_width([*curves, *lines]),
    )
    paper = max(WIDTH, left + _LEAST + beside)
    width = paper - left - beside
    layout = new_figure(
        title, left=left, top=_UNDER_SUBTITLE, width=width, height=_HEIGHT, paper=paper
    )
    layout.subtitle(_explain(unit, [len(seeds) for seeds in curves.values()], paper))
    axes = layout.axes()
    layout.x_axis(axes, (first / scale, max(last, first + 1) / scale), label)
    y_axis(axes, (low, high), heights, labels)
    for name, seeds in curves.items():
        _draw(axes, name, seeds, bands[name], looks[name], scale)
    for name, value in lines.items():
        axes.axhline(value, label=name, **line_style(looks[name]) | {"linewidth": 1.0, "zorder": 1})
    ends = {name: float(mean[-1]) for name, (_, mean, _, _) in bands.items()}
    _write_names(layout, axes, ends | dict(lines), looks)
    return layout.figure


def _looks_of_lines(names: Iterable[str]) -> dict[str, Look]:
    names = list(names)
    looks = looks_of(names) if names else {}
    return {name: look if is_baseline(name) else _LINE for name, look in looks.items()}


def _draw(
    axes: Axes,
    name: str,
    seeds: Sequence[tuple[Floats, Floats]],
    of_seeds: tuple[Floats, Floats, Floats, Floats],
    look: Look,
    scale: float,
) -> None:
    steps, mean, lowest, highest = of_seeds
    ends = [(steps[-1], mean[-1])]
    if len(seeds) > 1:
        for i, (own, values) in enumerate(seeds):
            faint: dict[str, Any] = {"color": look.colour, "linewidth": 0.6, "alpha": 0.4}
            axes.plot(own / scale, values, label=f"seed {i} of {name}", **faint)
            ends.append((own[-1], values[-1]))
        shade: dict[str, Any] = {"color": look.colour, "alpha": 0.15, "linewidth": 0}
        axes.fill_between(steps / scale, lowest, highest, **shade)
    style = line_style(look) | {"linewidth": 1.8}
    axes.plot(steps / scale, mean, label=name, zorder=3, **style)
    early = [(x / scale, y) for x, y in ends if x / scale < _ENDS_EARLY * axes.get_xlim()[1]]
    for number, (x, y) in enumerate(early):
        dot: dict[str, Any] = {"color": look.colour, "marker": "o", "zorder": 3}
        size = 4.0 if number == 0 and x == steps[-1] / scale else 2.5
        axes.plot([x], [y], markersize=size, label=f"end {number} of {name}", **dot)


def _explain(unit: str, nums: Sequence[int], paper: float) -> str:
    fewest, most = min(nums), max(nums)
    num = f"{most}" if fewest == most else f"{fewest} to {most}"
    text = (
        "; one training seed each"
        if most == 1
        else f"; line: mean of {num} training seeds; band: lowest to highest; faint: each seed"
    )
    return fit(unit, paper - 2 * MARGIN - measure(text, SMALL), SMALL) + text


def _write_names(
    layout: FigureLayout, axes: Axes, ends: Mapping[str, float], looks: Mapping[str, Look]
) -> None:
    """Write names beside the plot, at the heights of their curves' ends where there is room."""
    names = sorted(ends, key=lambda name: -ends[name])
    heights = [axes.transLimits.transform((0, ends[name]))[1] for name in names]
    wanted = (1 - np.array(heights)) * layout.height
    apart = np.arange(len(names)) * min(13.0, layout.height / len(names))
    placed = isotonic_regression(wanted - apart).x
    placed = np.clip(placed, 0, layout.height - apart[-1]) + apart
    write_key(layout, {name: name for name in names}, looks, placed.tolist())
