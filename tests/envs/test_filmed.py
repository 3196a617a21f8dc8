"""Tests of `envs.filmed`."""

import contextlib

import numpy as np

from envs import EnvConfig, SharedVectorEnv
from envs.filmed import FilmedEnv

CARTPOLE = EnvConfig(env="CartPole-v1")


def test_has_the_interface_and_episodes_of_a_vector_environment_of_one():
    with (
        contextlib.closing(FilmedEnv(CARTPOLE, (60, 40))) as filmed,
        contextlib.closing(SharedVectorEnv(CARTPOLE, 1)) as shared,
    ):
        assert filmed.episode_keys == shared.episode_keys
        for env in (filmed, shared):
            env.reset(seed=3)
        ended = False
        while not ended:
            assert filmed.episode_seeds == shared.episode_seeds == [3]
            np.testing.assert_array_equal(
                filmed.current_obs(0)["obs"], shared.current_obs(0)["obs"]
            )
            for env in (filmed, shared):
                env.send(0, np.array([1]))
            one, other = filmed.receive(0), shared.receive(0)
            ended = bool(other.terminated[0])
            for name in ("rewards", "terminated", "truncated"):
                np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
        np.testing.assert_array_equal(one.episode[:, :2], other.episode[:, :2])


def test_there_is_a_picture_of_every_env_step():
    with contextlib.closing(
        FilmedEnv(EnvConfig(env="tests.agents.toy:Chancy-v0"), (32, 24))
    ) as env:
        for seed in (0, 1):
            env.reset(seed=seed)
            for _ in range(6):
                env.send(0, np.array([0]))
                env.receive(0)
    images = list(env.film())
    assert {image.shape for image in images} == {(24, 32, 3)}
    assert [round(image.mean() / 40) for image in images] == list(range(7))
