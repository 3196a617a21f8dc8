"""The same agents on a GPU: `make test-gpu` on a machine that has one."""

import pytest
import torch

from agents import AGENTS, Policy, Sampler, observation_specs
from perception import EncoderConfig, PerceptionConfig
from tests.agents.toy import LocalEnvs


@pytest.mark.gpu
@pytest.mark.parametrize("memory", ["none", "lstm", "gru"])
@pytest.mark.parametrize("agent", sorted(AGENTS))
def test_an_update_on_cuda_changes_the_policy(agent, memory):
    torch.manual_seed(0)
    kind, learner = AGENTS[agent]
    config = kind(rollout_length=16, normalize_obs=True, normalize_returns=True)
    envs = LocalEnvs("CartPole-v1", 4)
    specs = observation_specs(envs.single_observation_space, {})
    perception = PerceptionConfig(memory=memory, layers=EncoderConfig(hidden_sizes=(16,)))
    policy = Policy(specs, envs.single_action_space, perception, normalize_obs=True).cuda()
    before = [parameter.clone() for parameter in policy.parameters()]
    sampler = Sampler(envs, policy, rollout_length=config.rollout_length, seed=0)
    learning = learner(policy, config, num_envs=4, total_updates=2)
    metrics = [learning.update(sampler.collect().rollout) for _ in range(2)]
    assert all(value == value for value in metrics[-1].values())
    assert any((a != b).any() for a, b in zip(before, policy.parameters(), strict=True))
    assert {parameter.device.type for parameter in policy.parameters()} == {"cuda"}
