"""Tests of `agents.reinforce`."""

from __future__ import annotations

import pytest
import torch

from agents import Reinforce, ReinforceConfig
from agents.rollout import minibatches
from tests.agents.synthetic import make_policy, make_rollout


def test_advantages_are_returns_minus_the_baseline():
    policy = make_policy()
    config = ReinforceConfig(gamma=0.9)
    agent = Reinforce(policy, config, num_envs=3, total_updates=1)
    rollout = make_rollout(policy, 20, 3)
    assert rollout.terminated.any()
    assert rollout.truncated.any()
    advantages, returns = agent.estimate(rollout, 2 * rollout.rewards)
    torch.testing.assert_close(advantages, returns - rollout.values)
    # Each return is a sum until the end of its episode or of the rollout.
    for n in range(3):
        for t in range(20):
            expected, weight = 0.0, 1.0
            for k in range(t, 20):
                expected += weight * 2 * float(rollout.rewards[k, n])
                weight *= 0.9
                if rollout.terminated[k, n]:
                    weight = 0.0
                elif rollout.truncated[k, n]:
                    expected += weight * float(rollout.final_values[k, n])
                    weight = 0.0
                if weight == 0.0:
                    break
            expected += weight * float(rollout.last_values[n])
            assert float(returns[t, n]) == pytest.approx(expected, rel=1e-4, abs=1e-4)


def test_the_gradient_is_that_of_the_log_likelihood_times_the_advantage():
    policy = make_policy()
    config = ReinforceConfig(value_coef=0.0, entropy_coef=0.0, normalize_advantages=False)
    agent = Reinforce(policy, config, num_envs=3, total_updates=1)
    rollout = make_rollout(policy, 10, 3)
    advantages, returns = agent.estimate(rollout, rollout.rewards)
    (batch,) = minibatches(rollout, advantages, returns, minibatch_size=30)
    output = policy(batch.obs, batch.memory_state, batch.episode_starts)
    loss, _ = agent.loss(output, batch)
    parameters = list(policy.actor.parameters())
    gradients = torch.autograd.grad(loss, parameters)
    expected = [torch.zeros_like(parameter) for parameter in parameters]
    for t in range(10):
        for n in range(3):
            obs = {"obs": rollout.obs["obs"][t : t + 1, n : n + 1]}
            start = torch.ones(1, 1, dtype=torch.bool)
            distribution = policy(obs, policy.initial_state(1), start).distribution
            logprob = distribution.log_prob(rollout.actions[t : t + 1, n : n + 1]).sum()
            for total, part in zip(expected, torch.autograd.grad(logprob, parameters), strict=True):
                total -= part * advantages[t, n] / 30
    for gradient, total in zip(gradients, expected, strict=True):
        torch.testing.assert_close(gradient, total, rtol=1e-3, atol=1e-6)
