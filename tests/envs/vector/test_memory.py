"""Tests of `envs.vector.memory`: the memory that a vector environment and its workers share."""

import os

import numpy as np
import pytest

from envs import EnvConfig, make
from envs.spaces import observation_parts
from envs.vector.memory import create_memory, map_arrays, numeric_keys

N = 3


@pytest.fixture(params=[{}, {"variables": True}, {"env": "CartPole-v1"}])
def example(request):
    env = make(EnvConfig(**request.param))
    yield env
    env.close()


def test_arrays_have_the_shapes_and_types_of_the_environment(example):
    memory = create_memory(example, N)
    arrays = map_arrays(memory, example, N)
    os.close(memory)
    parts = observation_parts(example.observation_space)
    for views in (arrays.obs, arrays.final_obs):
        assert {k: (v.shape, v.dtype) for k, v in views.items()} == {
            k: ((N, *part.shape), part.dtype) for k, part in parts.items()
        }
    info_keys, episode_keys = numeric_keys(example)
    assert arrays.actions.shape == (N, *example.action_space.shape)
    assert arrays.actions.dtype == example.action_space.dtype
    assert arrays.info.shape == arrays.final_info.shape == (N, len(info_keys))
    assert arrays.episode.shape == (N, len(episode_keys))
    assert arrays.rewards.dtype == np.float64
    assert not arrays.rewards.any()
    assert not arrays.obs[next(iter(parts))].any()


def test_arrays_do_not_overlap(example):
    memory = create_memory(example, N)
    arrays = map_arrays(memory, example, N)
    os.close(memory)
    every = [*arrays.obs.values(), *arrays.final_obs.values()]
    every += [value for value in vars(arrays).values() if isinstance(value, np.ndarray)]
    for value, array in enumerate(every):
        array[...] = value % 2
    for value, array in enumerate(every):
        assert (array == value % 2).all()
        assert array.ctypes.data % 64 == 0


def test_two_mappings_share_their_memory(example):
    memory = create_memory(example, N)
    ours, theirs = (map_arrays(memory, example, N) for _ in range(2))
    os.close(memory)
    ours.rewards[:] = [1.5, 2.5, 3.5]
    ours.seeds[1] = 2**62
    assert theirs.rewards.tolist() == [1.5, 2.5, 3.5]
    assert theirs.seeds.tolist() == [0, 2**62, 0]


def test_the_memory_has_no_name_in_the_file_system(example):
    memory = create_memory(example, N)
    try:
        assert not os.path.exists(os.readlink(f"/proc/self/fd/{memory}"))
    finally:
        os.close(memory)
