"""Tests of `training.supervised.moving_digits`."""

from __future__ import annotations

import numpy as np

from training.supervised.moving_digits import SIDE, moving_digits, path


def test_a_way_is_straight_and_reflected_at_the_sides():
    """A slow twin: one step at a time, turned round at each side."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        free = 36
        start, velocity = rng.random(2) * free, rng.normal(size=2) * 4
        position, speed, expected = start.copy(), velocity.copy(), []
        for _ in range(40):
            expected.append(np.floor(position + 1e-9))
            position = position + speed
            for axis in range(2):
                while not 0 <= position[axis] <= free:
                    side = 0 if position[axis] < 0 else free
                    position[axis] = 2 * side - position[axis]
                    speed[axis] *= -1
        found = path(start, velocity, 40, free)
        assert np.abs(found - np.array(expected)).max() <= 1  # Rounding at whole numbers.
        assert np.mean(found == np.array(expected)) > 0.98
        assert found.min() >= 0
        assert found.max() <= free


def test_clips_are_the_same_each_time_and_those_of_parts_differ():
    first, again = (moving_digits("test", 3, 5) for _ in range(2))
    assert np.array_equal(first, again)
    assert first.shape == (3, 5, SIDE, SIDE)
    assert not np.array_equal(first, moving_digits("train", 3, 5))
    # A digit moves as a whole: its brightness stays the same unless the two overlap.
    totals = first.sum((2, 3), dtype=np.int64)
    assert (totals > 0).all()
    assert (totals.max(1) / totals.min(1)).max() < 1.6
