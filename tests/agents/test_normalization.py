"""Tests of `agents.normalization`."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from agents.normalization import RewardScaler


def test_statistics_are_saved():
    assert set(RewardScaler(3, 0.9).state_dict()) == {"mean", "variance", "count", "running"}


def test_discounted_returns_run_over_rollouts_and_start_anew_after_an_end():
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
    envs = VecNormalize(
        DummyVecEnv([lambda: gym.make("CartPole-v1")] * 4), norm_obs=False, gamma=0.97
    )
    envs.reset()
    for reward, done in zip(rewards, dones, strict=True):
        envs._update_reward(reward)
        envs.returns[done] = 0
    assert float(scaler.variance) == pytest.approx(float(envs.ret_rms.var), rel=1e-4)
