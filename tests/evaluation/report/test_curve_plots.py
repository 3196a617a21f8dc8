"""Tests of `evaluation.report.curve_plots`."""

from __future__ import annotations

import numpy as np

from evaluation.report import curve_plots
from evaluation.report.looks import COLOURS
from evaluation.statistics import band
from tests.evaluation.report.test_plots import CURVES, LONG, curve, lines, words


def test_curves_are_the_mean_and_the_band_of_their_seeds():
    figure = curve_plots.curves("Basic", "return", CURVES)
    drawn = lines(figure)
    steps, mean, low, high = band(CURVES["ppo"])
    np.testing.assert_array_equal(drawn["ppo"], (steps, mean))
    (shade,) = figure.axes[0].collections
    corners = {tuple(corner) for corner in shade.get_paths()[0].vertices}
    assert set(zip(steps, low, strict=True)) | set(zip(steps, high, strict=True)) <= corners
    for i, seed in enumerate(CURVES["ppo"]):
        np.testing.assert_array_equal(drawn[f"seed {i} of ppo"], seed)
    np.testing.assert_allclose(drawn["random"][1][[0, -1]], CURVES["random"][0][1][[0, -1]])
    assert "seed 0 of random" not in drawn
    for unit in ("return", LONG):
        written = words(curve_plots.curves("Basic", unit, CURVES))
        assert any("mean of 1 to 3 training seeds; band: lowest to" in word for word in written)


def test_many_env_steps_are_counted_in_millions():
    figure = curve_plots.curves("Basic", "return", {"ppo": [curve(200_000_000)]})
    assert lines(figure)["ppo"][0][-1] == 200
    assert figure.axes[0].get_xlabel() == "million env steps"
    figure = curve_plots.curves("Basic", "return", {"ppo": [curve(2_000_000)]})
    assert "1,000,000" in words(figure)


def test_colours_go_by_the_order_of_names():
    runs = {name: [curve()] for name in "gbfaced"}
    colours = {
        line.get_label(): line.get_color()
        for line in curve_plots.curves("", "", runs).axes[0].lines
    }
    assert [colours[name] for name in "abcdefg"] == list(COLOURS)


def test_a_curve_is_not_drawn_beyond_its_end():
    runs = {"whole": [curve(1000)], "early": [curve(400, 5)], "seeds": [curve(1000), curve(600)]}
    figure = curve_plots.curves("Basic", "return", runs)
    drawn = lines(figure)
    assert drawn["early"][0][-1] == 400
    assert drawn["seeds"][0][-1] == 600
    for name, end in (("early", 400), ("seeds", 600)):
        assert drawn[f"end 0 of {name}"][0].tolist() == [end]
    assert not [label for label in drawn if label.startswith("end") and "whole" in label]
    # Nothing leads from the end of a curve to its name, as if it went on.
    assert not figure.axes[0].texts
