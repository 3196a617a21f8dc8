"""Tests of `agents.sb3.algorithms`."""

from __future__ import annotations

import contextlib
import math
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from stable_baselines3 import DQN, PPO

from agents import AGENTS, OBJECTIVES, SB3_AGENTS, AgentError, make_objectives
from agents.agent import NotFiniteError
from agents.extras import MissingExtraError
from agents.policy import Policy
from agents.sb3 import perception_kwargs
from envs import EnvConfig
from envs.sb3 import make_vec_env
from perception import ENCODERS
from perception.lookup import UnknownNameError
from tests.agents.sb3.training import assert_reproduced, open_training
from tests.agents.synthetic import IMAGE, SMALL_ENCODERS, assert_same, make_policy, weights
from tests.agents.toy import ACTION_SPACES

DOOM = EnvConfig(env="basic", height=36, width=40, variables=True)


@pytest.mark.parametrize("name", SB3_AGENTS)
def test_an_agent_learns_from_doom(name):
    with open_training(name, DOOM, normalize_obs=True) as (agent, sampler):
        before = weights(agent.policy)
        for _ in range(2):
            rollout = sampler.collect().rollout
            assert_reproduced(agent, rollout)
            agent.update(rollout)
        for key, tensor in agent.policy.state_dict().items():
            assert torch.isfinite(tensor).all(), key
            assert torch.equal(tensor, before[key]) == ("palette" in key), key


def test_the_learning_rate_falls_and_returns_are_normalised():
    options = {"anneal_learning_rate": True, "normalize_returns": True}
    with open_training("sb3-ppo", **options) as (agent, sampler):
        rates = []
        for _ in range(3):
            agent.update(sampler.collect().rollout)
            rates.append(agent.optimizer.param_groups[0]["lr"])
        initial = agent.config.learning_rate
        assert rates == pytest.approx([0.9 * initial, 0.8 * initial, 0.7 * initial])
        assert agent.value_unit > 1


@pytest.mark.parametrize("name", ["sb3-ppo", "sb3-a2c"])
def test_updates_are_counted_on_after_resuming(name):
    counted = []
    for before in (0, 1):
        with open_training(name) as (agent, sampler):
            agent.num_updates = before
            updates = [agent.update(sampler.collect().rollout) for _ in range(2 - before)]
            counted.append(updates[-1]["n_updates"])
    assert counted[0] == counted[1] > 0


def test_an_update_that_is_not_finite_is_undone():
    with open_training("sb3-ppo", learning_rate=math.inf) as (agent, sampler):
        rollout, before = sampler.collect().rollout, weights(agent.policy)
        with pytest.raises(NotFiniteError, match="the weights after the update"):
            agent.update(rollout)
        assert_same(weights(agent.policy), before)


def make_agent(name, policy, objectives=None, **options):
    kind, learner = AGENTS[name]
    return learner(policy, kind(**options), num_envs=4, total_updates=1, objectives=objectives)


@pytest.mark.parametrize(
    ("name", "memory", "options", "message"),
    [
        ("sb3-ppo", "lstm", {}, "sb3-ppo needs --memory none, not lstm"),
        ("sb3-recurrent-ppo", "gru", {}, "sb3-recurrent-ppo needs --memory lstm, not gru"),
        (
            "sb3-a2c",
            "none",
            {"encoder_learning_rate": 1e-4},
            "sb3-a2c has one learning rate for all; leave out --encoder-learning-rate",
        ),
        ("sb3-ppo", "none", {"vtrace": True}, "sb3-ppo has no --vtrace; use ppo"),
        (
            "sb3-a2c",
            "none",
            {"num_epochs": 2},
            "sb3-a2c learns once from a whole rollout; use --num-epochs 1 and no --minibatch-size",
        ),
        (
            "sb3-recurrent-ppo",
            "lstm",
            {"minibatch_size": 1},
            "sb3-recurrent-ppo needs minibatches of two env steps or more, and one of .* has a "
            "single one; change --minibatch-size",
        ),
        (
            "sb3-recurrent-ppo",
            "lstm",
            {"rollout_length": 4, "minibatch_size": 5},
            "sb3-recurrent-ppo needs minibatches of two env steps or more, and one of .* has a "
            "single one; change --minibatch-size",
        ),
    ],
)
def test_the_error_for_options_that_are_not_supported_is_one_line(name, memory, options, message):
    with pytest.raises(AgentError, match=f"^{message}$"):
        make_agent(name, make_policy(memory=memory), **options)


