"""Tests of `evaluation.report.plots`."""

from __future__ import annotations

import io
import subprocess
import sys
import warnings
import xml.etree.ElementTree as ET

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from PIL import Image

from evaluation import statistics
from evaluation.report import curve_plots, plots
from evaluation.report.layout import rendered
from evaluation.report.looks import looks_of
from evaluation.statistics import (
    Interval,
    performance_profile,
    probability_of_improvement,
    summarize,
)

LONG = "runs/defend_the_center/ppo-lstm-frame-skip-4-width-256-seed12"
MINUS = "\N{MINUS SIGN}"
STRANGE = ["$x$_a", r"\frac{1}{2}", "--><script>alert(1)</script>", "_private", "日本\n\x00😀", ""]


@pytest.fixture(autouse=True)
def _rough_intervals(monkeypatch):
    # Figures are tested here, not statistics.
    monkeypatch.setattr(statistics, "_RESAMPLES", 200)
    monkeypatch.setattr(statistics, "_RESAMPLES_OF_PAIRS", 200)


def returns(*means, num=40, std=1.0, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.normal(mean, std, num) for mean in means]


def curve(end=1000, final=10.0, num=20):
    steps = np.linspace(50, end, num)
    return steps, final * (1 - np.exp(-steps / 200))


PLAYERS = {
    "ppo": returns(80, 82, 79, std=5),
    "random": returns(-130, std=90),
    "noop": [np.full(40, -300.0)],
}
SCORES = {name: summarize(strata, 5.0) for name, strata in PLAYERS.items()}
CURVES = {"ppo": [curve(1000, 10), curve(800, 12), curve(900, 7)], "random": [curve(1000, 1)]}


def pair(one, other, estimate=0.6, low=0.55, high=0.7, *, is_significant=True):
    return one, other, Interval(estimate=estimate, low=low, high=high), is_significant


