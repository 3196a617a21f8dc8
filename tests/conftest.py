"""No test may leave behind an engine, a worker, a scratch folder or shared memory."""

import os

# Before torch is imported: with one thread, results do not depend on the number of cores, and tests
# that run worker processes do not fight them for cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import random
import tempfile
import uuid

import numpy as np
import pytest
import torch

import train
from tests.envs import processes

# How fast environments alone are is measured at each start of a training; here it does not matter.
train._CEILING_STEPS = 2

_ENDING_TAKES_S = 10.0  # at most; no test waits longer than it must


@pytest.fixture(scope="session", autouse=True)
def engine_record(tmp_path_factory):
    folder = tmp_path_factory.mktemp("engines")
    os.environ[processes.MARKER] = uuid.uuid4().hex
    # Engines of other programs, which may run at the same time, use the machine's own folder.
    os.environ["TMPDIR"] = tempfile.tempdir = str(folder)
    processes.record_engines(folder)
    yield folder
    _expect_nothing_beyond(set(), folder)


@pytest.fixture(autouse=True)
def _draws_the_same_whatever_ran_before():
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _leaves_nothing_behind(engine_record):
    before = processes.leftovers(engine_record)
    yield
    _expect_nothing_beyond(before, engine_record)


def _expect_nothing_beyond(before, engine_record):
    def clean() -> bool:
        return processes.leftovers(engine_record) <= before

    if not processes.wait_until(clean, _ENDING_TAKES_S):
        left = sorted(processes.leftovers(engine_record) - before)
        pytest.fail("left behind:\n" + "\n".join(left))
