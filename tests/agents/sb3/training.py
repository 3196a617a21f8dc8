"""Environments, an agent of Stable-Baselines3 and its sampler, for the tests of both."""

from __future__ import annotations

import contextlib

import torch

from agents import AGENTS, Policy, observation_specs
from agents.sb3 import SB3Sampler
from envs import EnvConfig, SharedVectorEnv
from envs.sb3 import SharedVecEnv
from tests.agents.synthetic import small_config

STEPS, NUM_ENVS, SEED = 11, 4, 100
OPTIONS = {"sb3-ppo": {"minibatch_size": 22}, "sb3-recurrent-ppo": {"minibatch_size": 22}}
COUNTER = EnvConfig(env="tests.agents.toy:Counter-v0")


@contextlib.contextmanager
def open_training(name, config=COUNTER, *, seed=SEED, **options):
    """Yield an agent of Stable-Baselines3 and its sampler."""
    kind, learner = AGENTS[name]
    torch.manual_seed(0)
    with contextlib.closing(SharedVectorEnv(config, NUM_ENVS, 1)) as envs:
        policy = Policy(
            observation_specs(envs.single_observation_space, envs.metadata),
            envs.single_action_space,
            small_config(memory=learner.memory),
            options.get("normalize_obs", False),
        )
        agent = learner(
            policy,
            kind(rollout_length=STEPS, **OPTIONS.get(name, {}) | options),
            num_envs=NUM_ENVS,
            total_updates=10,
        )
        yield agent, SB3Sampler(envs, SharedVecEnv(envs), agent, seed=seed)


def assert_reproduced(agent, rollout, *, rtol=1e-4, atol=1e-5):
    """Check that our policy and our GAE compute the same as SB3 did while it collected."""
    with torch.no_grad():
        output = agent.policy(rollout.obs, rollout.memory_state, rollout.episode_starts)
    advantages, returns = agent.estimate(rollout, agent.scale(rollout.rewards, rollout.dones))
    buffer = agent.model.rollout_buffer
    for ours, theirs in (
        (output.distribution.log_prob(rollout.actions), rollout.logprobs),
        (output.values, rollout.values),
        (output.distribution.probabilities(), rollout.probabilities),
        (advantages, torch.from_numpy(buffer.advantages)),
        (returns, torch.from_numpy(buffer.returns)),
    ):
        torch.testing.assert_close(ours, theirs, rtol=rtol, atol=atol)
