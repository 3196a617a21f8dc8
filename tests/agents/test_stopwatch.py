"""Where the time of a training goes."""

import time

import pytest

from agents.stopwatch import Stopwatch


def test_each_lap_goes_to_the_phase_that_ended():
    stopwatch = Stopwatch()
    started = time.perf_counter()
    time.sleep(0.03)
    stopwatch.lap("games")
    time.sleep(0.01)
    stopwatch.lap("update")
    stopwatch.lap("games")
    assert stopwatch.seconds["games"] >= 0.03
    assert stopwatch.seconds["update"] >= 0.01
    assert sum(stopwatch.seconds.values()) <= time.perf_counter() - started + 1e-3


def test_shares_add_up_and_are_said_largest_first():
    stopwatch = Stopwatch()
    stopwatch.seconds = {"update": 1.0, "games": 3.0}
    assert stopwatch.shares() == pytest.approx({"games": 0.75, "update": 0.25})
    assert stopwatch.summary() == "games 75 %, update 25 %"
