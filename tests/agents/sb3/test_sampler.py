"""Tests of `agents.sb3.sampler`."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from agents import SB3_AGENTS
from agents.sb3.sampler import _LearnedRewards
from agents.stopwatch import Stopwatch
from envs import EnvConfig, SharedVectorEnv
from envs.sb3 import SharedVecEnv
from tests.agents.sb3.training import COUNTER, NUM_ENVS, STEPS, assert_reproduced, open_training
from tests.agents.synthetic import assert_same, assert_same_episodes
from tests.agents.toy import counter_length


@pytest.mark.parametrize("name", SB3_AGENTS)
def test_rollouts_and_episodes_are_right(name):
    with open_training(name, reward_scale=0.1) as (agent, sampler):
        episodes = []
        for _ in range(3):
            collected = sampler.collect()
            rollout = collected.rollout
            episodes += collected.episodes
            assert_reproduced(agent, rollout, rtol=1e-3, atol=1e-3)
            # Rewards are native, and not scaled for learning.
            expected = 10 * rollout.obs["obs"][..., 1] + rollout.actions
            assert torch.equal(rollout.rewards, expected)
            assert rollout.first_not_finite() is None
            assert rollout.last_obs is None
            agent.update(rollout)
        assert len(episodes) > 10
        for episode in episodes:
            arrays = episode.arrays()
            length = counter_length(episode.seed)
            assert episode.terminated == (episode.seed % 2 == 0)
            assert len(arrays["actions"]) == episode.statistics["l"] == length
            returned = arrays["rewards"].sum()
            assert returned == 10 * sum(range(length)) + arrays["actions"].sum()
            assert episode.statistics["r"] == pytest.approx(returned)
        assert len({episode.seed for episode in episodes}) == len(episodes)
        assert collected.next_episode_seed > max(episode.seed for episode in episodes)
    shares = sampler.stopwatch.shares()
    assert shares.keys() == {"environments", "inference"}
    assert min(shares.values()) > 0


@pytest.mark.parametrize(
    ("name", "actions"),
    [
        # RecurrentPPO of sb3-contrib 2.9.2 raises if actions are MultiBinary.
        *(("sb3-ppo", actions) for actions in ("MultiDiscrete", "MultiBinary", "Box")),
        *(("sb3-recurrent-ppo", actions) for actions in ("MultiDiscrete", "Box")),
        ("sb3-a2c", "Box"),
    ],
)
def test_actions_of_every_kind_are_stored(name, actions):
    config = EnvConfig(env=f"tests.agents.toy:Identity{actions}-v0")
    with open_training(name, config, normalize_obs=True) as (agent, sampler):
        for _ in range(2):
            rollout = sampler.collect().rollout
            shape = agent.policy.action_space.shape
            assert rollout.actions.shape == (STEPS, NUM_ENVS, *shape)
            assert_reproduced(agent, rollout)
            metrics = agent.update(rollout)
        assert metrics["explained_variance"] <= 1
        assert "value_loss" in metrics


@pytest.mark.parametrize("name", SB3_AGENTS)
def test_a_sampler_resumes_from_the_state_of_another(name):
    with (
        open_training(name) as (_, whole),
        open_training(name, seed=777) as (_, resumed),
    ):
        whole.collect()
        state = {key: part.clone() for key, part in whole.state().items()}
        generator = torch.get_rng_state()
        expected = whole.collect()
        expected_state = whole.state()
        assert resumed.load_state(state) == 0
        torch.set_rng_state(generator)  # Not part of the sampler, whose state it is not.
        collected = resumed.collect()
        assert_same(collected.rollout.tensors(), expected.rollout.tensors())
        assert_same_episodes(collected.episodes, expected.episodes)
        assert collected.next_episode_seed == expected.next_episode_seed
        assert_same(resumed.state(), expected_state)


def test_episodes_that_cannot_be_restored_are_replaced_by_the_next_ones():
    with open_training("sb3-recurrent-ppo") as (_, sampler):
        sampler.collect()
        state = {key: part.clone() for key, part in sampler.state().items()}
        seeds = state["episode_seeds"].tolist()
        state["obs/obs"][2] += 1
        assert sampler.load_state(state) == 1
        seeds[2] += NUM_ENVS
        assert sampler.envs.episode_seeds.tolist() == seeds
        rollout = sampler.collect().rollout
        assert rollout.episode_starts[0, 2]
        assert rollout.obs["obs"][0, 2].tolist() == [seeds[2], 0]


class AgentElsewhere:
    """Scales rewards on a device without memory, where an agent on a GPU would use the GPU."""

    policy = SimpleNamespace(device=torch.device("meta"))

    def scale(self, rewards, dones):
        assert rewards.device == dones.device == self.policy.device
        assert (rewards.shape, rewards.dtype) == ((1, NUM_ENVS), torch.float32)
        assert (dones.shape, dones.dtype) == ((1, NUM_ENVS), torch.bool)
        # A tensor on `meta` has no numbers to copy to the CPU; these take their place.
        return [SimpleNamespace(cpu=lambda: torch.full((NUM_ENVS,), 0.5))]


def test_rewards_are_scaled_on_the_device_of_the_policy():
    with contextlib.closing(SharedVectorEnv(COUNTER, NUM_ENVS, 1)) as envs:
        vec_env = _LearnedRewards(SharedVecEnv(envs), AgentElsewhere(), Stopwatch())
        vec_env.reset()
        _, learned, dones, _ = vec_env.step(np.zeros(NUM_ENVS, np.int64))
        assert isinstance(learned, np.ndarray)
        assert learned.tolist() == [0.5] * NUM_ENVS
        learned += 1.0  # SB3 adds bootstrapped values to the array, which must be a copy.
        assert vec_env.native.tolist() == [0.0] * NUM_ENVS
        assert not dones.any()
