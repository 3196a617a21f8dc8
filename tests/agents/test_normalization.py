"""Tests of `agents.normalization`."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from agents.normalization import RewardScaler


def vec_normalize(gamma):
    """Return Stable-Baselines3's wrapper of four environments, with its default of clipping."""
    envs = DummyVecEnv([lambda: gym.make("CartPole-v1")] * 4)
    normalizing = VecNormalize(envs, norm_obs=False, gamma=gamma)
    normalizing.reset()
    return normalizing


def test_statistics_are_saved():
    assert set(RewardScaler(3, 0.9).state_dict()) == {"mean", "variance", "count", "running"}


def test_discounted_returns_continue_over_rollouts_and_restart_after_an_end():
    # gamma 0.5; rewards 4 2 | 8, 6 with an end after the second step:
    # running returns 4, 2 + 0.5 * 4 = 4, then 8, 6 + 0.5 * 8 = 10.
    scaler = RewardScaler(1, 0.5)
    scaler(torch.tensor([[4.0], [2.0]]), torch.tensor([[False], [True]]))
    assert scaler.running.tolist() == [0.0]
    scaler(torch.tensor([[8.0]]), torch.tensor([[False]]))
    assert scaler.running.tolist() == [8.0]
    scaled = scaler(torch.tensor([[6.0]]), torch.tensor([[False]]))
    assert scaler.running.tolist() == [10.0]
    deviation = np.std([4.0, 4.0, 8.0, 10.0])
    assert float(scaled) == pytest.approx(6.0 / deviation, rel=1e-6)


def test_the_deviation_equals_that_of_stable_baselines3():
    rng = np.random.default_rng(0)
    rewards = rng.normal(3.0, 2.0, (200, 4)).astype(np.float32)
    dones = rng.random((200, 4)) < 0.1
    scaler = RewardScaler(4, 0.97)
    for start in range(0, 200, 50):
        part = slice(start, start + 50)
        scaler(torch.from_numpy(rewards[part]), torch.from_numpy(dones[part]))
    envs = vec_normalize(0.97)
    for reward, done in zip(rewards, dones, strict=True):
        envs._update_reward(reward)
        envs.returns[done] = 0
    assert float(scaler.variance) == pytest.approx(float(envs.ret_rms.var), rel=1e-4)


@pytest.mark.parametrize("silence", [0, 100])
def test_rewards_are_scaled_and_clipped_as_stable_baselines3_does(silence):
    """The first rewards after many without any are clipped, as returns have hardly varied."""
    rng = np.random.default_rng(0)
    rewards = ((rng.random((300, 4)) < 0.05) * rng.normal(0.5, 1.0, (300, 4))).astype(np.float32)
    rewards[:silence] = 0.0
    rewards[silence] = [1.0, 0.0, -1.0, 0.0]
    dones = rng.random((300, 4)) < 0.02
    scaler, envs = RewardScaler(4, 0.99), vec_normalize(0.99)
    scaled = []
    for reward, done in zip(rewards, dones, strict=True):
        # A step at a time, because SB3 updates its statistics with every step.
        ours = scaler(torch.from_numpy(reward)[None], torch.from_numpy(done)[None])[0]
        envs._update_reward(reward)
        theirs = envs.normalize_reward(reward)
        envs.returns[done] = 0
        np.testing.assert_allclose(ours.numpy(), theirs, rtol=1e-3)
        scaled.append(ours)
    clipped = torch.stack(scaled).abs() == 10.0
    assert clipped.any() == (silence > 0)
    assert not clipped.all()


@pytest.mark.parametrize("num_envs", [1, 8, 16])
def test_the_first_reward_after_a_rollout_without_any_is_clipped(num_envs):
    scaler, never = RewardScaler(num_envs, 0.99), torch.zeros(128, num_envs, dtype=torch.bool)
    rewards = torch.zeros(128, num_envs)
    assert not scaler(rewards, never).any()
    rewards[-1, 0] = 1.0
    scaled = scaler(rewards, never)
    assert float(scaled[-1, 0]) == 10.0
    assert int(scaled.count_nonzero()) == 1
