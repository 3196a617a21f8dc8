"""Tests of `evaluation.replay.overlay`."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from evaluation.replay.overlay import Overlay, taken_choices

SIZES = [(480, 640), (240, 320), (120, 160)]
ACCENT = np.array([242, 157, 85])


def overlay(steps=50, choices=("-", "attack", "turn left", "turn right", "move"), **changes):
    rng = np.random.default_rng(0)
    picks = rng.integers(0, max(len(choices), 1), steps)
    fields = {
        "rewards": rng.normal(size=steps),
        "values": np.linspace(-1, 1, steps, dtype=np.float32),
        "probabilities": rng.dirichlet(np.ones(max(len(choices), 1)), steps)[:, : len(choices)],
        "choices": choices,
        "actions": [choices[c] if choices else "[0.5 -0.1]" for c in picks],
    }
    return Overlay(**(fields | changes))


def picture(size, shade=150):
    return np.full((*size, 3), shade, np.uint8)


def dot(image):
    """Return the row and column, in pixels, of the middle of the dot on the value curve."""
    right = image.shape[1] * 3 // 4 - image.shape[1] // 40
    near = np.abs(image[:, right:].astype(int) - ACCENT).sum(axis=-1) < 12
    rows, columns = np.nonzero(near)
    assert len(rows)
    return rows.mean(), columns.mean() + right


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("step", [0, 20, 49])
def test_only_the_lower_part_of_a_copy_is_drawn_on(size, step):
    image = picture(size)
    drawn = overlay().draw(image, step, 12.5)
    assert (drawn.shape, drawn.dtype) == (image.shape, np.uint8)
    assert (image == 150).all()
    bar = round(0.22 * size[0])
    np.testing.assert_array_equal(drawn[:-bar], image[:-bar])
    assert (drawn[-bar // 2 :] < 60).mean() > 0.5
    assert (drawn[-bar:] > 180).any()


@pytest.mark.parametrize("size", SIZES[:2])
def test_the_dot_follows_the_value_through_the_episode(size):
    drawn = [dot(overlay().draw(picture(size), step, 0.0)) for step in (0, 15, 30, 49)]
    rows, columns = np.transpose(drawn)
    # The value rises, and row 0 is at the top.
    assert (np.diff(columns) > 5).all()
    assert (np.diff(rows) < -2).all()


def test_the_length_of_bars_is_the_probability_of_choices():
    def lit(share):
        probabilities = np.tile([share, 1 - share], (3, 1))
        choices = ("attack", "turn")
        drawer = overlay(
            3,
            choices=choices,
            probabilities=probabilities,
            values=np.zeros(3, np.float32),
            actions=["attack"] * 3,
        )
        drawn = drawer.draw(picture((480, 640)), 1, 0.0)
        return int((np.abs(drawn.astype(int) - ACCENT).sum(-1) < 3).any(axis=0).sum())

    quarter, half, whole = lit(0.25), lit(0.5), lit(1.0)
    assert half == pytest.approx(2 * quarter, abs=2)
    assert whole == pytest.approx(4 * quarter, abs=3)


def test_the_return_so_far_is_drawn():
    drawer = overlay()
    a, b, again = (drawer.draw(picture((480, 640)), 3, total) for total in (1.0, 200.5, 1.0))
    np.testing.assert_array_equal(a, again)
    changed = np.nonzero((a != b).any(axis=(0, 2)))[0]
    assert len(changed)
    assert changed.min() < 100


def test_without_choices_and_values_their_parts_are_left_out():
    bare = overlay(choices=(), values=np.zeros(50, np.float32))
    for size in SIZES:
        drawn = bare.draw(picture(size), 10, 1.0)
        assert not (np.abs(drawn.astype(int) - ACCENT).sum(-1) < 12).any()
        # The description of the action is still drawn.
        assert (drawn[-round(0.2 * size[0]) :] > 180).any()
    with_values = overlay(choices=()).draw(picture((480, 640)), 10, 1.0)
    assert (np.abs(with_values.astype(int) - ACCENT).sum(-1) < 12).any()


@pytest.mark.parametrize("size", [(1, 1), (4, 6), (16, 16), (30, 40), (60, 80), (72, 128)])
def test_tiny_pictures_can_be_drawn_on(size):
    drawn = overlay().draw(picture(size), 10, -1234.5)
    assert drawn.shape == (*size, 3)


@pytest.mark.parametrize("size", [(1080, 1920), (84, 84), (400, 600), (210, 160), (480, 120)])
def test_pictures_of_every_aspect_ratio_can_be_drawn_on(size):
    drawn = overlay(choices=tuple(f"a rather long choice {i}" for i in range(40)))
    assert drawn.draw(picture(size), 49, -123456.25).shape == (*size, 3)


def test_one_env_step_long_descriptions_and_values_that_are_not_finite():
    one = overlay(1, values=np.array([3.0], np.float32), actions=["turn left + attack " * 20])
    one.draw(picture((480, 640)), 0, 0.0)
    one.draw(picture((480, 640)), 7, 0.0)
    values = np.array([np.nan, 1.0, np.inf], np.float32)
    overlay(3, values=values).draw(picture((240, 320)), 2, 0.0)


def test_arrays_that_are_not_contiguous_can_be_drawn_on():
    image = picture((240, 640))[:, ::-2]
    assert overlay().draw(image, 0, 0.0).shape == (240, 320, 3)


def test_a_long_curve_is_drawn_through_few_points(monkeypatch):
    draw_lines, numbers = cv2.polylines, []

    def count(image, lines, *args):
        numbers.append(len(lines[0]))
        return draw_lines(image, lines, *args)

    monkeypatch.setattr(cv2, "polylines", count)
    overlay(20_000).draw(picture((480, 640)), 19_999, 1.0)
    # The width of the curve is a quarter of the picture: 160 pixels.
    assert 160 <= max(numbers) < 4 * 160


def test_choices_are_found_in_descriptions_of_actions():
    choices = ("-", "turn left", "attack", "turn left + attack")
    assert taken_choices(choices, "turn left + attack") == (3,)
    assert taken_choices(choices[:3], "turn left + attack") == (1, 2)
    assert taken_choices(choices, "-") == (0,)
    assert taken_choices(choices, "[0.1 0.2]") == ()
    assert taken_choices((), "attack") == ()
