"""Tests of `training.signals`."""

from __future__ import annotations

import os
import signal

import pytest

from training.signals import handling_signals, until_interrupted

NUMBERS = (signal.SIGINT, signal.SIGTERM)


def handlers():
    return [signal.getsignal(number) for number in NUMBERS]


def test_signals_are_collected_and_handlers_restored(capsys):
    before = handlers()
    with until_interrupted() as received:
        assert received == []
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        assert received == [signal.SIGTERM, signal.SIGINT]
        # A second one of the same kind ends the process at once.
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert handlers() == before
    assert "stopping after this update; press again to stop at once" in capsys.readouterr().err


def test_handlers_are_restored_after_an_error():
    before = handlers()
    with pytest.raises(ZeroDivisionError), handling_signals(lambda number, frame: None):
        raise ZeroDivisionError
    assert handlers() == before
