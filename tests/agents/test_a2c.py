"""Tests of `agents.a2c`, with Stable-Baselines3 as the oracle."""

from __future__ import annotations

import pytest
from stable_baselines3 import A2C as SB3A2C

from agents import A2C, A2CConfig
from tests.agents.sb3_oracle import assert_same_weights, make_oracle, update_in_step
from tests.agents.synthetic import make_policy, make_rollout
from tests.agents.toy import ACTION_SPACES

STEPS, NUM_ENVS = 8, 4
CASES = {
    "defaults": {},
    "normalised advantages": {"normalize_advantages": True},
    "gradient clipping": {"max_grad_norm": 0.01},
    "lambda": {"gae_lambda": 0.8, "gamma": 0.9},
    "entropy and value weights": {"entropy_coef": 0.2, "value_coef": 1.5},
}


def update_both(config, actions="Discrete"):
    policy = make_policy(actions=ACTION_SPACES[actions])
    agent = A2C(policy, config, num_envs=NUM_ENVS, total_updates=3)
    model = make_oracle(
        SB3A2C,
        policy,
        STEPS,
        NUM_ENVS,
        learning_rate=config.learning_rate,
        gamma=config.gamma,
        gae_lambda=config.gae_lambda,
        ent_coef=config.entropy_coef,
        vf_coef=config.value_coef,
        max_grad_norm=config.max_grad_norm,
        normalize_advantage=config.normalize_advantages,
    )
    return policy, model, update_in_step(agent, model, updates=3)


@pytest.mark.parametrize("case", CASES)
def test_an_update_equals_stable_baselines3(case):
    policy, model, metrics = update_both(A2CConfig(**CASES[case]))
    assert_same_weights(policy, model, rtol=1e-3, atol=1e-5)
    logged = model.logger.name_to_value
    for name in ("policy_loss", "value_loss", "entropy_loss", "explained_variance"):
        assert metrics[name] == pytest.approx(float(logged[f"train/{name}"]), rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("actions", ACTION_SPACES)
def test_an_update_equals_stable_baselines3_in_every_action_space(actions):
    policy, model, _ = update_both(A2CConfig(), actions)
    assert_same_weights(policy, model, rtol=1e-3, atol=1e-5)


def test_a_rollout_is_used_once():
    config = A2CConfig()
    assert config.num_epochs == 1
    assert config.minibatch_size is None
    policy = make_policy()
    agent = A2C(policy, config, num_envs=NUM_ENVS, total_updates=1)
    agent.update(make_rollout(policy, STEPS, NUM_ENVS))
    assert int(agent.optimizer.state_dict()["state"][0]["step"]) == 1
