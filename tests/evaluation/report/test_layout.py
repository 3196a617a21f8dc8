"""Tests of `evaluation.report.layout`."""

from __future__ import annotations

import matplotlib as mpl
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.lines import Line2D

from evaluation.report import layout

LONG = "runs/defend_the_center/ppo-lstm-frame-skip-4-width-256-seed12"
MINUS = "\N{MINUS SIGN}"


def new_figure(title="Basic"):
    return layout.new_figure(title, left=100, top=70, width=200, height=90)


def box_of(text, figure_layout):
    """Return the box of a text in points from the upper left corner of the figure."""
    canvas = FigureCanvasAgg(figure_layout.figure)
    canvas.draw()
    pixels = text.get_window_extent(canvas.get_renderer())
    return figure_layout.points.inverted().transform_bbox(pixels)


def test_the_plot_is_where_the_layout_says():
    figure_layout = new_figure()
    width, height = 72 * figure_layout.figure.get_size_inches()
    assert width == pytest.approx(layout.WIDTH)
    box = figure_layout.axes().get_position()
    assert (box.x0 * width, box.width * width) == pytest.approx((100, 200))
    assert ((1 - box.y1) * height, box.height * height) == pytest.approx((70, 90))


def test_texts_are_placed_in_points_from_the_upper_left_corner():
    with mpl.rc_context(layout.SETTINGS):
        figure_layout = new_figure()
        figure_layout.write(50, 30, "here")
        figure_layout.rows(["one", "two", "three"], 20, 70)
        figure_layout.columns({"mean": ["1", "2", "3"]})
    texts = {text.get_text(): text for text in figure_layout.figure.texts}
    assert box_of(texts["here"], figure_layout).x0 == pytest.approx(50, abs=2)
    middles = [box_of(texts[name], figure_layout) for name in ("one", "two", "three")]
    assert [(box.y0 + box.y1) / 2 for box in middles] == pytest.approx([85, 115, 145], abs=2)
    right = box_of(texts["2"], figure_layout)
    assert right.x1 == pytest.approx(layout.WIDTH - layout.MARGIN, abs=2)
    assert (right.y0 + right.y1) / 2 == pytest.approx(115, abs=2)


def test_titles_and_subtitles_that_are_too_long_are_shortened():
    figure_layout = new_figure(5 * LONG)
    figure_layout.subtitle(5 * LONG)
    for text, size, weight in zip(
        figure_layout.figure.texts, (layout.TITLE, layout.SMALL), ("bold", "normal"), strict=True
    ):
        assert "…" in text.get_text()
        width = layout.measure(text.get_text(), size, weight)
        assert 400 < width <= layout.WIDTH - 2 * layout.MARGIN


def test_the_key_names_all_marks():
    figure_layout = new_figure()
    figure_layout.key({"mean": Line2D([], []), "IQM": Line2D([], [])})
    (legend,) = figure_layout.figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["mean", "IQM"]


def test_the_x_axis_has_as_many_ticks_as_fit():
    wide, narrow = new_figure(), layout.new_figure("", left=100, top=70, width=60, height=90)
    numbers = []
    for figure_layout in (wide, narrow):
        axes = figure_layout.axes()
        figure_layout.x_axis(axes, (0.0, 1_000_000.0), "env steps")
        assert axes.get_xlim() == (0, 1_000_000)
        labels = [label.get_text() for label in axes.get_xticklabels()]
        room = figure_layout.width
        assert sum(layout.measure(label, layout.SMALL) for label in labels) < room
        numbers.append(len(labels))
    assert numbers[0] > numbers[1] >= 1


def test_the_y_axis_has_the_given_ticks_or_rows():
    axes = new_figure().axes()
    layout.y_axis(axes, (0, 2), [0, 1], ["none", "half"])
    assert axes.get_ylim() == (0, 2)
    assert [label.get_text() for label in axes.get_yticklabels()] == ["none", "half"]
    axes = new_figure().axes()
    layout.rule_rows(axes, 3)
    assert axes.get_ylim() == (2.5, -0.5)


def test_limits_leave_room_on_either_side():
    assert layout.limits([0, 10, 5]) == pytest.approx((-0.4, 10.4))
    low, high = layout.limits([-300])
    assert low < -300 < high
    low, high = layout.limits([0])
    assert low < 0 < high


def test_ticks_are_round_numbers_within_the_limits():
    assert layout.ticks(0.1, 9.9, 5) == [2, 4, 6, 8]
    assert layout.ticks(-1, 1, 2) == [-1, 0, 1]
    assert layout.tick(-2500) == f"{MINUS}2,500"
    assert layout.tick(3e9) == "3e+09"


@pytest.mark.parametrize(
    ("value", "decimals", "expected"),
    [(1234.56, 1, "1,234.6"), (-0.04, 1, "0.0"), (-5, 0, f"{MINUS}5"), (2.5e9, 2, "2.5e+09")],
)
def test_numbers_are_written_for_people(value, decimals, expected):
    assert layout.number(value, decimals) == expected


def test_columns_are_as_wide_as_their_widest_text():
    columns = {"mean": ["1.00", "1,000.00"], "a long heading": ["1"]}
    expected = layout.measure("1,000.00") + layout.measure("a long heading", layout.SMALL)
    assert layout.columns_width(columns) == pytest.approx(expected + 2 * layout.GAP + layout.MARGIN)


def test_a_long_text_is_shortened_in_the_middle():
    short = layout.fit(LONG, 100)
    assert layout.measure(short) <= 100 < layout.measure(LONG)
    start, end = short.split("…")
    assert LONG.startswith(start)
    assert LONG.endswith(end)
    assert 0 <= len(start) - len(end) <= 1
    assert layout.fit("ppo", 100) == "ppo"
    assert layout.fit("ppo", 1) == "…"


def test_characters_that_the_font_lacks_are_replaced():
    assert layout.fit("a\x00日b", 100) == "a\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}b"
