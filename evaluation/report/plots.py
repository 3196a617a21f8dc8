"""Figures of scores and of learning curves.

Pure functions without pyplot: a figure belongs to the caller, and no state is shared. Names may be
any text: they are never interpreted as TeX, and long ones are shortened in the middle.

Axes: S training seeds, E episodes, P points of a curve.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from scipy.optimize import isotonic_regression

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
    tick,
    ticks,
    y_axis,
)
from evaluation.statistics import Floats, Interval, Score, Strata, band, performance_profile

_ROW = 27.0
_PAIR = 21.0
_HEIGHT = 230.0  # Height of a plot without rows.
_NAME = 150.0  # Largest width of a name.
_LEAST = 170.0  # Width of a plot below which a column is left out.
_UNDER_HEADINGS, _UNDER_SUBTITLE = 72.0, 56.0
_MOST_THRESHOLDS = 256  # More could not be distinguished by eye.

# Okabe and Ito, "Color Universal Design" (2008): colours that colour-blind people can distinguish.
# Their yellow is left out, because it is hardly visible on white.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_DASHES: tuple[Any, ...] = ("-", (0, (4, 1.5)), (0, (1, 1)))
_BASELINES = {"random": (GREY, "-"), "noop": ("#a3a3a3", (0, (4, 1.5)))}

_DASHED: dict[str, Any] = {"color": GREY, "linewidth": 0.9, "linestyle": (0, (3, 2)), "zorder": 1}
_MEAN: dict[str, Any] = {"marker": "o", "markersize": 5.0, "markeredgewidth": 0}
_IQM: dict[str, Any] = {"marker": "D", "markersize": 3.8, "markerfacecolor": "white"}
_SEED: dict[str, Any] = {"marker": "|", "markersize": 4.5, "linestyle": "none"}
_NEW_SEEDS: dict[str, Any] = {"linewidth": 0.8, "marker": "|", "markersize": 6.5}
_SIGNIFICANT: dict[str, Any] = {
    "color": _COLOURS[0],
    "linewidth": 2.0,
    "marker": "o",
    "markersize": 5.5,
}
_NOT_SIGNIFICANT: dict[str, Any] = _SIGNIFICANT | {"color": GREY, "markerfacecolor": "white"}


@dataclass(frozen=True)
class _Look:
    colour: str
    dash: Any

    @property
    def dark(self) -> str:
        """A darker colour, for text."""
        red, green, blue = to_rgb(self.colour)
        return to_hex((0.75 * red, 0.75 * green, 0.75 * blue))


def _looks(names: Iterable[str]) -> dict[str, _Look]:
    """Return a look for each name, which depends only on the set of names."""
    names = set(names)
    if not names:
        raise ValueError("there is nothing to draw")
    looks = {
        name: _Look(_COLOURS[i % len(_COLOURS)], _DASHES[i // len(_COLOURS) % len(_DASHES)])
        for i, name in enumerate(sorted(names - _BASELINES.keys()))
    }
    return looks | {name: _Look(*look) for name, look in _BASELINES.items() if name in names}


@mpl.rc_context(SETTINGS)
def intervals(
    title: str,
    unit: str,
    scores: Mapping[str, Score],
    reference: tuple[str, float] | None = None,
) -> Figure:
    """Draw each player's mean and interquartile mean with their intervals, best player first.

    Lines without end marks are intervals over episodes: thick for the mean, thin for the
    interquartile mean. Thin lines with end marks are intervals of the mean over new training seeds,
    for players that have several seeds.

    Args:
        title: title of the figure.
        unit: unit of the scores.
        scores: score of each player, by name.
        reference: name and value of a reference score.

    Raises:
        ValueError: If there are no players.
    """
    looks = _looks(scores)
    scores = dict(sorted(scores.items(), key=lambda item: -item[1].mean))
    decimals = _decimals([score.ci_high - score.ci_low for score in scores.values()])
    columns = _columns(list(scores.values()), decimals)
    left = MARGIN + _widest(scores) + GAP
    if WIDTH - left - columns_width(columns) < _LEAST:
        del columns["IQM"]
    width = WIDTH - left - columns_width(columns)
    height = _ROW * len(scores)
    layout = new_figure(title, left=left, top=_UNDER_HEADINGS, width=width, height=height)
    layout.rows(list(scores), MARGIN, _NAME)
    layout.columns(columns)

    values = [reference[1]] if reference else []
    for score in scores.values():
        values += [score.ci_low, score.ci_high, score.iqm_low, score.iqm_high, *score.seed_means]
        values += [end for end in (score.seeds_low, score.seeds_high) if end is not None]
    axes = layout.axes()
    layout.x_axis(axes, limits(values), unit)
    rule_rows(axes, len(scores))
    if reference:
        _draw_reference(layout, axes, reference[0], reference[1], decimals)
    for row, (name, score) in enumerate(scores.items()):
        _draw_score(axes, row, name, score, looks[name].colour)
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


def _decimals(widths: Iterable[float]) -> int:
    """Return the number of decimals that shows two digits of the narrowest interval."""
    widths = [width for width in widths if width > 0]
    return int(np.clip(np.ceil(1 - np.log10(min(widths))), 0, 4)) if widths else 1


def _draw_reference(
    layout: FigureLayout, axes: Axes, name: str, value: float, decimals: int
) -> None:
    axes.axvline(value, label=name, **_DASHED)
    text = f" {number(value, decimals)}"
    text = fit(name, layout.width - measure(text, SMALL), SMALL) + text
    half = measure(text, SMALL) / 2
    x = layout.left + layout.width * float(axes.transLimits.transform((value, 0))[0])
    x = float(np.clip(x, layout.left + half, layout.left + layout.width - half))
    layout.write(x, layout.top - 9, text, ha="center", size=SMALL, color=GREY)


def _draw_score(axes: Axes, row: int, name: str, score: Score, colour: str) -> None:
    seeds, mean, middle = row - 0.3, row - 0.05, row + 0.25
    ends, iqm_ends = [score.ci_low, score.ci_high], [score.iqm_low, score.iqm_high]
    if score.seeds_low is not None and score.seeds_high is not None:
        over_seeds, label = [score.seeds_low, score.seeds_high], f"new seeds of {name}"
        axes.plot(over_seeds, [mean, mean], color=colour, label=label, **_NEW_SEEDS)
    axes.plot(ends, [mean, mean], color=colour, linewidth=2.2, label=f"interval of {name}")
    axes.plot(iqm_ends, [middle, middle], color=colour, label=f"IQM's of {name}", linewidth=1)
    axes.plot([score.mean], [mean], color=colour, label=f"mean of {name}", **_MEAN)
    axes.plot([score.iqm], [middle], color=colour, label=f"IQM of {name}", **_IQM)
    if len(score.seed_means) > 1:
        heights = [seeds] * len(score.seed_means)
        axes.plot(score.seed_means, heights, color=colour, label=f"seeds of {name}", **_SEED)


@mpl.rc_context(SETTINGS)
def profiles(title: str, unit: str, returns: Mapping[str, Strata]) -> Figure:
    """Draw each player's performance profile: the share of its episodes above each return.

    Args:
        title: title of the figure.
        unit: unit of the returns.
        returns: S arrays (E,) for each player, by name.

    Raises:
        ValueError: If there are no players, or a player has no episodes.
    """
    looks = _looks(returns)
    together = {name: np.concatenate([*strata, []]) for name, strata in returns.items()}
    if not all(len(values) for values in together.values()):
        raise ValueError("no episodes were played")
    thresholds = np.unique(np.concatenate(list(together.values())))
    low, high = limits(thresholds)
    if len(thresholds) > _MOST_THRESHOLDS:
        thresholds = np.linspace(thresholds[0], thresholds[-1], _MOST_THRESHOLDS)
    thresholds = np.array([low, *thresholds, high])
    names = sorted(returns, key=lambda name: -together[name].mean())
    left, swatch = MARGIN + 32, 18.0
    width = WIDTH - left - GAP - swatch - 5 - _widest(names) - MARGIN
    layout = new_figure(title, left=left, top=_UNDER_SUBTITLE, width=width, height=_HEIGHT)
    layout.subtitle(
        "Share of episodes with a higher return; bands: pointwise 95 % intervals over episodes"
    )
    axes = layout.axes()
    layout.x_axis(axes, (low, high), unit)
    shares = np.linspace(0, 1, 5)
    y_axis(axes, (-0.02, 1.02), shares, [f"{100 * share:.0f} %" for share in shares])
    right = left + width + GAP
    for row, name in enumerate(names):
        look = looks[name]
        style: dict[str, Any] = {"color": look.colour, "linestyle": look.dash, "linewidth": 1.6}
        _draw_profile(axes, name, returns[name], thresholds, style)
        y = layout.top + 12 + row * min(17.0, _HEIGHT / len(names))
        ends = [right, right + swatch]
        layout.figure.add_artist(Line2D(ends, [y, y], transform=layout.points, **style))
        layout.write(right + swatch + 5, y, fit(name, _NAME))
    return layout.figure


def _draw_profile(
    axes: Axes, name: str, returns: Strata, thresholds: Floats, style: Mapping[str, Any]
) -> None:
    shares, low, high = performance_profile(returns, thresholds)
    # All profiles are at 1 on the left and at 0 on the right, where they would hide each other.
    drawn = slice(np.flatnonzero(shares == 1)[-1], np.flatnonzero(shares == 0)[0] + 1)
    thresholds, shares = thresholds[drawn].copy(), shares[drawn]
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
    most = 0.8 * _NAME
    above = MARGIN + _widest(ones, most) + 6
    second = above + measure("above", SMALL) + 6
    left = second + _widest(others, most) + GAP + 4
    width = WIDTH - left - columns_width(columns)
    height = _PAIR * len(pairs)
    layout = new_figure(title, left=left, top=_UNDER_HEADINGS, width=width, height=height)
    layout.rows(ones, MARGIN, most)
    layout.rows(["above"] * len(pairs), above, most, size=SMALL, color=GREY)
    layout.rows(others, second, most)
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


@mpl.rc_context(SETTINGS)
def curves(title: str, unit: str, curves: Mapping[str, Sequence[tuple[Floats, Floats]]]) -> Figure:
    """Draw learning curves: the mean of training seeds, and a band from the lowest to the highest.

    Args:
        title: title of the figure.
        unit: unit of the returns.
        curves: (P,) increasing env steps and (P,) mean returns of each training seed, by entry.

    Raises:
        ValueError: If there are no entries, or the seeds of one have no env steps in common.
    """
    looks = _looks(curves)
    bands = {name: band(seeds) for name, seeds in curves.items()}
    points = [point for seeds in curves.values() for point in seeds]
    first, last = min(steps[0] for steps, _ in points), max(steps[-1] for steps, _ in points)
    if first < 0.1 * last:
        first = 0.0
    low, high = limits(np.concatenate([values for _, values in points]))
    heights = ticks(low, high, 5)
    labels = [tick(height) for height in heights]
    scale, label = (1e6, "million env steps") if last >= 1e7 else (1.0, "env steps")

    left = MARGIN + max(measure(label, SMALL) for label in labels) + 6
    width = WIDTH - left - GAP - _widest(curves) - MARGIN
    layout = new_figure(title, left=left, top=_UNDER_SUBTITLE, width=width, height=_HEIGHT)
    layout.subtitle(_explain(unit, [len(seeds) for seeds in curves.values()]))
    axes = layout.axes()
    layout.x_axis(axes, (first / scale, max(last, first + 1) / scale), label)
    y_axis(axes, (low, high), heights, labels)
    for name, seeds in curves.items():
        colour = looks[name].colour
        steps, mean, lowest, highest = bands[name]
        if len(seeds) > 1:
            for i, (own, values) in enumerate(seeds):
                faint: dict[str, Any] = {"color": colour, "linewidth": 0.6, "alpha": 0.3}
                axes.plot(own / scale, values, label=f"seed {i} of {name}", **faint)
            shade: dict[str, Any] = {"color": colour, "alpha": 0.15, "linewidth": 0}
            axes.fill_between(steps / scale, lowest, highest, **shade)
        style: dict[str, Any] = {"color": colour, "linestyle": looks[name].dash, "linewidth": 1.8}
        axes.plot(steps / scale, mean, label=name, zorder=3, **style)
    ends = {
        name: (steps[-1] / scale, float(mean[-1])) for name, (steps, mean, _, _) in bands.items()
    }
    _label_ends(layout, axes, ends, looks)
    return layout.figure


def _explain(unit: str, nums: Sequence[int]) -> str:
    fewest, most = min(nums), max(nums)
    num = f"{most}" if fewest == most else f"{fewest} to {most}"
    text = (
        "; one training seed each"
        if most == 1
        else f"; line: mean of {num} training seeds; band: lowest to highest; faint: each seed"
    )
    return fit(unit, WIDTH - 2 * MARGIN - measure(text, SMALL), SMALL) + text


def _label_ends(
    layout: FigureLayout,
    axes: Axes,
    ends: Mapping[str, tuple[float, float]],
    looks: Mapping[str, _Look],
) -> None:
    """Write names beside the ends of their curves, moved apart as little as necessary."""
    names = sorted(ends, key=lambda name: -ends[name][1])
    heights = np.array([axes.transLimits.transform(ends[name])[1] for name in names])
    wanted = layout.top + (1 - heights) * layout.height
    apart = np.arange(len(names)) * min(13.0, layout.height / len(names))
    placed = isotonic_regression(wanted - apart).x
    placed = np.clip(placed, layout.top, layout.top + layout.height - apart[-1]) + apart
    right = layout.left + layout.width + GAP
    line = {"arrowstyle": "-", "linewidth": 0.6, "alpha": 0.6, "shrinkA": 0, "shrinkB": 0}
    for name, y in zip(names, placed, strict=True):
        axes.annotate(
            "",
            ends[name],
            (right - 3, float(y)),
            textcoords=layout.points,
            arrowprops=line | {"color": looks[name].colour},
            annotation_clip=False,
        )
        layout.write(right, float(y), fit(name, _NAME), color=looks[name].dark)


def _widest(names: Iterable[str], most: float = _NAME) -> float:
    return max(measure(fit(name, most)) for name in names)


@mpl.rc_context(SETTINGS)
def png(figure: Figure) -> bytes:
    """Return a figure as the content of a PNG file, 1,440 pixels wide."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=200, metadata={"Software": None})
    return file.getvalue()


@mpl.rc_context(SETTINGS)
def svg(figure: Figure) -> str:
    """Return a figure as the content of an SVG file, which is reproducible."""
    file = io.BytesIO()
    figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    return file.getvalue().decode()
