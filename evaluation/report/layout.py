"""The layout of a figure: one plot, with the title, rows, columns and key around it.

Everything but the data is placed in points from the figure's upper left corner. Text is measured
before it is placed, so that no text overlaps another one or is cut off.
"""

from __future__ import annotations

import io
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.lines import Line2D
from matplotlib.textpath import text_to_path
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import Affine2D, Transform

# Points, which are 7.2 inches: readable at the 700 pixels that a README shows. Figures are wider
# only where names would be cut otherwise.
WIDTH = 518.4
MARGIN = 14.0
GAP = 14.0
BODY, SMALL, TITLE = 9.0, 8.0, 12.5
_MANY_DIGITS = 1e8  # Numbers from this size on are written with an exponent.
_FOOTER = 38.0  # Distance from the plot to the bottom of the figure.
_FONT = "DejaVu Sans"  # It comes with matplotlib, so that it is the same on every machine.

INK, GREY, _HAIR = "#222222", "#6e6e6e", "#e7e7e7"

# The defaults of matplotlib replace the user's settings, which might, for example, turn on TeX.
_PARTS = "axes figure font grid hatch legend lines markers patch path savefig svg text xtick ytick"
_DEFAULTS: dict[Any, Any] = {
    key: value for key, value in mpl.rcParamsDefault.items() if key.split(".")[0] in _PARTS.split()
}
SETTINGS: dict[Any, Any] = _DEFAULTS | {
    "axes.axisbelow": True,
    "axes.labelcolor": GREY,
    "axes.labelsize": SMALL,
    "figure.facecolor": "white",
    "font.family": [_FONT],
    "font.size": BODY,
    "grid.color": _HAIR,
    "grid.linewidth": 0.7,
    "lines.solid_capstyle": "butt",  # Other caps make intervals look longer than they are.
    "svg.fonttype": "path",
    "svg.hashsalt": "doomgrad",
    "text.color": INK,
    "text.parse_math": False,
    "text.usetex": False,
}


@dataclass(frozen=True, kw_only=True)
class FigureLayout:
    """A figure with one plot, and the positions of everything in it.

    Attributes:
        figure: the figure.
        left: distance of the plot from the left of the figure, in points.
        top: distance of the plot from the top of the figure, in points.
        width: width of the plot, in points.
        height: height of the plot, in points.
        paper: width of the figure, in points.
    """

    figure: Figure
    left: float
    top: float
    width: float
    height: float
    paper: float = WIDTH

    @property
    def points(self) -> Transform:
        """The transform from points, counted from the upper left corner, to the figure."""
        height = self.top + self.height + _FOOTER
        return Affine2D().scale(1, -1).translate(0, height).scale(1 / 72) + (
            self.figure.dpi_scale_trans
        )

    def write(self, x: float, y: float, text: str, **style: Any) -> None:
        """Write a line of text, by default starting at x and vertically centred at y."""
        style = {"va": "center_baseline"} | style
        self.figure.text(x, y, text, transform=self.points, **style)

    def subtitle(self, text: str) -> None:
        """Write a line under the title."""
        self.write(MARGIN, 38, fit(text, self.paper - 2 * MARGIN, SMALL), size=SMALL, color=GREY)

    def key(self, marks: Mapping[str, Line2D]) -> None:
        """Draw the key of the plot's marks under the title."""
        self.figure.legend(
            handles=list(marks.values()),
            labels=list(marks),
            loc="center left",
            bbox_to_anchor=(MARGIN, 38),
            bbox_transform=self.points,
            ncols=len(marks),
            frameon=False,
            borderpad=0,
            borderaxespad=0,
            handlelength=2.2,
            columnspacing=1.8,
            fontsize=SMALL,
            labelcolor=GREY,
        )

    def rows(self, texts: Sequence[str], x: float, width: float, **style: Any) -> None:
        """Write a text beside each row of the plot."""
        for row, text in enumerate(texts):
            y = self.top + (row + 0.5) * self.height / len(texts)
            self.write(x, y, fit(text, width, style.get("size", BODY)), **style)

    def columns(self, columns: Mapping[str, Sequence[str]]) -> None:
        """Write numbers to the right of the plot, under their headings."""
        right = self.paper - MARGIN
        for name, texts in reversed(list(columns.items())):
            self.write(right, self.top - 9, name, ha="right", size=SMALL, color=GREY)
            self.rows(texts, right, self.paper, ha="right")
            right -= _column_width(name, texts) + GAP

    def axes(self) -> Axes:
        """Return the axes of the plot."""
        total = self.top + self.height + _FOOTER
        axes = self.figure.add_axes(
            (
                self.left / self.paper,
                _FOOTER / total,
                self.width / self.paper,
                self.height / total,
            )
        )
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0, labelsize=SMALL, labelcolor=GREY)
        axes.set_yticks([])
        return axes

    def x_axis(self, axes: Axes, limits: tuple[float, float], label: str) -> None:
        """Set the limits and label of the x axis, with as many tick labels as there is room for."""
        shown = ticks(*limits, 2)[:1]
        for most in range(1, 7):
            more = ticks(*limits, most)
            if more and sum(measure(tick(value), SMALL) + GAP for value in more) <= self.width:
                shown = more
        axes.set_xlim(*limits)
        axes.set_xticks(shown, [tick(value) for value in shown])
        axes.grid(visible=True, axis="x")
        axes.set_xlabel(fit(label, self.width, SMALL))


