"""How the learning rate decays during a training."""

from __future__ import annotations

import math
from typing import Literal

Schedule = Literal["constant", "step", "linear", "cosine"]


def decay(schedule: Schedule, progress: float, *, factor: float = 0.1, steps: int = 2) -> float:
    """Return the learning rate as a share of the first one.

    Args:
        schedule: `constant`; `step`, multiplied by `factor` after equal parts of the training;
            `linear`, to zero; or `cosine`, to zero (Loshchilov and Hutter 2017, equation 5, without
            restarts).
        progress: the share of the training that has passed, in [0, 1].
        factor: of each step.
        steps: the number of steps; they divide the training into one part more.
    """
    if schedule == "step":
        return factor ** min(steps, math.floor(progress * (steps + 1)))
    if schedule == "linear":
        return 1.0 - progress
    if schedule == "cosine":
        return (1.0 + math.cos(math.pi * progress)) / 2.0
    return 1.0
