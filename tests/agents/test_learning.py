"""Tests that agents learn, each with a fixed seed and a stated score."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from agents import AGENTS, OUR_AGENTS, Policy, Sampler, observation_specs
from evaluation.playing import play_episodes, score_episodes
from perception.encoders import VectorConfig
from storage.run_folder import find_policy
from tests.agents.synthetic import assert_same, small_config, weights
from tests.agents.toy import LocalEnvs

ROOT = Path(__file__).parents[2]


def learn(
    env,
    env_steps,
    *,
    agent="ppo",
    memory="none",
    num_envs=8,
    seed=0,
    hidden_sizes=(64, 64),
    memory_size=64,
    **options,
):
    """Train in this process, and return the policy."""
    torch.manual_seed(seed)
    kind, learner = AGENTS[agent]
    config = kind(**options)
    envs = LocalEnvs(env, num_envs)
    perception = replace(
        small_config(memory=memory, memory_size=memory_size),
        vectors=VectorConfig(hidden_sizes=hidden_sizes),
    )
    specs = observation_specs(envs.single_observation_space, {})
    policy = Policy(specs, envs.single_action_space, perception, config.normalize_obs)
    updates = env_steps // (num_envs * config.rollout_length)
    learning = learner(policy, config, num_envs=num_envs, total_updates=updates)
    sampler = Sampler(envs, policy, rollout_length=config.rollout_length, seed=10_000 + seed)
    for _ in range(updates):
        learning.update(sampler.collect().rollout)
    sampler.close()
    return policy


def mean_return(policy, env, episodes, *, greedy=False, num_envs=10):
    envs = LocalEnvs(env, num_envs)
    played = play_episodes(policy, envs, num_episodes=episodes, seed=0, greedy=greedy)
    return score_episodes(list(played)).mean


@pytest.mark.slow
def test_the_cartpole_preset_solves_cartpole_from_the_command_line(tmp_path):
    run = tmp_path / "run"
    command = [sys.executable, str(ROOT / "train.py"), "CartPole-v1", "--run-dir", str(run)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    policy = find_policy(run)[0].policy
    assert mean_return(policy, "CartPole-v1", 100, greedy=True) >= 475
    assert mean_return(policy, "CartPole-v1", 100) >= 475


def test_ppo_learns_to_balance_a_pole():
    # Random actions balance it for 22 steps on average.
    policy = learn(
        "CartPole-v1",
        16_000,
        rollout_length=32,
        minibatch_size=128,
        num_epochs=5,
        learning_rate=5e-3,
        anneal_learning_rate=True,
        gamma=0.98,
        gae_lambda=0.9,
        entropy_coef=0.0,
        reward_scale=0.05,
        hidden_sizes=(64,),
    )
    assert mean_return(policy, "CartPole-v1", 20) >= 120


# Positions do not show in which direction a pole falls; with memory, velocities can be inferred.
MASKED = "tests.agents.toy:MaskedCartPole-v1"
MASKED_OPTIONS = {
    "num_envs": 16,
    "rollout_length": 64,
    "minibatch_size": 256,
    "num_epochs": 10,
    "learning_rate": 1e-3,
    "anneal_learning_rate": True,
    "gamma": 0.98,
    "gae_lambda": 0.95,
    "entropy_coef": 0.0,
    "target_kl": 0.02,
    "reward_scale": 0.05,
    "normalize_obs": True,
    "hidden_sizes": (32,),
    "memory_size": 32,
}
MASKED_STEPS = 100_000


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_hidden_velocities_are_inferred_by_an_lstm():
    policy = learn(MASKED, MASKED_STEPS, memory="lstm", **MASKED_OPTIONS)
    assert mean_return(policy, MASKED, 50) >= 450


@pytest.mark.slow
def test_hidden_velocities_cannot_be_inferred_without_memory():
    policy = learn(MASKED, MASKED_STEPS, memory="none", **MASKED_OPTIONS)
    assert mean_return(policy, MASKED, 50) < 200
    assert mean_return(policy, MASKED, 50, greedy=True) < 200


RECALL = "tests.agents.toy:Recall-v0"
RECALL_STEPS = 6_000
RECALL_OPTIONS = {
    "num_envs": 16,
    "rollout_length": 16,
    "minibatch_size": 128,
    "num_epochs": 4,
    "learning_rate": 5e-3,
    "gamma": 0.9,
    "hidden_sizes": (16,),
    "memory_size": 16,
}


@pytest.mark.parametrize("memory", ["lstm", pytest.param("gru", marks=pytest.mark.slow)])
def test_a_bit_is_remembered_for_a_step(memory):
    policy = learn(RECALL, RECALL_STEPS, memory=memory, **RECALL_OPTIONS)
    assert mean_return(policy, RECALL, 200, greedy=True) == 1.0
    assert mean_return(policy, RECALL, 200) > 0.9


def test_a_bit_cannot_be_remembered_without_memory():
    policy = learn(RECALL, RECALL_STEPS, memory="none", **RECALL_OPTIONS)
    assert mean_return(policy, RECALL, 200) == pytest.approx(0.5, abs=0.15)


# Of 16 rewards: the number that random actions get, and the number that must be reached.
IDENTITY = {
    "Discrete": (5.3, 15),
    "MultiDiscrete": (6.7, 15),
    "MultiBinary": (8, 15),
    "Box": (7, 14),
}
IDENTITY_STEPS = 6_000
IDENTITY_OPTIONS = {
    "gamma": 0.0,
    "entropy_coef": 0.0,
    "anneal_learning_rate": True,
    "hidden_sizes": (32,),
    "num_envs": 16,
    "learning_rate": 2e-2,
}


@pytest.mark.parametrize("actions", IDENTITY)
def test_ppo_learns_the_right_actions_in_every_action_space(actions):
    env, (before, after) = f"tests.agents.toy:Identity{actions}-v0", IDENTITY[actions]
    options = {"rollout_length": 16, "minibatch_size": 64} | IDENTITY_OPTIONS
    untrained = learn(env, 0, **options)
    assert mean_return(untrained, env, 50) < before + 1.5
    policy = learn(env, IDENTITY_STEPS, **options)
    assert mean_return(policy, env, 50, greedy=True) >= after


@pytest.mark.parametrize("agent", [name for name in OUR_AGENTS if name != "ppo"])
def test_other_agents_learn_the_right_actions(agent):
    env = "tests.agents.toy:IdentityDiscrete-v0"
    options = {"rollout_length": 8, "normalize_advantages": True} | IDENTITY_OPTIONS
    policy = learn(env, IDENTITY_STEPS, agent=agent, **options)
    assert mean_return(policy, env, 50, greedy=True) >= 15


CARTPOLE_OPTIONS = {
    "num_envs": 16,
    "gamma": 0.98,
    "reward_scale": 0.05,
    "entropy_coef": 0.0,
    "anneal_learning_rate": True,
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("agent", "options"),
    [
        ("a2c", {"rollout_length": 32, "learning_rate": 5e-3, "gae_lambda": 0.95}),
        ("reinforce", {"rollout_length": 64, "learning_rate": 1e-2}),
        ("vtrace", {"rollout_length": 32, "learning_rate": 1e-2}),
    ],
)
def test_other_agents_balance_a_pole(agent, options):
    # After so few steps, not every seed reaches this score.
    policy = learn("CartPole-v1", 100_000, agent=agent, seed=2, **options, **CARTPOLE_OPTIONS)
    assert mean_return(policy, "CartPole-v1", 20) >= 300


def learned_value(env):
    """Return the value that is learned with a reward of 1 a step, one-step returns, and gamma 0.9.

    Args:
        env: name of an environment whose observations are constant.
    """
    policy = learn(
        f"tests.agents.toy:{env}",
        2_500,
        num_envs=2,
        rollout_length=16,
        minibatch_size=None,
        num_epochs=8,
        gamma=0.9,
        gae_lambda=0.0,
        entropy_coef=0.0,
        learning_rate=2e-2,
        max_grad_norm=1e9,
        anneal_learning_rate=True,
        hidden_sizes=(4,),
    )
    start = torch.ones(1, dtype=torch.bool)
    return float(policy.value({"obs": torch.ones(1, 1)}, policy.initial_state(1), start)[0])


def test_a_truncation_does_not_change_the_value():
    # V = 1 + 0.9 V, so V = 1 / (1 - 0.9).
    assert learned_value("Truncated-v0") == pytest.approx(10.0, abs=0.2)


def test_a_termination_lowers_the_value():
    # Nothing follows every eighth step: V = 1 + 0.9 * 7/8 V, so V = 1 / (1 - 0.7875).
    assert learned_value("Terminated-v0") == pytest.approx(1 / (1 - 0.7875), abs=0.1)


@pytest.mark.parametrize(
    ("agent", "memory"), [*((agent, "none") for agent in OUR_AGENTS), ("ppo", "lstm")]
)
def test_weights_depend_on_the_seed_only(agent, memory):
    def train(seed):
        options = {"rollout_length": 32, "hidden_sizes": (16,), "memory_size": 16}
        policy = learn("CartPole-v1", 3 * 8 * 32, agent=agent, memory=memory, seed=seed, **options)
        return weights(policy)

    first = train(0)
    assert_same(first, train(0))
    other = train(1)
    assert not any(torch.equal(first[name], other[name]) for name in first)
