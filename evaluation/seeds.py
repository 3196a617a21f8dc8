"""Ranges of episode seeds that never overlap.

No policy is scored on an episode that it learned from or was selected by.
"""

from __future__ import annotations

SCORING = 0
"""First seed of `score` and `compare`."""
MAX_SCORING = 2**29 - 1
"""Largest seed of `score` and `compare`."""
EVALUATION = 2**29
"""First seed of evaluations during training, by which the best policy is selected."""
TUNING = 2**29 + 2**28
"""First seed of the episodes by which `--tune` compares trials."""
TRAINING = 2**30
"""First seed of training."""


def first_training_seed(seed: int) -> int:
    """Return the seed of a training run's first episode.

    Args:
        seed: seed of the training. First episodes of consecutive training seeds are about a million
            seeds apart.
    """
    return TRAINING + seed * 1_000_003 % (TRAINING // 2)