def every_figure(names):
    """Return a figure of each kind, of players with these names."""
    players = {name: returns(i, i + 1, seed=i) for i, name in enumerate(names)}
    scores = {name: summarize(strata, 5.0) for name, strata in players.items()}
    pairs = [pair(name, names[0]) for name in names]
    # Several curves end at the same value.
    runs = {name: [curve(), curve(final=i // 4)] for i, name in enumerate(names)}
    return [
        plots.intervals(names[0], names[-1], scores, (names[0], 3.0)),
        plots.profiles(names[0], names[-1], players),
        plots.improvement(names[0], pairs),
        curve_plots.curves(names[0], names[-1], runs),
    ]


def lines(figure):
    """Return the data of each line by its label."""
    found = {line.get_label(): line for line in figure.axes[0].lines}
    return {
        label: (np.asarray(line.get_xdata()), np.asarray(line.get_ydata()))
        for label, line in found.items()
    }


def texts(figure):
    axes = figure.axes[0]
    legends = [text for legend in figure.legends for text in legend.get_texts()]
    labels = [*axes.get_xticklabels(), *axes.get_yticklabels(), axes.xaxis.label]
    return [text for text in [*figure.texts, *legends, *labels] if text.get_text()]


def words(figure):
    return [text.get_text() for text in texts(figure)]


def drawn_boxes(figure):
    """Return the boxes of all texts, and the box of the figure, in pixels."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    boxes = [text.get_window_extent(canvas.get_renderer()) for text in texts(figure)]
    return boxes, figure.bbox


def test_marks_of_scores_are_at_the_scores():
    drawn = lines(plots.intervals("Basic", "return", SCORES))
    for name, score in SCORES.items():
        assert drawn[f"mean of {name}"][0].tolist() == [score.mean]
        assert drawn[f"IQM of {name}"][0].tolist() == [score.iqm]
        assert drawn[f"interval of {name}"][0].tolist() == [score.ci_low, score.ci_high]
        assert drawn[f"IQM's of {name}"][0].tolist() == [score.iqm_low, score.iqm_high]
    assert drawn["seeds of ppo"][0].tolist() == list(SCORES["ppo"].seed_means)
    over_seeds = [SCORES["ppo"].seeds_low, SCORES["ppo"].seeds_high]
    assert drawn["new seeds of ppo"][0].tolist() == over_seeds
    assert "new seeds of random" not in drawn
    assert "seeds of random" not in drawn  # With one seed, it would be the mean again.


def test_intervals_do_not_look_longer_than_they_are():
    axes = plots.intervals("Basic", "return", SCORES).axes[0]
    assert {line.get_solid_capstyle() for line in axes.lines} == {"butt"}


def test_the_best_player_is_first():
    scores = {name: SCORES[name] for name in ("noop", "ppo", "random")}
    figure = plots.intervals("Basic", "return", scores)
    heights = [lines(figure)[f"mean of {name}"][1][0] for name in ("ppo", "random", "noop")]
    assert heights == sorted(heights)
    assert figure.axes[0].yaxis_inverted()
    written = words(figure)
    assert written.index("ppo") < written.index("random") < written.index("noop")


def test_scores_are_written_beside_their_marks():
    score = summarize([np.array([-1234.0, -1236.0] * 50)], 5.0)
    written = words(plots.intervals("Basic", "return", {"ppo": score}))
    assert f"{MINUS}1,235.00" in written
    assert f"{MINUS}{-score.ci_low:,.2f} to {MINUS}{-score.ci_high:,.2f}" in written


def test_the_reference_is_a_line_with_its_name_and_value():
    figure = plots.intervals("Basic", "return", SCORES, ("human expert", 1500.0))
    assert lines(figure)["human expert"][0].tolist() == [1500, 1500]
    assert any(word.startswith("human expert 1,500") for word in words(figure))
    low, high = figure.axes[0].get_xlim()
    assert low < -300 < 1500 < high


def test_profiles_are_the_shares_above_each_return():
    for players in (PLAYERS, {"ppo": returns(0, 5, num=300)}):
        drawn = lines(plots.profiles("Basic", "return", players))
        for name, strata in players.items():
            thresholds, shares = drawn[name]
            expected, _, _ = performance_profile(strata, thresholds)
            np.testing.assert_array_equal(shares[1:], expected[1:])
            if name in ("random", "noop"):
                continue  # They may start to the left of the axis.
            # It falls from 1 at the lowest return to 0 at the highest.
            assert shares[0] == 1
            assert shares[-1] == 0
            assert thresholds[0] == thresholds[1]


def test_the_band_of_a_profile_is_shaded():
    figure = plots.profiles("Basic", "return", {"ppo": PLAYERS["ppo"]})
    (shade,) = figure.axes[0].collections
    thresholds, _ = lines(figure)["ppo"]
    _, low, high = performance_profile(PLAYERS["ppo"], thresholds[1:])
    corners = shade.get_paths()[0].vertices
    assert set(low) | set(high) <= set(corners[:, 1])


def test_marks_of_probabilities_are_at_the_probabilities():
    probability = probability_of_improvement(PLAYERS["ppo"], PLAYERS["random"])
    undecided = pair("ppo", LONG, 0.52, 0.51, 0.6, is_significant=False)
    figure = plots.improvement("Basic", [("ppo", "random", probability, True), undecided])
    drawn = lines(figure)
    assert drawn["ppo above random"][0].tolist() == [probability.estimate]
    assert drawn["interval of ppo above random"][0].tolist() == [probability.low, probability.high]
    assert drawn[f"ppo above {LONG}"][0].tolist() == [0.52]
    assert any(line.get_xdata() == [0.5, 0.5] for line in figure.axes[0].lines)
    marks = {line.get_label(): line for line in figure.axes[0].lines}
    # The marker of a pair that is not significant is not filled.
    assert to_hex(marks[f"ppo above {LONG}"].get_markerfacecolor()) == "#ffffff"
    assert to_hex(marks["ppo above random"].get_markerfacecolor()) != "#ffffff"


def test_a_player_has_the_same_colour_in_all_figures():
    def colours(figure, label):
        return {
            name: to_hex(line.get_color())
            for line in figure.axes[0].lines
            for name in PLAYERS | {"a2c": 0}
            if line.get_label() == label.format(name)
        }

    players = {"a2c": returns(3)} | PLAYERS
    backwards = dict(reversed(players.items()))
    scores = {name: summarize(strata, 5.0) for name, strata in backwards.items()}
    seen = colours(plots.intervals("Basic", "return", scores), "mean of {}")
    assert seen == colours(plots.profiles("Basic", "return", players), "{}")
    assert seen == colours(
        curve_plots.curves("Basic", "return", {name: [curve()] for name in backwards}), "{}"
    )
    assert len(set(seen.values())) == 4
    for name in ("random", "noop"):
        assert len({seen[name][i : i + 2] for i in (1, 3, 5)}) == 1, "grey"


@pytest.mark.parametrize("names", [STRANGE[:3], STRANGE[:2:-1]])
def test_names_are_never_read_as_tex(names):
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # For example, about a character that the font lacks.
        for figure in every_figure(names):
            assert not any(text.get_parse_math() or text.get_usetex() for text in texts(figure))
            drawing = ET.fromstring(rendered(figure, "svg"))
            assert not drawing.findall(".//{*}script")
            for name in filter(str.isascii, names):
                assert any(word.startswith(name[:8]) for word in words(figure))


def test_figures_do_not_depend_on_the_users_settings():
    before = [rendered(figure, "png") for figure in every_figure(["$x$"])]
    theirs = {"text.usetex": True, "font.size": 30, "axes.facecolor": "red", "svg.hashsalt": "x"}
    with mpl.rc_context(theirs):
        after = [rendered(figure, "png") for figure in every_figure(["$x$"])]
        assert mpl.rcParams["font.size"] == 30
    assert before == after


@pytest.mark.parametrize(("name", "num"), [("ppo", 1), (LONG, 2), ("W" * 60, 12)])
def test_no_text_is_cut_off_or_overlaps_another(name, num):
    for figure in every_figure([f"{name}{i}" for i in range(num)]):
        boxes, paper = drawn_boxes(figure)
        for i, box in enumerate(boxes):
            assert paper.x0 <= box.x0 <= box.x1 <= paper.x1
            assert paper.y0 <= box.y0 <= box.y1 <= paper.y1
            for other in boxes[:i]:
                across = min(box.x1, other.x1) - max(box.x0, other.x0)
                along = min(box.y1, other.y1) - max(box.y0, other.y0)
                assert across <= 1 or along <= 3, "boxes are higher than their letters"


@pytest.mark.parametrize("scale", [1e-5, 1.0, -1e6, 1e12])
def test_numbers_of_any_size_fit(scale):
    players = {name: [scale * r for r in returns(1, 2, 3, seed=3)] for name in (LONG, "ppo")}
    scores = {name: summarize(strata, 5.0) for name, strata in players.items()}
    runs = {name: [(s, scale * v) for s, v in (curve(), curve(900))] for name in players}
    for figure in (
        plots.intervals("Basic", "return", scores),
        plots.profiles("Basic", "return", players),
        curve_plots.curves("Basic", "return", runs),
    ):
        boxes, paper = drawn_boxes(figure)
        assert all(paper.x0 <= box.x0 <= box.x1 <= paper.x1 for box in boxes)
        assert figure.axes[0].get_position().width > 0.2
        assert figure.axes[0].get_xticklabels()


def test_constant_scores_are_drawn():
    players = {"noop": [np.full(5, -300.0)]}
    scores = {"noop": summarize(players["noop"], 75.0)}
    drawn = lines(plots.intervals("Basic", "return", scores))
    assert drawn["interval of noop"][0].tolist() == [-300, -300]
    thresholds, shares = lines(plots.profiles("Basic", "return", players))["noop"]
    assert (thresholds.tolist(), shares.tolist()) == ([-300, -300], [1, 0])
    flat = (np.array([0.0, 1000]), np.array([-300.0, -300]))
    figure = curve_plots.curves(
        "Basic", "return", {"noop": [flat], "one": [(flat[0][:1], flat[1][:1])]}
    )
    assert (lines(figure)["noop"][1] == -300).all()


def test_empty_data_are_refused():
    for draw in (plots.intervals, plots.profiles, curve_plots.curves):
        with pytest.raises(ValueError, match="nothing to draw"):
            draw("Basic", "return", {})
    with pytest.raises(ValueError, match="nothing to draw"):
        plots.improvement("Basic", [])
    for nothing in ([], [np.array([])]):
        with pytest.raises(ValueError, match="no episodes"):
            plots.profiles("Basic", "return", PLAYERS | {"ppo": nothing})
    apart = (np.array([5000.0, 6000]), np.zeros(2))
    with pytest.raises(ValueError, match="in common"):
        curve_plots.curves("Basic", "return", {"ppo": [curve(), apart]})


def test_files_are_valid_and_reproducible():
    for one, other in zip(every_figure(["ppo"]), every_figure(["ppo"]), strict=True):
        image = rendered(one, "png")
        assert image == rendered(other, "png")
        with Image.open(io.BytesIO(image)) as opened:
            opened.load()
            assert (opened.format, opened.width) == ("PNG", 1440)
            assert opened.getpixel((0, 0))[:3] == (255, 255, 255)
        drawing = rendered(one, "svg")
        assert drawing == rendered(other, "svg")
        assert ET.fromstring(drawing).tag == "{http://www.w3.org/2000/svg}svg"
        assert b"<dc:date>" not in drawing
        assert rendered(one, "pdf") == rendered(other, "pdf")
        assert rendered(one, "pdf").startswith(b"%PDF")


def test_pyplot_is_never_imported():
    code = """
import sys
from evaluation.report import plots
from evaluation.report.layout import rendered
from evaluation.statistics import Interval
figure = plots.improvement("Basic", [("a", "b", Interval(estimate=0.5, low=0.4, high=0.6), False)])
rendered(figure, "png"), rendered(figure, "svg")
sys.exit("matplotlib.pyplot" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_baseline_that_is_far_away_does_not_set_the_scale():
    figure = plots.intervals("Basic", "return", SCORES)
    low, high = figure.axes[0].get_xlim()
    assert low > 0
    assert low < SCORES["ppo"].ci_low < SCORES["ppo"].ci_high < high
    drawn = lines(figure)
    for name in ("random", "noop"):
        assert drawn[f"off the axis: {name}"][0].tolist() == [low]
    assert "off the axis: ppo" not in drawn
    profile = plots.profiles("Basic", "return", PLAYERS)
    assert profile.axes[0].get_xlim()[0] > -250
    assert any(word == f"noop (off the axis: {MINUS}300)" for word in words(profile))
    # One that is near is on the axis.
    near = SCORES | {"random": summarize(returns(70, std=5), 5.0)}
    assert "off the axis: random" not in lines(plots.intervals("Basic", "return", near))


def test_a_policy_has_one_colour_in_all_figures_and_modes():
    modes = {
        f"{name} ({mode})": returns(i, i + 1)
        for i, name in enumerate("ab")
        for mode in ("sampled", "greedy")
    }
    looks = looks_of(modes)
    scores = {name: summarize(strata, 5.0) for name, strata in modes.items()}
    # Only one of them has a curve.
    curves = curve_plots.curves("", "", {"b": [curve()]}, looks)
    found = {
        to_hex(line.get_color()): line.get_label()
        for figure in (
            plots.intervals("", "", scores, None, looks),
            plots.profiles("", "", modes, looks),
            curves,
        )
        for line in figure.axes[0].lines
        if line.get_label() in ("b", "b (sampled)", "b (greedy)", "mean of b (greedy)")
    }
    assert len(found) == 1


def test_names_are_not_cut_while_the_figure_can_be_wider():
    for figure in every_figure([LONG, LONG + "-2"]):
        assert LONG in words(figure)