def new_figure(
    title: str, *, left: float, top: float, width: float, height: float, paper: float = WIDTH
) -> FigureLayout:
    """Return a figure with a title and room for a plot, whose position is in points."""
    figure = Figure(figsize=(paper / 72, (top + height + _FOOTER) / 72))
    layout = FigureLayout(
        figure=figure, left=left, top=top, width=width, height=height, paper=paper
    )
    title = fit(title, paper - 2 * MARGIN, TITLE, "bold")
    layout.write(MARGIN, 19, title, size=TITLE, weight="bold")
    return layout


def columns_width(columns: Mapping[str, Sequence[str]]) -> float:
    """Return the width of columns to the right of a plot, with the margin, in points."""
    return sum(_column_width(*column) + GAP for column in columns.items()) + MARGIN


def _column_width(name: str, texts: Sequence[str]) -> float:
    return max([measure(name, SMALL), *map(measure, texts)])


def y_axis(
    axes: Axes, limits: tuple[float, float], values: Iterable[float], labels: Iterable[str]
) -> None:
    """Set the limits and the tick labels of the y axis."""
    axes.set_ylim(*limits)
    axes.set_yticks(list(values), list(labels))
    axes.grid(visible=True, axis="y")


def rule_rows(axes: Axes, num: int) -> None:
    """Set the y axis to rows, counted from 0 downwards, with lines between them."""
    axes.set_ylim(num - 0.5, -0.5)
    axes.hlines(np.arange(num + 1) - 0.5, *axes.get_xlim(), color=_HAIR, linewidth=0.7, zorder=0)


def limits(values: Iterable[float]) -> tuple[float, float]:
    """Return the limits of an axis that holds all values, with some room on either side."""
    values = list(values)
    low, high = float(min(values)), float(max(values))
    room = 0.04 * (high - low) or max(0.05 * abs(low), 0.5)
    return low - room, high + room


def ticks(low: float, high: float, most: int) -> list[float]:
    """Return round numbers for the ticks of an axis, about `most` of them."""
    values = MaxNLocator(most, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
    return [float(value) for value in values if low <= value <= high]


def tick(value: float) -> str:
    """Return the label of a tick."""
    digits = ",.10g" if abs(value) < _MANY_DIGITS else ".4g"
    return f"{value:{digits}}".replace("-", "\N{MINUS SIGN}")


def number(value: float, decimals: int) -> str:
    """Return a number as text."""
    value = round(value, decimals) + 0.0  # Minus zero becomes zero.
    digits = f",.{decimals}f" if abs(value) < _MANY_DIGITS else ".4g"
    return f"{value:{digits}}".replace("-", "\N{MINUS SIGN}")


def measure(text: str, size: float = BODY, weight: str = "normal") -> float:
    """Return the width of a line of text, in points."""
    font = FontProperties(family=_FONT, size=size, weight=weight)
    return float(text_to_path.get_text_width_height_descent(text, font, ismath=False)[0])


def fit(text: str, width: float, size: float = BODY, weight: str = "normal") -> str:
    """Return a text, shortened in the middle if it is wider than `width` points.

    Characters that the font lacks are replaced, because fallback fonts differ between machines.
    """
    font = get_font(findfont(_FONT))
    known = [c.isprintable() and font.get_char_index(ord(c)) > 0 for c in text]
    text = "".join(
        c if k else "\N{REPLACEMENT CHARACTER}" for c, k in zip(text, known, strict=True)
    )
    if measure(text, size, weight) <= width:
        return text

    def short(kept: int) -> str:
        return f"{text[: kept - kept // 2]}…{text[len(text) - kept // 2 :]}"

    over = bisect_right(range(len(text)), width, key=lambda n: measure(short(n), size, weight))
    return short(max(over - 1, 0))


FORMATS = ("svg", "png", "pdf")
"""The kinds of files that `rendered` returns."""
# Nothing in a file says when or by which version it was written, so that it is reproducible.
_METADATA: dict[str, dict[str, Any]] = {
    "svg": {"Date": None, "Creator": None},
    "png": {"Software": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}


@mpl.rc_context(SETTINGS)
def rendered(figure: Figure, kind: str) -> bytes:
    """Return a figure as the content of a file, which is reproducible.

    Args:
        figure: the figure.
        kind: one of `FORMATS`; a PNG has 200 pixels an inch, 1,440 of a figure of usual width.
    """
    file = io.BytesIO()
    figure.savefig(file, format=kind, dpi=200, metadata=_METADATA[kind])
    return file.getvalue()
