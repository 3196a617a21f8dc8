"""Tests of `training.signals`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from tests.envs import processes
from training import signals
from training.signals import STOPPING, handling_signals, stops_after, until_interrupted


@pytest.fixture(autouse=True)
def _sighup_is_not_ignored():
    """Lets SIGHUP do what it does in a terminal, also where `nohup` runs the tests."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


def handlers():
    return [signal.getsignal(number) for number in STOPPING]


def send(number):
    os.kill(os.getpid(), number)


def test_signals_are_collected_and_handlers_restored(capfd):
    before = handlers()
    with until_interrupted() as received:
        assert received == []
        for number in STOPPING:
            send(number)
        assert received == [*STOPPING]
    assert handlers() == before
    assert capfd.readouterr().err.strip() == (
        "stopping after this update; press again to stop at once"
    )


def test_handlers_are_restored_after_an_error():
    before = handlers()
    with pytest.raises(ZeroDivisionError), handling_signals(lambda number, frame: None):
        raise ZeroDivisionError
    assert handlers() == before


TWICE = """
import os, signal, time
from training import signals
signals._AGAIN_AFTER_S = {again}
with signals.until_interrupted() as received:
    for _ in range(2):
        os.kill(os.getpid(), signal.{name})
        time.sleep(0.05)
print(len(received))
"""


@pytest.mark.parametrize(
    ("name", "again", "status"),
    [("SIGINT", 2.0, -2), ("SIGTERM", 0.0, -15), ("SIGTERM", 2.0, 0), ("SIGHUP", 0.0, 0)],
)
def test_a_second_signal_ends_at_once_unless_it_was_sent_together_with_the_first(
    name, again, status
):
    code = TWICE.format(name=name, again=again)
    environment = {**os.environ, "PYTHONPATH": str(processes.ROOT)}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (status, "" if status else "2\n"), done.stderr


def test_an_ignored_hangup_is_still_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with until_interrupted() as received:
            send(signal.SIGHUP)
            assert received == []
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_rollout_has_some_time_after_a_signal(monkeypatch):
    now = [10.0]
    monkeypatch.setattr(signals.time, "monotonic", lambda: now[0])
    received = []
    at_once, later = stops_after(received), stops_after(received, 2.0)
    assert not at_once()
    received.append(2)
    assert at_once()
    assert not later()
    now[0] += 2.5
    assert later()
