"""Saved policies, and agents to be saved, for tests of what is on disk."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from agents import AGENTS
from storage.files import FileError
from storage.policy_file import About, load_policy, save_policy
from tests.agents.synthetic import make_policy, make_rollout

ENV = {"env": "basic", "height": 60}
ABOUT = About(agent="ppo", seed=3, env_steps=1000)


def save(path, policy, *, env=ENV, about=ABOUT):
    """Save a policy, and return the path."""
    save_policy(path, policy, env=env, about=about)
    return path


def refused(path, *words, load=load_policy):
    """Check that a file is refused in one line that names it, and return the line."""
    with pytest.raises(FileError) as error:
        load(path)
    message = str(error.value)
    assert "\n" not in message
    assert str(path) in message
    for word in words:
        assert word in message
    return message


def make_agent(name="ppo", *, memory="lstm", seed=0, **parts):
    """Return an agent with all kinds of state: normalisers, schedules, an optimiser."""
    kind, agent = AGENTS[name]
    policy = make_policy(memory=memory, seed=seed, normalize_obs=True)
    config = kind(minibatch_size=16, normalize_returns=True, anneal_learning_rate=True)
    return agent(policy, config, num_envs=4, total_updates=8, **parts)


def update(agent, updates):
    """Learn from random rollouts, with rewards drawn by torch's own generator."""
    for index in updates:
        rollout = make_rollout(agent.policy, 8, 4, seed=index)
        targets = {name: torch.rand(8, 4) for name in agent.target_names}
        rewards = rollout.rewards + torch.rand(8, 4)
        agent.update(dataclasses.replace(rollout, rewards=rewards, targets=targets))
