"""Tests of `training.supervised.scoring`: intervals, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from training.supervised.scoring import interval


def accuracy(statistics):
    return {"accuracy": float(statistics["right"].mean())}


def test_the_interval_of_a_share_is_about_the_binomial_one():
    right = np.arange(400) < 300
    low, high = interval(accuracy, {"right": right})
    exact = stats.binomtest(300, 400).proportion_ci(method="wilson")
    assert low["accuracy"] == pytest.approx(exact.low, abs=0.005)
    assert high["accuracy"] == pytest.approx(exact.high, abs=0.005)


def test_examples_of_a_group_are_drawn_together():
    """Copies of an example tell nothing new: the interval is that of the groups."""
    right = np.arange(40) < 30
    alone = interval(accuracy, {"right": right})
    groups = np.repeat(np.arange(40), 10)
    copied = interval(accuracy, {"right": np.repeat(right, 10)}, groups)
    assert copied == alone
    low, high = interval(accuracy, {"right": np.repeat(right, 10)})
    assert high["accuracy"] - low["accuracy"] < (alone[1]["accuracy"] - alone[0]["accuracy"]) / 2
