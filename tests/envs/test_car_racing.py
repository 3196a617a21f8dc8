"""Tests of `envs.car_racing` against Gymnasium's own environment."""

from __future__ import annotations

import contextlib
import copy
import itertools

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.error import InvalidAction

from envs.config import EnvConfig
from envs.errors import EnvError
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


def test_an_early_end_shows_the_score_that_gymnasium_shows():
    """It draws a frame before it pays for it, which changes the rounded score in some frames."""
    with racing(frame_skip=2, time_limit=33) as ours:
        car, drawn = ours.unwrapped, []
        car.reset(seed=0)
        draw = car._render_indicators
        car._render_indicators = lambda *size: (drawn.append(car.reward), draw(*size))
        for _ in range(16):
            car.step(GAS)
        before = car.reward
        _, reward, _, truncated, _ = car.step(GAS)
        assert truncated
        assert drawn[-1] == pytest.approx(before + reward + 0.1)  # A frame costs 0.1.
        assert car.reward == pytest.approx(before + reward)


def test_a_refused_action_and_a_copy_change_nothing():
    with racing(frame_skip=4) as ours, racing(frame_skip=4) as other:
        ours.reset(seed=3)
        with pytest.raises(InvalidAction):
            ours.unwrapped.step(99)
        other.reset(seed=4)
        np.testing.assert_array_equal(ours.reset(seed=4)[0], other.unwrapped.state)
        copied = copy.deepcopy(ours.unwrapped)
        np.testing.assert_array_equal(copied.reset(seed=4)[0], other.unwrapped.state)
        copied.close()


@pytest.mark.parametrize("name", ["frame_skip", "time_limit"])
def test_what_has_a_flag_is_not_an_argument(name):
    config = EnvConfig(env="CarRacing-v3", env_kwargs=(f"{name}=9",))
    with pytest.raises(EnvError, match=f"CarRacing-v3 has no argument {name}; use --"):
        make(config)


def test_wrappers_see_every_frame():
    config = EnvConfig(env="CarRacing-v3", frame_skip=4, wrappers=(f"{__name__}:Counting",))
    with contextlib.closing(make(config)) as env:
        env.reset(seed=0)
        env.step(env.action_space.sample())
        assert env.get_wrapper_attr("frames") == 4


class Counting(gym.Wrapper):
    """Counts what it sees."""

    frames = 0

    def step(self, action):
        """Step, and count."""
        self.frames += 1
        return self.env.step(action)


def test_the_time_limit_is_gymnasiums():
    with racing(frame_skip=250) as ours:
        ours.reset(seed=0)
        ends = [ours.step(BRAKE)[2:4] for _ in range(4)]
        assert ends == [(False, False)] * 3 + [(False, True)]
