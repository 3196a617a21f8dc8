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
    assert stopwatch.summary() == "games 75 %, update 25 %, other 0 %"


def test_what_took_less_than_a_hundredth_is_called_other():
    stopwatch = Stopwatch()
    small = {"transfer": 0.9, "logging": 0.6, "setup": 0.5}
    stopwatch.seconds = {"update": 36.0, **small, "games": 61.0, "evaluation": 1.0}
    assert stopwatch.summary() == "games 61 %, update 36 %, evaluation 1 %, other 2 %"
    assert stopwatch.shares()["setup"] == pytest.approx(0.005)


def test_a_stopwatch_without_laps_has_no_shares():
    assert Stopwatch().shares() == {}


def test_time_side_by_side_counts_once_and_is_shared_out_as_it_was_spent():
    stopwatch, others = Stopwatch(), (Stopwatch(), Stopwatch())
    stopwatch.lap("transfer")
    before = stopwatch.seconds["transfer"]
    time.sleep(0.01)
    others[0].seconds = {"games": 3.0, "inference": 1.0}
    others[1].seconds = {"games": 3.0, "transfer": 1.0}
    started = stopwatch._last
    stopwatch.lap_like(others)
    elapsed = stopwatch._last - started
    stopwatch.seconds["transfer"] -= before
    expected = {"games": 0.75 * elapsed, "inference": elapsed / 8, "transfer": elapsed / 8}
    assert stopwatch.seconds == pytest.approx(expected)
