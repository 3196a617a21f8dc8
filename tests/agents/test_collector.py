"""Tests of `agents.collector`."""

from __future__ import annotations

import contextlib
import inspect
from typing import Any, get_type_hints

import numpy as np
import pytest
import torch

from agents import AGENTS, OverlappedSampler, Sampler
from agents.collector import (
    BatchedEnvs,
    Collector,
    GroupedEnvs,
    StepResult,
    as_numpy,
    as_tensors,
    current_obs,
    is_lost,
)
from agents.sb3 import SB3Sampler
from envs import EnvConfig, SharedVectorEnv, Transition
from envs.sb3 import SharedVecEnv
from perception import VectorSpec
from tests.agents.synthetic import make_policy
from tests.agents.toy import LocalEnvs, Result

COUNTER = "tests.agents.toy:Counter-v0"


def members(protocol):
    """Return the members of a protocol by name: functions, properties, or None for attributes."""
    kinds = [kind for kind in protocol.__mro__ if getattr(kind, "_is_protocol", False)]
    found: dict[str, Any] = {}
    for kind in kinds:
        found |= dict.fromkeys(get_type_hints(kind))
        found |= {name: each for name, each in vars(kind).items() if not name.startswith("_")}
    return found


def assert_satisfies(instance, protocol):
    """Check that an object has all members of a protocol, and methods with fitting parameters."""
    expected = members(protocol)
    assert expected
    for name, member in expected.items():
        assert hasattr(instance, name), name
        if inspect.isfunction(member):
            needed = list(inspect.signature(member).parameters.values())[1:]  # Without `self`.
            taken = dict(inspect.signature(getattr(instance, name)).parameters)
            for parameter in needed:
                assert parameter.name in taken, f"{name}({parameter.name})"
                other = taken.pop(parameter.name)
                assert other.kind == parameter.kind, f"{name}({parameter.name})"
                assert parameter.default in (other.default, parameter.empty)
            assert all(other.default is not other.empty for other in taken.values()), name


@contextlib.contextmanager
def open_collectors():
    """Yield one collector of each kind, by name."""
    config = EnvConfig(env=COUNTER)
    with contextlib.ExitStack() as stack:
        policy = make_policy(specs={"obs": VectorSpec(size=2)})
        envs = stack.enter_context(contextlib.closing(SharedVectorEnv(config, 2, 1)))
        config_type, agent_type = AGENTS["sb3-ppo"]
        config = config_type(rollout_length=4, minibatch_size=8)
        agent = agent_type(policy, config, num_envs=2, total_updates=1)
        samplers = [
            Sampler(LocalEnvs(COUNTER, 2), policy, rollout_length=4, seed=0, num_buffers=2)
            for _ in range(2)
        ]
        collectors = {
            "Sampler": samplers[0],
            "OverlappedSampler": OverlappedSampler(samplers[1]),
            "SB3Sampler": SB3Sampler(envs, SharedVecEnv(envs), agent, seed=0),
        }
        for collector in collectors.values():
            stack.enter_context(contextlib.closing(collector))
        yield collectors


def test_collectors_have_one_interface():
    with open_collectors() as collectors:
        for collector in collectors.values():
            assert_satisfies(collector, Collector)
            collected = collector.collect(7)
            assert collected.version == 7
            assert collected.rollout.rewards.shape == (4, 2)
            state = collector.state()
            if not isinstance(collector, OverlappedSampler):
                assert "episode_seeds" in state
            assert sum(collector.stopwatch.seconds.values()) > 0


@pytest.mark.parametrize("protocol", [BatchedEnvs, GroupedEnvs])
def test_the_vector_environment_has_the_interface_that_samplers_need(protocol):
    with contextlib.closing(SharedVectorEnv(EnvConfig(env="CartPole-v1"), 2, 1)) as envs:
        assert_satisfies(envs, protocol)


def test_the_toy_environments_of_the_tests_have_it_too():
    assert_satisfies(LocalEnvs(COUNTER, 2), BatchedEnvs)


@pytest.mark.parametrize("result", [Transition, Result])
def test_results_of_steps_have_the_fields_of_the_protocol(result):
    assert members(StepResult).keys() == set(result._fields)


class Incomplete:
    stopwatch = None

    def collect(self, version):
        raise NotImplementedError


def test_an_incomplete_collector_is_noticed():
    """A positive control of the check above."""
    with pytest.raises(AssertionError):
        assert_satisfies(Incomplete(), Collector)


def test_arrays_become_tensors_of_the_same_memory_and_back():
    array = np.arange(6.0).reshape(2, 3)
    tensor = as_tensors({"obs": array}, torch.device("cpu"))["obs"]
    assert tensor.data_ptr() == array.ctypes.data
    assert as_tensors({"obs": tensor}, torch.device("cpu"))["obs"] is tensor
    assert as_numpy(array) is array
    np.testing.assert_array_equal(as_numpy(tensor), array)
    assert as_tensors({"obs": array}, torch.device("meta"))["obs"].device.type == "meta"


@pytest.mark.parametrize("as_array", [np.asarray, torch.from_numpy], ids=["arrays", "tensors"])
def test_current_observations_of_all_groups_are_joined(as_array):
    envs = LocalEnvs(COUNTER, 4, 2, as_array=as_array)
    envs.reset(seed=10)
    obs = current_obs(envs)["obs"]
    assert obs.tolist() == [[10, 0], [11, 0], [12, 0], [13, 0]]
    assert obs.dtype == torch.float32


def test_an_episode_without_statistics_is_lost():
    nothing = np.zeros(2)
    episode = np.array([[np.nan, np.nan], [1.0, 2.0]])
    result = Result({}, nothing, nothing, nothing, {}, episode)
    assert is_lost(result, 0)
    assert not is_lost(result, 1)
