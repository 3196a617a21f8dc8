"""Tests of `evaluation.locks`, with a process that holds some and is killed."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path

import pytest

from evaluation.locks import Locks

ROOT = Path(__file__).parents[2]
HOLD = """
import sys, time
from pathlib import Path
from evaluation.locks import Locks
locks = Locks(Path(sys.argv[1]))
assert locks.take(1) and locks.take(2, shared=True)
print("held", flush=True)
time.sleep(100)
"""


@pytest.fixture
def locks(tmp_path):
    with contextlib.closing(Locks(tmp_path / "lock")) as locks:
        yield locks


@pytest.fixture
def holder(tmp_path):
    command = [sys.executable, "-c", HOLD, str(tmp_path / "lock")]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_what_another_process_holds_cannot_be_taken_until_it_dies(locks, holder):
    assert not locks.take(1, wait=False)
    assert not locks.take(1, wait=False, shared=True)
    assert locks.take(3, wait=False)  # Each is for itself.
    holder.kill()
    with locks.held(1):  # waits
        assert holder.wait() < 0


def test_what_is_shared_can_be_shared_but_not_had_alone(locks, holder):
    assert locks.take(2, wait=False, shared=True)
    assert not locks.take(2, wait=False)
    holder.kill()
    assert locks.take(2)


def test_what_was_given_back_can_be_taken(tmp_path, locks):
    for number in (1, 2):
        locks.take(number)
        locks.give(number)
    command = [sys.executable, "-c", HOLD, str(tmp_path / "lock")]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        process.kill()
