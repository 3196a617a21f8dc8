"""Tests of `agents.stopwatch`."""

from __future__ import annotations

import time

import pytest

from agents.stopwatch import Stopwatch


def test_each_lap_is_added_to_the_phase_that_ended(monkeypatch):
    times = iter([10.0, 13.0, 14.0, 14.5])
    monkeypatch.setattr(time, "perf_counter", lambda: next(times))
    stopwatch = Stopwatch()
    stopwatch.lap("environments")
    stopwatch.lap("update")
    stopwatch.lap("environments")
    assert stopwatch.seconds == {"environments": 3.5, "update": 1.0}


def test_shares_add_up_and_are_listed_largest_first():
    stopwatch = Stopwatch()
    stopwatch.seconds = {"update": 1.0, "environments": 3.0}
    assert stopwatch.shares() == pytest.approx({"environments": 0.75, "update": 0.25})
    assert stopwatch.summary() == "environments 75 %, update 25 %, other 0 %"


def test_phases_with_less_than_a_hundredth_are_called_other():
    stopwatch = Stopwatch()
    small = {"transfer": 0.9, "logging": 0.6, "setup": 0.5}
    stopwatch.seconds = {"update": 36.0, **small, "environments": 61.0, "evaluation": 1.0}
    assert stopwatch.summary() == "environments 61 %, update 36 %, evaluation 1 %, other 2 %"
    assert stopwatch.shares()["setup"] == pytest.approx(0.005)


def test_a_stopwatch_without_laps_has_no_shares():
    assert Stopwatch().shares() == {}


def test_time_of_threads_counts_once_and_is_divided_in_proportion():
    stopwatch, others = Stopwatch(), (Stopwatch(), Stopwatch())
    stopwatch.lap("transfer")
    before = stopwatch.seconds["transfer"]
    time.sleep(0.01)
    others[0].seconds = {"environments": 3.0, "inference": 1.0}
    others[1].seconds = {"environments": 3.0, "transfer": 1.0}
    started = stopwatch._last
    stopwatch.lap_like(others)
    elapsed = stopwatch._last - started
    stopwatch.seconds["transfer"] -= before
    expected = {"environments": 0.75 * elapsed, "inference": elapsed / 8, "transfer": elapsed / 8}
    assert stopwatch.seconds == pytest.approx(expected)
