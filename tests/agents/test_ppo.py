"""Tests of `agents.ppo`, with Stable-Baselines3 as the oracle."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from stable_baselines3 import PPO as SB3PPO

from agents import PPO, PPOConfig
from agents.rollout import minibatches
from agents.vtrace import vtrace_estimate
from perception import MEMORIES
from tests.agents.sb3_oracle import assert_same_weights, load_rollout, make_oracle, update_in_step
from tests.agents.synthetic import make_policy, make_rollout
from tests.agents.toy import ACTION_SPACES

STEPS, NUM_ENVS = 16, 4

# All but the last differ from the defaults in one respect.
COMMON = {"learning_rate": 3e-3, "gamma": 0.97, "gae_lambda": 0.9, "num_epochs": 5}
CASES = {
    "defaults": {},
    "value clipping": {"value_clip_coef": 0.1},
    "target KL": {"target_kl": 0.005},
    "tight gradient clipping": {"max_grad_norm": 0.01},
    "no gradient clipping": {"max_grad_norm": 1e9},
    "advantages unchanged": {"normalize_advantages": False},
    "tight policy clipping": {"clip_coef": 0.02},
    "entropy and value weights": {"entropy_coef": 0.1, "value_coef": 1.3},
    "all together": {
        "value_clip_coef": 0.05,
        "max_grad_norm": 0.3,
        "normalize_advantages": False,
        "clip_coef": 0.1,
        "entropy_coef": 0.05,
        "value_coef": 0.7,
    },
}


def oracle_options(config):
    return {
        "learning_rate": config.learning_rate,
        "batch_size": STEPS * NUM_ENVS,
        "n_epochs": config.num_epochs,
        "gamma": config.gamma,
        "gae_lambda": config.gae_lambda,
        "clip_range": config.clip_coef,
        "clip_range_vf": config.value_clip_coef,
        "normalize_advantage": config.normalize_advantages,
        "ent_coef": config.entropy_coef,
        "vf_coef": config.value_coef,
        "max_grad_norm": config.max_grad_norm,
        "target_kl": config.target_kl,
    }


def update_both(config, actions="Discrete", updates=1):
    """Update our agent and the oracle with the same rollouts, in one minibatch an epoch."""
    policy = make_policy(actions=ACTION_SPACES[actions])
    agent = PPO(policy, config, num_envs=NUM_ENVS, total_updates=updates)
    model = make_oracle(SB3PPO, policy, STEPS, NUM_ENVS, **oracle_options(config))
    # With noise, as if an older policy had acted, ratios and values are clipped.
    return policy, model, update_in_step(agent, model, updates=updates, noise=0.1)


@pytest.mark.parametrize("case", CASES)
def test_an_update_equals_stable_baselines3(case):
    config = PPOConfig(minibatch_size=None, **COMMON | CASES[case])
    policy, model, metrics = update_both(config, updates=3)
    assert_same_weights(policy, model)
    logged = model.logger.name_to_value
    for name in ("clip_fraction", "entropy_loss", "explained_variance", "value_loss"):
        assert metrics[name] == pytest.approx(float(logged[f"train/{name}"]), rel=1e-3, abs=1e-5)
    expected = float(logged["train/policy_gradient_loss"])
    assert metrics["policy_gradient_loss"] == pytest.approx(expected, rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("actions", ACTION_SPACES)
def test_an_update_equals_stable_baselines3_in_every_action_space(actions):
    config = PPOConfig(minibatch_size=None, value_clip_coef=0.1, **COMMON)
    policy, model, _ = update_both(config, actions)
    assert_same_weights(policy, model)


def test_minibatches_in_the_same_order_equal_stable_baselines3():
    config = PPOConfig(minibatch_size=16, **COMMON | {"num_epochs": 2})
    policy = make_policy()
    agent = PPO(policy, config, num_envs=NUM_ENVS, total_updates=1)
    options = oracle_options(config) | {"batch_size": 16}
    model = make_oracle(SB3PPO, policy, STEPS, NUM_ENVS, **options)
    rollout = make_rollout(policy, STEPS, NUM_ENVS, noise=0.1)
    load_rollout(model, rollout)
    torch.manual_seed(5)
    orders = [torch.randperm(STEPS * NUM_ENVS) for _ in range(config.num_epochs)]
    buffer, original = model.rollout_buffer, model.rollout_buffer.get

    def get(batch_size):
        if not buffer.generator_ready:
            next(original(batch_size))  # This flattens the buffer, environment by environment.
        for chosen in orders.pop(0).split(batch_size):
            steps, lanes = chosen // NUM_ENVS, chosen % NUM_ENVS
            yield buffer._get_samples((lanes * STEPS + steps).numpy())

    buffer.get = get
    model.train()
    torch.manual_seed(5)
    agent.update(rollout)
    assert_same_weights(policy, model)


@pytest.mark.parametrize("memory", MEMORIES)
@pytest.mark.parametrize("actions", ACTION_SPACES)
def test_the_ratio_is_1_before_the_first_step(memory, actions):
    policy = make_policy(memory=memory, actions=ACTION_SPACES[actions])
    agent = PPO(policy, PPOConfig(), num_envs=NUM_ENVS, total_updates=1)
    rollout = make_rollout(policy, STEPS, NUM_ENVS)
    one = torch.ones_like(rollout.rewards)
    length = agent.sequence_length(STEPS)
    for batch in minibatches(rollout, one, one, minibatch_size=32, length=length):
        output = policy(batch.obs, batch.memory_state, batch.episode_starts)
        ratio = (output.distribution.log_prob(batch.actions) - batch.logprobs).exp()
        torch.testing.assert_close(ratio, torch.ones_like(ratio), rtol=0, atol=1e-4)
        torch.testing.assert_close(output.values, batch.values, rtol=1e-4, atol=1e-5)
        _, metrics = agent.loss(output, batch)
        assert float(metrics["approx_kl"]) == pytest.approx(0, abs=1e-6)
        assert metrics["clip_fraction"] == 0


def test_the_clipped_loss_equals_hand_worked_numbers():
    # clip 0.2, advantages not normalised; ratios 1.5, 0.5, 1.5, 0.5 with advantages 1, 1, -1, -1.
    # min(1.5, 1.2) + min(0.5, 0.8) + min(-1.5, -1.2) + min(-0.5, -0.8)
    #   = 1.2 + 0.5 - 1.5 - 0.8 = -0.6, so the loss is 0.6 / 4 = 0.15.
    policy = make_policy()
    config = PPOConfig(normalize_advantages=False, value_coef=0.0, entropy_coef=0.0)
    agent = PPO(policy, config, num_envs=4, total_updates=1)
    rollout = make_rollout(policy, 1, 4)
    ratios, advantages = torch.tensor([[1.5, 0.5, 1.5, 0.5]]), torch.tensor([[1.0, 1, -1, -1]])
    rollout = dataclasses.replace(rollout, logprobs=rollout.logprobs - ratios.log())
    (batch,) = minibatches(rollout, advantages, advantages, minibatch_size=4)
    output = policy(batch.obs, batch.memory_state, batch.episode_starts)
    loss, metrics = agent.loss(output, batch)
    assert float(loss.detach()) == pytest.approx(0.15, abs=1e-5)
    assert metrics["clip_fraction"] == 1


def test_target_kl_ends_an_update_early():
    policy = make_policy()
    rollout = make_rollout(policy, STEPS, NUM_ENVS)
    steps = {}
    for target in (None, 1e-3, 1e-9):
        agent = PPO(
            make_policy(),
            PPOConfig(minibatch_size=None, num_epochs=10, learning_rate=3e-3, target_kl=target),
            num_envs=NUM_ENVS,
            total_updates=1,
        )
        agent.update(rollout)
        steps[target] = int(agent.optimizer.state_dict()["state"][0]["step"])
    assert steps[None] == 10
    assert steps[1e-9] < steps[1e-3] < 10
    assert steps[1e-9] >= 1


@pytest.mark.parametrize("memory", ["none", "lstm"])
def test_advantages_are_estimated_by_vtrace_if_configured(memory):
    config = PPOConfig(vtrace=True, gamma=0.9, gae_lambda=0.8, minibatch_size=32)
    agent = PPO(make_policy(memory=memory), config, num_envs=NUM_ENVS, total_updates=1)
    # With noise, as if an older policy had acted.
    rollout = make_rollout(agent.policy, STEPS, NUM_ENVS, noise=0.3)
    *expected, _ = vtrace_estimate(agent, rollout, rollout.rewards)
    by_gae = super(PPO, agent).estimate(rollout, rollout.rewards)
    for part, right, wrong in zip(
        agent.estimate(rollout, rollout.rewards), expected, by_gae, strict=True
    ):
        assert torch.equal(part, right)
        assert not torch.allclose(part, wrong)


@pytest.mark.parametrize("field", ["clip_coef", "value_clip_coef", "target_kl"])
@pytest.mark.parametrize("value", [0.0, -0.1, float("nan")])
def test_clipping_must_be_positive(field, value):
    with pytest.raises(ValueError, match=f"^{field} must be greater than 0, got"):
        PPOConfig(**{field: value})


def test_common_ranges_are_checked_too():
    with pytest.raises(ValueError, match=r"^gamma must be between 0 and 1, got 1\.1$"):
        PPOConfig(gamma=1.1)
