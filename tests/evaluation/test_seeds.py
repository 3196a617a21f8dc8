"""Tests of `evaluation.seeds`."""

from __future__ import annotations

from itertools import pairwise

from evaluation.seeds import (
    EVALUATION,
    MAX_SCORING,
    SCORING,
    TRAINING,
    TUNING,
    first_training_seed,
)


def test_ranges_do_not_overlap():
    assert 0 <= SCORING < MAX_SCORING < EVALUATION < TUNING < TRAINING
    assert MAX_SCORING == EVALUATION - 1
    # Each range holds more than a hundred million episodes.
    assert TUNING - EVALUATION > 2**27
    assert TRAINING - TUNING > 2**27


def test_trainings_use_different_seeds_of_the_training_range():
    firsts = [first_training_seed(seed) for seed in (*range(500), 2**31 - 1)]
    assert all(TRAINING <= first < TRAINING + TRAINING // 2 for first in firsts)
    assert firsts[0] == TRAINING
    ordered = sorted(firsts)
    # Each training can play half a million episodes before it reaches the seeds of another one.
    assert all(b - a > 500_000 for a, b in pairwise(ordered))
