"""Tests of `agents.gradients` that need no GPU; `test_cuda.py` has those with a real CUDA graph."""

from __future__ import annotations

import pytest
import torch
from gymnasium import spaces

from agents import OUR_AGENTS, build_policy
from tests.agents.synthetic import IMAGE, make_rollout, small_config

STEPS, NUM_ENVS = 6, 4


class Recomputed:
    """What a CUDA graph does, without one: each replay overwrites the tensors of the first run."""

    def __init__(self, function):
        self.function = function
        self.gradients, self.metrics = self.result = function()

    def replay(self):
        gradients, metrics = self.function()
        for mine, new in zip(self.gradients, gradients, strict=True):
            mine.copy_(new)
        for name, mine in self.metrics.items():
            mine.copy_(metrics[name])


@pytest.mark.parametrize("name", OUR_AGENTS)
@pytest.mark.parametrize("memory", ["none", "gru"])
def test_replays_read_new_minibatches_and_weights(monkeypatch, name, memory):
    graphs = []

    def captured(function):
        graphs.append(Recomputed(function))
        return graphs[-1], graphs[-1].result

    monkeypatch.setattr("agents.gradients.captured", captured)
    kind, learner = OUR_AGENTS[name]
    # Minibatches of two sizes.
    options = {"num_epochs": 2, "minibatch_size": 18} if name == "ppo" else {}
    learned = []
    for graphed in (False, True):
        torch.manual_seed(0)
        policy = build_policy({"screen": IMAGE}, spaces.Discrete(3), small_config(memory=memory))
        agent = learner(policy, kind(**options), num_envs=NUM_ENVS, total_updates=4)
        agent._num_parts = 1
        if graphed:
            agent.capture_gradients()
        rollouts = [make_rollout(policy, STEPS, NUM_ENVS, noise=0.1) for _ in range(3)]
        learned.append([*[agent.update(each) for each in rollouts], policy.state_dict()])
    *eager, weights = learned[0]
    *replayed, others = learned[1]
    for metrics, expected in zip(replayed, eager, strict=True):
        assert metrics == pytest.approx(expected, rel=1e-4, abs=1e-6)
    for key, tensor in weights.items():
        torch.testing.assert_close(others[key], tensor, msg=key)
    assert len(graphs) == 1 + (name == "ppo")
