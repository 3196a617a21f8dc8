"""What a rollout costs, counted instead of timed: messages, copies and memory."""

from __future__ import annotations

import contextlib
import gc
import pickle
import tracemalloc

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from agents import Sampler, observation_specs
from envs import EnvConfig, SharedVectorEnv
from tests.agents.synthetic import make_policy

STEPS, NUM_ENVS, NUM_WORKERS, NUM_GROUPS = 8, 4, 2, 2
# Images; episodes end after 18 env steps, in the middle of rollouts.
CONFIG = EnvConfig(env="tests.envs.toy:Lives-v0", height=40, width=36)
# Half the bytes that one number kept in every step of a group, 320 of them, would take.
SMALL_CHANGE = 5120


@pytest.fixture
def envs():
    with contextlib.closing(SharedVectorEnv(CONFIG, NUM_ENVS, NUM_WORKERS, NUM_GROUPS)) as envs:
        yield envs


@pytest.fixture
def sampler(envs):
    specs = observation_specs(envs.single_observation_space, envs.metadata)
    policy = make_policy(specs=specs, actions=envs.single_action_space, memory="lstm")
    return Sampler(envs, policy, rollout_length=STEPS, seed=0)


def tensors_of(rollout):
    """Return a rollout's tensors of T steps by name; those of its end are new each time."""
    tensors = rollout.tensors().items()
    return {name: part for name, part in tensors if not name.startswith(("last_", "final_"))}


class CountingSocket:
    """A socket that records the length of every message that passes through it."""

    def __init__(self, connection):
        self._connection = connection
        self.sent, self.received = [], []

    def sendall(self, data):
        self.sent.append(len(data))
        self._connection.sendall(data)

    def recv(self, *args):
        data = self._connection.recv(*args)
        self.received.append(len(data))
        return data

    def fileno(self):
        return self._connection.fileno()

    def close(self):
        self._connection.close()


@pytest.mark.parametrize("how", ["collect", "step"])
def test_a_step_of_a_group_is_one_message_to_each_worker_and_one_back(
    envs, sampler, how, monkeypatch
):
    sockets = []
    for worker in envs._workers:
        sockets.append(CountingSocket(worker.connection))
        worker.connection = sockets[-1]

    def refuse(*args, **kwargs):
        raise AssertionError("pickled")

    for name in ("dump", "dumps", "load", "loads"):
        monkeypatch.setattr(pickle, name, refuse)
    if how == "collect":
        sampler.collect()
    else:
        for _ in range(STEPS):
            envs.step(np.zeros(NUM_ENVS, int))
    for connection in sockets:
        # Every worker holds environments of every group.
        assert connection.sent == [2] * (STEPS * NUM_GROUPS)
        assert connection.received == [2] * (STEPS * NUM_GROUPS)


class Reads(TorchDispatchMode):
    """Records every operation that reads from some memory, as (name, destination, bytes)."""

    def __init__(self, arrays):
        super().__init__()
        self._spans = [(a.ctypes.data, a.ctypes.data + a.nbytes) for a in arrays]
        self.noted = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for value in tree_leaves((args, kwargs)):
            # An operation that returns a view of the memory has not read it.
            if self._holds(value) and not self._holds(result):
                self.noted.append((func.name(), result.data_ptr(), value.nbytes))
        return result

    def _holds(self, value):
        if not isinstance(value, torch.Tensor):
            return False
        return any(start <= value.data_ptr() < end for start, end in self._spans)


def test_a_frame_is_copied_once_from_shared_memory_into_the_rollout(envs, sampler):
    reads = Reads(envs._arrays.obs.values())
    with reads:
        rollout = sampler.collect().rollout
    (storage,) = rollout.obs.values()
    batch = storage[0, 0].nbytes * NUM_ENVS // NUM_GROUPS  # Bytes of a group's frames.
    places = range(storage.data_ptr(), storage.data_ptr() + storage.nbytes, batch)
    assert len(places) == STEPS * NUM_GROUPS
    # The frames after the last step, from which values are bootstrapped, are read once more; those
    # before the first step are kept, to return to them if the rollout is interrupted.
    copies = [operation for operation in reads.noted if operation[0] != "aten::cat"]
    assert len(reads.noted) == len(copies) + 2 * NUM_GROUPS
    assert sorted(copies) == [("aten::copy_", place, batch) for place in places]


@pytest.mark.slow
def test_a_rollout_reuses_its_memory(sampler):
    def collect():
        ended = 0
        for _ in range(20):
            rollout, episodes, *_ = sampler.collect()
            ended += len(episodes)
        gc.collect()
        addresses = {name: part.data_ptr() for name, part in tensors_of(rollout).items()}
        tensors = sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())
        return ended, addresses, tensors

    tracemalloc.start()
    try:
        _, *expected = collect()
        # Caches of Python and torch fill up; memory that every step leaves behind keeps growing.
        for _ in range(10):
            before, _ = tracemalloc.get_traced_memory()
            ended, *held = collect()
            growth = tracemalloc.get_traced_memory()[0] - before
            if growth < SMALL_CHANGE:
                break
    finally:
        tracemalloc.stop()
    assert ended
    assert held == expected
    assert growth < SMALL_CHANGE
