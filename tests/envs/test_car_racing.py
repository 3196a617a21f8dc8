"""Tests of `envs.car_racing` against Gymnasium's own environment."""

from __future__ import annotations

import contextlib
import itertools

import gymnasium as gym
import numpy as np
import pytest

from envs.config import EnvConfig
from envs.registry import make

LEFT, RIGHT, GAS, BRAKE = 1, 2, 3, 4


@contextlib.contextmanager
def racing(**options):
    """Make our environment, with Gymnasium's own image and five actions."""
    as_drawn = {"observation": "rgb", "height": 96, "width": 96}
    env = make(
        EnvConfig(env="CarRacing-v3", env_kwargs=("continuous=False",), **as_drawn, **options)
    )
    with contextlib.closing(env):
        yield env


def assert_same_episode(ours, plain, frame_skip, actions, seed):
    """Check that an episode is that of Gymnasium, whose frames are stepped one by one."""
    observed, _ = ours.reset(seed=seed)
    np.testing.assert_array_equal(observed, plain.reset(seed=seed)[0])
    for number, action in enumerate(actions, 1):
        total = 0.0
        for _ in range(frame_skip):
            expected, paid, terminated, truncated, _ = plain.step(action)
            total += float(paid)
            if terminated or truncated:
                break
        observed, *outcome, _ = ours.step(action)
        np.testing.assert_array_equal(observed, expected)
        assert outcome == [total, terminated, truncated]
        if terminated or truncated:
            return number, terminated
    raise AssertionError("the episode did not end")


@pytest.mark.parametrize("frame_skip", [1, 3])
def test_pixels_rewards_and_ends_are_gymnasiums(frame_skip):
    frames = 100
    with (
        racing(frame_skip=frame_skip, time_limit=frames) as ours,
        gym.make("CarRacing-v3", continuous=False, max_episode_steps=frames) as plain,
    ):
        for seed in (0, 5):  # Two tracks.
            actions = itertools.cycle([GAS, GAS, LEFT, GAS, BRAKE, GAS, RIGHT])
            steps, _ = assert_same_episode(ours, plain, frame_skip, actions, seed)
            assert steps == -(-frames // frame_skip)


def test_leaving_the_field_within_a_step_ends_the_episode():
    with racing(frame_skip=60) as ours, gym.make("CarRacing-v3", continuous=False) as plain:
        _, terminated = assert_same_episode(ours, plain, 60, itertools.repeat(GAS), 0)
        assert terminated


def test_the_time_limit_is_gymnasiums():
    with racing(frame_skip=250) as ours:
        ours.reset(seed=0)
        ends = [ours.step(BRAKE)[2:4] for _ in range(4)]
        assert ends == [(False, False)] * 3 + [(False, True)]
