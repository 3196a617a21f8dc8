"""Figures of scores; those of learning curves are in `curve_plots`.

Pure functions without pyplot: a figure belongs to the caller, and no state is shared. Names may be
any text: they are never interpreted as TeX, and long ones are shortened in the middle.

Axes: S training seeds, E episodes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from evaluation.report.layout import (
    GAP,
    GREY,
    INK,
    MARGIN,
    SETTINGS,
    SMALL,
    WIDTH,
    FigureLayout,
    columns_width,
    fit,
    limits,
    measure,
    new_figure,
    number,
    rule_rows,
    y_axis,
)
from evaluation.report.looks import COLOURS, Look, is_baseline, looks_of
from evaluation.statistics import Floats, Interval, Score, Strata, performance_profile

_ROW = 27.0
_PAIR = 21.0
_HEIGHT = 230.0  # Height of a plot without rows.
_NAME = 420.0  # Largest width of a name; a figure is wider if its names are long.
_LEAST = 170.0  # Width of a plot below which a column is left out, or the figure is wider.
_LEAST_PROFILE = 240.0
# Baselines are on the axis if they are within this many ranges of the other players' scores.
_BASELINES_WITHIN = 6.0
_SWATCH = 18.0  # Length of the piece of a line beside its name.
_UNDER_HEADINGS, _UNDER_SUBTITLE = 72.0, 56.0
_MOST_THRESHOLDS = 256  # More could not be distinguished by eye.

_DASHED: dict[str, Any] = {"color": GREY, "linewidth": 0.9, "linestyle": (0, (3, 2)), "zorder": 1}
_MEAN: dict[str, Any] = {"marker": "o", "markersize": 5.0, "markeredgewidth": 0}
_IQM: dict[str, Any] = {"marker": "D", "markersize": 3.8, "markerfacecolor": "white"}
_SEED: dict[str, Any] = {"marker": "|", "markersize": 4.5, "linestyle": "none"}
_NEW_SEEDS: dict[str, Any] = {"linewidth": 0.8, "marker": "|", "markersize": 6.5}
_SIGNIFICANT: dict[str, Any] = {
    "color": COLOURS[0],
    "linewidth": 2.0,
    "marker": "o",
    "markersize": 5.5,
}
_NOT_SIGNIFICANT: dict[str, Any] = _SIGNIFICANT | {"color": GREY, "markerfacecolor": "white"}


@mpl.rc_context(SETTINGS)
def intervals(
    title: str,
    unit: str,
    scores: Mapping[str, Score],
    reference: tuple[str, float] | None = None,
    looks: Mapping[str, Look] | None = None,
    *,
    keeps_order: bool = False,
) -> Figure:
    """Draw each player's mean and interquartile mean with their intervals, best player first.

    Lines without end marks are intervals over episodes: thick for the mean, thin for the
    interquartile mean. Thin lines with end marks are intervals of the mean over new training seeds,
    for players that have several seeds. An arrow marks a baseline that is too far away for the
    axis, whose scale the other players determine.

    Args:
        title: title of the figure.
        unit: unit of the scores.
        scores: score of each player, by name.
        reference: name and value of a reference score.
        looks: looks of the players; default: those of these players alone.
        keeps_order: whether the players stay in the order of `scores`.

    Raises:
        ValueError: If there are no players.
    """
    looks = looks or looks_of(scores)
    if not keeps_order:
        scores = dict(sorted(scores.items(), key=lambda item: -item[1].mean))
    decimals = _decimals([score.ci_high - score.ci_low for score in scores.values()])
    columns = _columns(list(scores.values()), decimals)
    left = MARGIN + _widest(scores) + GAP
    if WIDTH - left - columns_width(columns) < _LEAST:
        del columns["IQM"]
    paper = max(WIDTH, left + _LEAST + columns_width(columns))
    width = paper - left - columns_width(columns)
    height = _ROW * len(scores)
    layout = new_figure(
        title, left=left, top=_UNDER_HEADINGS, width=width, height=height, paper=paper
    )
    layout.rows(list(scores), MARGIN, _NAME)
    layout.columns(columns)

    values, others = [reference[1]] if reference else [], list[tuple[Sequence[float], float]]()
    for name, score in scores.items():
        ends = [score.mean, score.ci_low, score.ci_high, score.iqm_low, score.iqm_high]
        if is_baseline(name):
            others.append((ends, _BASELINES_WITHIN))
        else:
            values += [*ends, *score.seed_means]
        over_seeds = (score.seeds_low, score.seeds_high)
        others += [([end], 1.0) for end in over_seeds if end is not None]
    axes = layout.axes()
    layout.x_axis(axes, limits(_scale(values, others)), unit)
    rule_rows(axes, len(scores))
    if reference:
        _draw_reference(layout, axes, reference[0], reference[1], decimals)
    for row, (name, score) in enumerate(scores.items()):
        _draw_score(axes, row, name, score, looks[name])
    marks = {
        "mean, 95 % over episodes": Line2D([], [], color=INK, linewidth=2.2, **_MEAN),
        "IQM, 95 % over episodes": Line2D([], [], color=INK, linewidth=1, **_IQM),
    }
    if any(len(score.seed_means) > 1 for score in scores.values()):
        marks["seeds' means"] = Line2D([], [], color=INK, **_SEED)
        marks["95 % over new seeds"] = Line2D([], [], color=INK, **_NEW_SEEDS)
    layout.key(marks)
    return layout.figure


def _columns(scores: Sequence[Score], decimals: int) -> dict[str, list[str]]:
    def write(value: float) -> str:
        return number(value, decimals)

    return {
        "mean": [write(score.mean) for score in scores],
        "95 %, episodes": [f"{write(s.ci_low)} to {write(s.ci_high)}" for s in scores],
        "IQM": [write(score.iqm) for score in scores],
    }


def _scale(
    values: Sequence[float], others: Sequence[tuple[Sequence[float], float]]
) -> tuple[float, float]:
    """Return the lowest and the highest value on an axis, whose scale some values determine.

    Args:
        values: the values that determine it.
        others: groups of further values, which are on the axis if the first one of the group is no
            further away from `values` than this many times their range.
    """
    values = values or [value for far, _ in others for value in far]
    low, high = min(values), max(values)
    near = [low, high]
    for far, times in others:
        room = times * (high - low) or np.inf
        near += far if low - room <= far[0] <= high + room else []
    return min(near), max(near)


def _decimals(widths: Iterable[float]) -> int:
    """Return the number of decimals that shows two digits of the narrowest interval."""
    widths = [width for width in widths if width > 0]
    return int(np.clip(np.ceil(1 - np.log10(min(widths))), 0, 4)) if widths else 1


def _draw_reference(
    layout: FigureLayout, axes: Axes, name: str, value: float, decimals: int
) -> None:
    axes.axvline(value, label=name, **_DASHED)
    text = f" {number(value, decimals)}"
    right = layout.left + layout.width  # To its left, there is room above the names as well.
    text = fit(name, right - MARGIN - measure(text, SMALL), SMALL) + text
    half = measure(text, SMALL) / 2
    x = layout.left + layout.width * float(axes.transLimits.transform((value, 0))[0])
    x = float(np.clip(x, MARGIN + half, right - half))
    layout.write(x, layout.top - 9, text, ha="center", size=SMALL, color=GREY)


def _draw_score(axes: Axes, row: int, name: str, score: Score, look: Look) -> None:
    colour, (left, right) = look.colour, axes.get_xlim()
    if not left <= score.mean <= right:
        x, marker = (left, "<") if score.mean < left else (right, ">")
        style: dict[str, Any] = {"color": colour, "clip_on": False, "markersize": 5.5}
        axes.plot([x], [row], marker=marker, label=f"off the axis: {name}", **style)
    seeds, mean, middle = row - 0.3, row - 0.05, row + 0.25
    ends, iqm_ends = [score.ci_low, score.ci_high], [score.iqm_low, score.iqm_high]
    if score.seeds_low is not None and score.seeds_high is not None:
        over_seeds, label = [score.seeds_low, score.seeds_high], f"new seeds of {name}"
        axes.plot(over_seeds, [mean, mean], color=colour, label=label, **_NEW_SEEDS)
    axes.plot(ends, [mean, mean], color=colour, linewidth=2.2, label=f"interval of {name}")
    axes.plot(iqm_ends, [middle, middle], color=colour, label=f"IQM's of {name}", linewidth=1)
    dot = _MEAN if look.is_filled else _MEAN | {"markerfacecolor": "white", "markeredgewidth": 1.2}
    axes.plot([score.mean], [mean], color=colour, label=f"mean of {name}", **dot)
    axes.plot([score.iqm], [middle], color=colour, label=f"IQM of {name}", **_IQM)
    if len(score.seed_means) > 1:
        heights = [seeds] * len(score.seed_means)
        axes.plot(score.seed_means, heights, color=colour, label=f"seeds of {name}", **_SEED)


@mpl.rc_context(SETTINGS)
def profiles(
    title: str,
    unit: str,
    returns: Mapping[str, Strata],
    looks: Mapping[str, Look] | None = None,
) -> Figure:
    """Draw each player's performance profile: the share of its episodes above each return.

    Args:
        title: title of the figure.
        unit: unit of the returns.
        returns: S arrays (E,) for each player, by name.
        looks: looks of the players; default: those of these players alone.

    Raises:
        ValueError: If there are no players, or a player has no episodes.
    """
    looks = looks or looks_of(returns)
    together = {name: np.concatenate([*strata, []]) for name, strata in returns.items()}
    if not all(len(values) for values in together.values()):
        raise ValueError("no episodes were played")
    of_policies = [r for name, values in together.items() if not is_baseline(name) for r in values]
    thresholds = np.unique(np.concatenate(list(together.values())))
    low, high = limits(_scale(of_policies, [([x], 1.0) for x in thresholds.tolist()]))
    thresholds = thresholds[(low < thresholds) & (thresholds < high)]
    if len(thresholds) > _MOST_THRESHOLDS:
        thresholds = np.linspace(thresholds[0], thresholds[-1], _MOST_THRESHOLDS)
    thresholds = np.array([low, *thresholds, high])
    names = sorted(returns, key=lambda name: -together[name].mean())
    left, far = MARGIN + 32, {n: _beyond(together[n], low, high) for n in names}
    beside = key_width(name + far[name] for name in names)
    paper = max(WIDTH, left + _LEAST_PROFILE + beside)
    width = paper - left - beside
    layout = new_figure(
        title, left=left, top=_UNDER_SUBTITLE, width=width, height=_HEIGHT, paper=paper
    )
    layout.subtitle(
        "Share of episodes with a higher return; bands: pointwise 95 % intervals over episodes"
    )
    axes = layout.axes()
    layout.x_axis(axes, (low, high), unit)
    shares = np.linspace(0, 1, 5)
    y_axis(axes, (-0.02, 1.02), shares, [f"{100 * share:.0f} %" for share in shares])
    for name in names:
        _draw_profile(axes, name, returns[name], thresholds, line_style(looks[name]))
    heights = [12 + row * min(17.0, _HEIGHT / len(names)) for row in range(len(names))]
    write_key(layout, {name: name + far[name] for name in names}, looks, heights)
    return layout.figure


def _beyond(values: Floats, low: float, high: float) -> str:
    """Return a note about returns that are all beyond the axis; empty if they are not."""
    if low <= values.max() and values.min() <= high:
        return ""
    ends = sorted({f"{values.min():,.4g}", f"{values.max():,.4g}"}, key=len)
    return f" (off the axis: {' to '.join(ends)})".replace("-", "\N{MINUS SIGN}")


def line_style(look: Look) -> dict[str, Any]:
    """Return how a player's line is drawn."""
    return {"color": look.colour, "linestyle": look.dash, "linewidth": 1.6}


