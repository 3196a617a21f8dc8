"""The table and the picture of what `evaluate.py compress` found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from evaluation.report.layout import GREY, SETTINGS
from evaluation.report.looks import COLOURS
from evaluation.report.markdown import markdown_table, plain
from evaluation.report.tables import number, with_interval
from evaluation.statistics import Interval, Score

SHORT = (0, 1, 2, 4, 7, 8)
"""The columns that a terminal shows."""
COLUMNS = (
    "variant",
    "file",
    "parameters",
    "multiply-adds",
    "batch 1: median (99 %)",
    "batch 32: median (99 %)",
    "env steps/s",
    "mean return",
    "no worse",
)
"""Columns of the table."""
_MARKERS = {"PyTorch": "D", "ONNX": "s", "int8": "o"}
"""Markers of the picture, by runtime."""


@dataclass(frozen=True, kw_only=True)
class Variant:
    """What was found about a policy or one of its compressed variants.

    Attributes:
        network: name of its network, as in `student 0.25`.
        runtime: what it runs in: PyTorch, ONNX (in ONNX Runtime), or int8 (also, with 8-bit
            weights).
        bytes: size of its file.
        parameters: number of parameters that were trained.
        multiply_adds: for one observation.
        latency_us: median and 99th percentile of the latency of a batch, in microseconds, by batch
            size.
        env_steps_per_s: speed of playing, environments included.
        returns: native returns, in the order of episode seeds.
        score: their statistics.
        no_worse: the probability that an episode of it is better than one of the teacher; ties
            count half, so that it is 0.5 for the teacher itself.
    """

    network: str
    runtime: str
    bytes: int
    parameters: int
    multiply_adds: int
    latency_us: Mapping[str, tuple[float, float]]
    env_steps_per_s: float
    returns: Sequence[float]
    score: Score
    no_worse: Interval

    @property
    def name(self) -> str:
        """Name of the variant in tables and pictures."""
        return f"{self.network} ({self.runtime})"


def short_rows(variants: Sequence[Variant]) -> list[tuple[str, ...]]:
    """Return the rows of the table for a terminal, the names of its columns first."""
    return [tuple(row[column] for column in SHORT) for row in (COLUMNS, *rows(variants))]


def rows(variants: Sequence[Variant]) -> list[tuple[str, ...]]:
    """Return the rows of the table, in the order of `COLUMNS`; the first variant is the teacher."""
    teacher = variants[0]
    return [
        (
            v.name,
            f"{v.bytes / 1e3:,.0f} kB ({teacher.bytes / v.bytes:.1f}x)",
            f"{v.parameters:,}",
            f"{v.multiply_adds:,}",
            *(
                f"{median:,.0f} ({p99:,.0f}) us, {teacher.latency_us[batch][0] / median:.1f}x"
                for batch, (median, p99) in v.latency_us.items()
            ),
            f"{v.env_steps_per_s:,.0f}",
            with_interval(v.score.mean, v.score.ci_low, v.score.ci_high),
            f"{v.no_worse.estimate:.2f} ({v.no_worse.low:.2f} to {v.no_worse.high:.2f})",
        )
        for v in variants
    ]


def markdown(variants: Sequence[Variant], title: str, sentences: Sequence[str]) -> str:
    """Return the table with a title above it and sentences below it, as Markdown."""
    lines = [f"# {plain(title)}", "", *markdown_table(COLUMNS, rows(variants), text=(0,))]
    return "\n".join([*lines, "", *(f"- {sentence}" for sentence in sentences), ""])


def picture(variants: Sequence[Variant], title: str) -> Figure:
    """Return a figure of mean return, with its interval, against latency at batch 1.

    Colours are networks, and markers are runtimes.
    """
    with mpl.rc_context(SETTINGS):
        figure = Figure(figsize=(8.0, 4.6), layout="constrained")
        axes = figure.subplots()
        teacher = variants[0]
        axes.axhspan(teacher.score.ci_low, teacher.score.ci_high, color=GREY, alpha=0.15, lw=0)
        networks = list(dict.fromkeys(v.network for v in variants))
        for v in variants:
            latency, mean = v.latency_us["1"][0], v.score.mean
            colour = COLOURS[networks.index(v.network) % len(COLOURS)]
            error = [[mean - v.score.ci_low], [v.score.ci_high - mean]]
            label = f"{v.name}: {v.bytes / 1e3:,.0f} kB, return {number(mean)}"
            marker = _MARKERS[v.runtime]
            axes.errorbar(
                latency, mean, error, fmt=marker, color=colour, capsize=3, markersize=6, label=label
            )
        axes.set_xscale("log")
        for which in (axes.xaxis.set_major_formatter, axes.xaxis.set_minor_formatter):
            which(FuncFormatter(lambda us, _: f"{us:,.0f}" if f"{us:g}"[0] in "125" else ""))
        axes.set_xlabel("median latency at batch 1 on one thread, microseconds (log scale)")
        axes.set_ylabel("mean native return, 95 % interval")
        axes.set_title(title, loc="left", parse_math=False)
        figure.legend(loc="outside right center", frameon=False, fontsize="small")
    return figure
