"""Tests of `training.tune.locks`, with a process that holds locks and is killed."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path

import pytest

from training.tune.locks import Locks

ROOT = Path(__file__).parents[3]
HOLD = """
import sys, time
from pathlib import Path
from training.tune.locks import Locks
locks = Locks(Path(sys.argv[1]))
assert locks.acquire(1) and locks.acquire(2, shared=True)
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


def test_a_lock_of_another_process_cannot_be_acquired_until_it_dies(locks, holder):
    assert not locks.acquire(1, wait=False)
    assert not locks.acquire(1, wait=False, shared=True)
    assert locks.acquire(3, wait=False)  # The locks are independent.
    holder.kill()
    with locks.held(1):  # waits
        assert holder.wait() < 0


def test_a_shared_lock_can_be_shared_but_not_exclusive(locks, holder):
    assert locks.acquire(2, wait=False, shared=True)
    assert not locks.acquire(2, wait=False)
    holder.kill()
    assert locks.acquire(2)


def test_a_released_lock_can_be_acquired(tmp_path, locks):
    for number in (1, 2):
        locks.acquire(number)
        locks.release(number)
    command = [sys.executable, "-c", HOLD, str(tmp_path / "lock")]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        process.kill()