def key_width(names: Iterable[str]) -> float:
    """Return the width of a key to the right of a plot, with its margins, in points."""
    return GAP + _SWATCH + 5 + _widest(names) + MARGIN


def write_key(
    layout: FigureLayout,
    names: Mapping[str, str],
    looks: Mapping[str, Look],
    heights: Iterable[float],
) -> None:
    """Write names to the right of a plot, each beside a piece of its line.

    Args:
        layout: the figure.
        names: text for each player.
        looks: look of each player.
        heights: distance of each text from the top of the plot, in points.
    """
    right = layout.left + layout.width + GAP
    for (name, text), height in zip(names.items(), heights, strict=True):
        y, ends = layout.top + height, [right, right + _SWATCH]
        style = line_style(looks[name])
        layout.figure.add_artist(Line2D(ends, [y, y], transform=layout.points, **style))
        layout.write(right + _SWATCH + 5, y, fit(text, _NAME), color=looks[name].dark)


def _draw_profile(
    axes: Axes, name: str, returns: Strata, thresholds: Floats, style: Mapping[str, Any]
) -> None:
    shares, low, high = performance_profile(returns, thresholds)
    # All profiles are at 1 on the left and at 0 on the right, where they would hide each other.
    is_one, is_zero = np.flatnonzero(shares == 1), np.flatnonzero(shares == 0)
    first = is_one[-1] if len(is_one) else 0
    drawn = slice(first, is_zero[0] + 1 if len(is_zero) else None)
    thresholds, shares = thresholds[drawn].copy(), shares[drawn]
    if len(is_one) and len(thresholds) > 1:
        thresholds[0] = thresholds[1]
    shade: dict[str, Any] = {"color": style["color"], "alpha": 0.14, "linewidth": 0}
    axes.fill_between(thresholds, low[drawn], high[drawn], step="post", **shade)
    axes.plot(thresholds, shares, drawstyle="steps-post", label=name, **style)


