"""Every test is checked for what it leaves behind; some share runs that are trained once."""

import os

# Before torch is imported: with one thread, results do not depend on the number of cores, and tests
# that run worker processes do not compete with them for cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import functools
import random
import tempfile
import uuid

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings

from envs.vector import pool

# Where a test does not ask for more, one worker serves all environments: starting one takes long.
_CORES = pool.usable_cores()
_CORE = _CORES[int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:]) % len(_CORES)]
pool.usable_cores = functools.wraps(pool.usable_cores)(lambda: [_CORE])

import train
from tests.envs import processes
from tests.programs import SHARED, contents
from training import assemble, evaluation

# The same examples in every run, however long one takes.
settings.register_profile(
    "tests", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("tests")

# What a training does beside learning takes longest, and does not matter here: the speed of the
# environments alone, and pictures of whole episodes.
assemble._LIMIT_STEPS = 2
evaluation._GIF_FRAMES = 4

_ENDING_TAKES_S = 10.0  # At most; no test waits longer than it must.


@pytest.fixture(scope="session", autouse=True)
def engine_record(tmp_path_factory):
    """Engines, and scratch folders of them, are those of this session alone."""
    folder = tmp_path_factory.mktemp("engines")
    os.environ[processes.MARKER] = uuid.uuid4().hex
    # Engines of other programs, which may run at the same time, use the machine's own folder.
    os.environ["TMPDIR"] = tempfile.tempdir = str(folder)
    processes.record_engines(folder)
    yield folder
    _expect_nothing_beyond(set(), folder)


@pytest.fixture(autouse=True)
def _seeded():
    """Random numbers do not depend on which tests ran before."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _leaves_nothing_behind(engine_record):
    """No test leaves behind an engine, a worker, a scratch folder or shared memory."""
    before = processes.leftovers(engine_record)
    yield
    _expect_nothing_beyond(before, engine_record)


def _expect_nothing_beyond(before, engine_record):
    def clean() -> bool:
        return processes.leftovers(engine_record) <= before

    if not processes.wait_until(clean, _ENDING_TAKES_S):
        left = sorted(processes.leftovers(engine_record) - before)
        pytest.fail("left behind:\n" + "\n".join(left))


@pytest.fixture(scope="session")
def doom_run(engine_record, tmp_path_factory):
    """A run of `basic` with a memory, two updates long; tests that change it copy it."""
    yield from _shared_run(tmp_path_factory.mktemp("doom") / "run", "basic", "--memory", "gru")


@pytest.fixture(scope="session")
def cartpole_run(engine_record, tmp_path_factory):
    """A run of CartPole, two updates long; tests that change it copy it."""
    yield from _shared_run(tmp_path_factory.mktemp("cartpole") / "run", "CartPole-v1")


def _shared_run(folder, *arguments):
    assert train.main([*arguments, *SHARED, "--run-dir", str(folder)]) == 0
    before = contents(folder)
    yield folder
    assert contents(folder) == before, f"a test changed {folder}"
