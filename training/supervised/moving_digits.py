"""Two digits that move through a square and bounce off its sides (Srivastava et al. 2015).

The digits are those of `see:digits`; those of training, validation and test are different ones.

Axes: B clips, T frames, S side of a frame.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from training.supervised.digits import Digits, DigitsConfig
from training.supervised.task import Part

SIDE = 64
"""S, in pixels."""
_DIGITS = 2  # In a clip.
_SPEED = 3.6  # Pixels in a frame, in a random direction; 0.1 of the free length in the source code.
_SEEDS: dict[Part, int] = {"train": 0, "validation": 1, "test": 2}


def moving_digits(part: Part, count: int, length: int) -> NDArray[np.uint8]:
    """Return clips, always the same.

    Args:
        part: whose digits move.
        count: B.
        length: T.

    Returns:
        (B, T, S, S) uint8; where digits overlap, the brighter pixel is seen.

    Raises:
        TrainingError: If the package with the digits is not installed.
    """
    digits = Digits(DigitsConfig()).load(part)["image"][..., 0].numpy()
    rng = np.random.default_rng(_SEEDS[part])
    clips: NDArray[np.uint8] = np.zeros((count, length, SIDE, SIDE), np.uint8)
    side = digits.shape[1]
    for clip in clips:
        for _ in range(_DIGITS):
            digit = digits[rng.integers(len(digits))]
            angle = rng.random() * 2 * math.pi
            start = rng.random(2) * (SIDE - side)
            velocity = _SPEED * np.array([math.sin(angle), math.cos(angle)])
            for frame, position in zip(
                clip, path(start, velocity, length, SIDE - side), strict=True
            ):
                row, column = position
                place = frame[row : row + side, column : column + side]
                np.maximum(place, digit, out=place)
    return clips


def path(
    start: NDArray[np.float64], velocity: NDArray[np.float64], length: int, free: int
) -> NDArray[np.int64]:
    """Return positions on a straight way that is reflected at 0 and at `free`, (T, 2).

    Args:
        start: (2,) in [0, free].
        velocity: (2,) in a frame.
        length: T.
        free: the largest position.
    """
    unfolded = start + velocity * np.arange(length)[:, None]
    folded = np.abs((unfolded + free) % (2 * free) - free)  # A triangle wave.
    return np.floor(folded).astype(np.int64)
