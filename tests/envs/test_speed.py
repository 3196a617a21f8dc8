"""Tests of `envs.speed`."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest

from envs import EnvConfig, SharedVectorEnv
from envs.speed import random_env_steps_per_second
from tests.agents.toy import ACTION_SPACES

COUNTER = "tests.agents.toy:Counter-v0"


@pytest.mark.parametrize("num_groups", [1, 2])
def test_environments_are_stepped_and_can_be_used_afterwards(num_groups):
    envs = SharedVectorEnv(EnvConfig(env=COUNTER), 4, 2, num_groups)
    with contextlib.closing(envs):
        assert random_env_steps_per_second(envs, 20) > 0
        assert not np.array_equal(envs.episode_seeds, range(4))  # Episodes have ended.
        obs, _ = envs.reset(seed=100)
        assert obs.tolist() == [[100, 0], [101, 0], [102, 0], [103, 0]]
        for group in range(num_groups):
            envs.send(group, np.zeros(4 // num_groups, np.int64))
        for group in range(num_groups):
            seen = envs.receive(group).obs["obs"]
            assert seen[:, 1].tolist() == [1] * (4 // num_groups)


@pytest.mark.parametrize("actions", ACTION_SPACES)
def test_every_kind_of_action_is_accepted(actions):
    envs = SharedVectorEnv(EnvConfig(env=f"tests.agents.toy:Identity{actions}-v0"), 2, 1, 2)
    with contextlib.closing(envs):
        assert random_env_steps_per_second(envs, 3) > 0


def test_every_run_takes_the_same_steps():
    """Otherwise environments that keep state across resets would differ afterwards."""
    results = []
    for num_steps in (17, 17, 18):
        envs = SharedVectorEnv(EnvConfig(env=COUNTER), 4, 1, 2)
        with contextlib.closing(envs):
            random_env_steps_per_second(envs, num_steps)
            seen = [envs.current_obs(group)["obs"].tolist() for group in range(2)]
            results.append((envs.episode_seeds.tolist(), seen))
    assert results[0] == results[1] != results[2]