@pytest.mark.parametrize("name", ["sb3-ppo", "sb3-a2c"])
def test_every_parameter_of_the_policy_is_one_that_is_trained(name):
    policy = make_policy()
    config = replace(policy.config, layer_norm=True)
    policy = Policy(policy.specs, policy.action_space, config)
    agent = make_agent(name, policy)
    trained = {id(p) for group in agent.optimizer.param_groups for p in group["params"]}
    assert trained == {id(p) for p in policy.parameters()}


def test_the_error_for_actions_that_are_not_supported_is_one_line():
    policy = make_policy(memory="lstm", actions=ACTION_SPACES["MultiBinary"])
    message = "^sb3-recurrent-ppo does not support MultiBinary actions; use sb3-ppo$"
    with pytest.raises(AgentError, match=message):
        make_agent("sb3-recurrent-ppo", policy)


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("name", SB3_AGENTS)
def test_the_error_for_objectives_is_one_line(name, objective):
    policy = make_policy(specs={"screen": IMAGE}, memory=AGENTS[name][1].memory)
    configs = {objective: OBJECTIVES[objective][0]()}
    objectives = make_objectives(policy, configs, ("HEALTH", "DEPTH_0_0", "MONSTER_IN_VIEW_0"))
    message = f"^{name} does not support objectives; use ppo or a2c$"
    with pytest.raises(AgentError, match=message):
        make_agent(name, policy, objectives)
    assert make_agent(name, policy, {}).objectives == {}


def test_the_error_without_sb3_contrib_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "sb3_contrib", None)
    with pytest.raises(MissingExtraError, match=r"^sb3_contrib is not installed; pip install"):
        make_agent("sb3-recurrent-ppo", make_policy(memory="lstm"))


def options_of(encoder):
    """Return the fields of a small encoder's configuration."""
    return vars(SMALL_ENCODERS[encoder])


@pytest.mark.parametrize(("observation", "encoder"), [("palette", "nature"), ("rgb", "impala")])
def test_perception_is_a_features_extractor(observation, encoder):
    options = {"width": 40, "height": 36, "observation": observation}
    with contextlib.closing(make_vec_env("basic", 2, seed=0, num_workers=1, **options)) as vec_env:
        kwargs = perception_kwargs(vec_env, encoder=encoder, **options_of(encoder))
        assert kwargs["features_extractor_kwargs"]["config"].encoder == SMALL_ENCODERS[encoder]
        model = PPO("CnnPolicy", vec_env, n_steps=16, batch_size=16, policy_kwargs=kwargs)
        extractor = model.policy.features_extractor
        before = [parameter.clone() for parameter in extractor.parameters()]
        model.learn(32)
        assert all(
            not torch.equal(old, new)
            for old, new in zip(before, extractor.parameters(), strict=True)
        )
        # SB3 moves the channels to the front, and converts bytes to floating-point numbers.
        frames = torch.as_tensor(np.asarray(model.env.venv.reset()))
        features = extractor(frames.permute(0, 3, 1, 2).float())
        assert torch.equal(features, extractor.perception.encode({"obs": frames}))


def test_each_network_of_an_algorithm_has_its_own_perception():
    with contextlib.closing(make_vec_env("CartPole-v1", 2, num_workers=1)) as vec_env:
        kwargs = perception_kwargs(vec_env)
        model = DQN("MlpPolicy", vec_env, policy_kwargs=kwargs, buffer_size=100)
        assert not {id(p) for p in model.q_net.parameters()} & {
            id(p) for p in model.q_net_target.parameters()
        }
        message = f"^unknown encoder 'blob'; choose from {', '.join(ENCODERS)}$"
        with pytest.raises(UnknownNameError, match=message):
            perception_kwargs(vec_env, encoder="blob")
