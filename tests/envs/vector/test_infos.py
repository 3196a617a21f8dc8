"""Tests of `envs.vector.infos`."""

import os

import numpy as np
import pytest

from envs import EnvConfig, make
from envs.vector.infos import current_infos, final_infos
from envs.vector.memory import create_memory, map_arrays

INFO_KEYS, EPISODE_KEYS = (), ("r", "l")


@pytest.fixture
def arrays():
    """The arrays of three CartPoles."""
    example = make(EnvConfig(env="CartPole-v1"))
    memory = create_memory(example, 3)
    yield map_arrays(memory, example, 3)
    os.close(memory)
    example.close()


def test_nothing_is_final_if_no_episode_ended(arrays):
    assert final_infos(arrays, INFO_KEYS, EPISODE_KEYS) == {}


def test_ended_episodes_have_their_last_observation_and_statistics(arrays):
    arrays.terminated[1] = arrays.truncated[2] = True
    arrays.final_obs["obs"][:] = np.arange(12).reshape(3, 4)
    arrays.episode[:] = [[1, 2], [3, 4], [5, 6]]
    infos = final_infos(arrays, INFO_KEYS, EPISODE_KEYS)
    arrays.final_obs["obs"][:] = arrays.episode[:] = 0  # What was returned are copies.
    assert infos["final_obs"][0] is None
    assert infos["final_obs"][2].tolist() == [8, 9, 10, 11]
    assert infos["final_info"]["episode"]["r"].tolist() == [1, 3, 5]
    masks = (infos["_final_obs"], infos["_final_info"], infos["final_info"]["episode"]["_l"])
    assert [mask.tolist() for mask in masks] == [[False, True, True]] * 3


def test_current_infos_are_valid_everywhere():
    example = make(EnvConfig(env="basic"))
    memory = create_memory(example, 2)
    arrays = map_arrays(memory, example, 2)
    os.close(memory)
    health = example.info_keys.index("HEALTH")
    arrays.info[:, health] = 100, 40
    infos = current_infos(arrays, example.info_keys)
    assert infos["HEALTH"].tolist() == [100, 40]
    assert infos["_HEALTH"].tolist() == [True, True]
    assert len(infos) == 2 * len(example.info_keys)
    example.close()