@mpl.rc_context(SETTINGS)
def improvement(title: str, pairs: Sequence[tuple[str, str, Interval, bool]]) -> Figure:
    """Draw the probabilities that one player's episode scores higher than another's.

    Args:
        title: title of the figure.
        pairs: names of both players, the probability from 0 to 1 with its interval over episodes,
            and whether the verdict on the pair is significant. For agents, the verdict depends on
            their training seeds, not on this interval.

    Raises:
        ValueError: If there are no pairs.
    """
    if not pairs:
        raise ValueError("there is nothing to draw")

    def write(share: float) -> str:
        return f"{100 * share:.1f}"

    shown = [interval for _, _, interval, _ in pairs]
    columns = {
        "probability, %": [write(interval.estimate) for interval in shown],
        "95 % interval": [f"{write(interval.low)} to {write(interval.high)}" for interval in shown],
    }
    ones, others = [one for one, *_ in pairs], [other for _, other, *_ in pairs]
    above = MARGIN + _widest(ones) + 6
    second = above + measure("above", SMALL) + 6
    left = second + _widest(others) + GAP + 4
    paper = max(WIDTH, left + _LEAST / 2 + columns_width(columns))
    width = paper - left - columns_width(columns)
    height = _PAIR * len(pairs)
    layout = new_figure(
        title, left=left, top=_UNDER_HEADINGS, width=width, height=height, paper=paper
    )
    layout.rows(ones, MARGIN, _NAME)
    layout.rows(["above"] * len(pairs), above, _NAME, size=SMALL, color=GREY)
    layout.rows(others, second, _NAME)
    layout.columns(columns)
    axes = layout.axes()
    axes.set_xlim(0, 1)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "", "50", "", "100 %"])
    axes.grid(visible=True, axis="x")
    rule_rows(axes, len(pairs))
    axes.axvline(0.5, **_DASHED)
    for row, (one, other, interval, is_significant) in enumerate(pairs):
        style = _SIGNIFICANT if is_significant else _NOT_SIGNIFICANT
        line = style | {"marker": "", "label": f"interval of {one} above {other}"}
        dot = style | {"clip_on": False, "label": f"{one} above {other}"}
        axes.plot([interval.low, interval.high], [row, row], **line)
        axes.plot([interval.estimate], [row], zorder=4, **dot)
    layout.key(
        {
            "probability of a higher episode return, 95 % over episodes": Line2D(
                [], [], **_SIGNIFICANT
            ),
            "not significant, see the verdicts": Line2D([], [], **_NOT_SIGNIFICANT),
        }
    )
    return layout.figure


def _widest(names: Iterable[str]) -> float:
    # Letters are placed on whole pixels, so that a drawn text may be wider than a measured one.
    return 1.04 * max(measure(fit(name, _NAME)) for name in names)
