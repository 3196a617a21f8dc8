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
def test_worlds_are_stepped_and_can_be_used_afterwards(num_groups):
    envs = SharedVectorEnv(EnvConfig(env=COUNTER), 4, 2, num_groups)
    with contextlib.closing(envs):
        assert random_env_steps_per_second(envs, 20) > 0
        assert not np.array_equal(envs.episode_seeds, range(4))  # Episodes have gone by.
        obs, _ = envs.reset(seed=100)
        assert obs.tolist() == [[100, 0], [101, 0], [102, 0], [103, 0]]
        for group in range(num_groups):
            envs.send(group, np.zeros(4 // num_groups, np.int64))
        for group in range(num_groups):
            seen = envs.receive(group).obs["obs"]
            assert seen[:, 1].tolist() == [1] * (4 // num_groups)


@pytest.mark.parametrize("actions", ACTION_SPACES)
def test_every_kind_of_action_is_taken(actions):
    envs = SharedVectorEnv(EnvConfig(env=f"tests.agents.toy:Identity{actions}-v0"), 2, 1, 2)
    with contextlib.closing(envs):
        assert random_env_steps_per_second(envs, 3) > 0


@pytest.mark.parametrize("num_groups", [1, 2])
def test_every_run_plays_the_same(num_groups):
    """Environments that do not forget what they did before a reset have then done the same."""
    played = []
    for _ in range(2):
        envs = SharedVectorEnv(EnvConfig(env=COUNTER), 4, 2, num_groups)
        with contextlib.closing(envs):
            random_env_steps_per_second(envs, 17)
            seen = [envs.current_obs(group)["obs"].copy() for group in range(num_groups)]
            played.append((envs.episode_seeds.tolist(), np.concatenate(seen).tolist()))
    assert played[0] == played[1]
    with contextlib.closing(SharedVectorEnv(EnvConfig(env=COUNTER), 4, 2, num_groups)) as envs:
        random_env_steps_per_second(envs, 18)
        assert not np.array_equal(envs.current_obs(0)["obs"], played[0][1][: 4 // num_groups])
