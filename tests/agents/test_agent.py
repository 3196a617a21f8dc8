"""Tests of `agents.agent`."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from agents import AGENTS, OUR_AGENTS, PPO, AgentConfig, PPOConfig, Sampler
from agents.agent import NotFiniteError, following_values
from agents.returns import gae
from perception import VectorSpec
from tests.agents.synthetic import assert_same, make_policy, make_rollout, weights
from tests.agents.toy import LocalEnvs

STEPS, NUM_ENVS = 16, 4


def make_agent(name="ppo", *, memory="none", total_updates=1, seed=0, **options):
    kind, learner = AGENTS[name]
    policy = make_policy(memory=memory, seed=seed)
    return learner(policy, kind(**options), num_envs=NUM_ENVS, total_updates=total_updates)


@pytest.mark.parametrize("memory", ["none", "lstm", "gru"])
@pytest.mark.parametrize("name", OUR_AGENTS)
def test_an_update_moves_every_parameter_and_keeps_all_finite(name, memory):
    agent = make_agent(name, memory=memory)
    before = weights(agent.policy)
    metrics = agent.update(make_rollout(agent.policy, STEPS, NUM_ENVS))
    for key, tensor in agent.policy.state_dict().items():
        assert torch.isfinite(tensor).all(), key
        assert not torch.equal(tensor, before[key]), key
    assert all(math.isfinite(value) for value in metrics.values())
    assert {"loss", "value_loss", "entropy_loss", "grad_norm"} <= metrics.keys()
    assert agent.num_updates == 1


@pytest.mark.parametrize("memory", ["none", "lstm"])
@pytest.mark.parametrize("name", OUR_AGENTS)
def test_the_same_seed_gives_the_same_weights_bit_for_bit(name, memory):
    def train(seed):
        agent = make_agent(name, memory=memory, seed=seed, minibatch_size=20, num_epochs=2)
        for update in range(3):
            agent.update(make_rollout(agent.policy, STEPS, NUM_ENVS, seed=update))
        return weights(agent.policy)

    assert_same(train(0), train(0))
    left, right = train(0), train(1)
    assert any(not torch.equal(left[name], right[name]) for name in left)


def test_the_rollout_is_left_as_it_was():
    agent = make_agent(minibatch_size=8, normalize_returns=True, reward_scale=0.1)
    rollout = make_rollout(agent.policy, STEPS, NUM_ENVS)
    before = {name: part.clone() for name, part in rollout.tensors().items()}
    agent.update(rollout)
    assert_same(rollout.tensors(), before)


def test_the_learning_rate_falls_linearly_to_its_last_step_and_stays_above_zero():
    agent = make_agent(learning_rate=0.1, anneal_learning_rate=True, total_updates=4)
    rollout = make_rollout(agent.policy, STEPS, NUM_ENVS)
    rates = [agent.update(rollout)["learning_rate"] for _ in range(4)]
    assert rates == pytest.approx([0.1, 0.075, 0.05, 0.025])
    # Going on beyond the end of the training learns no more, and never with a negative step.
    assert agent.update(rollout)["learning_rate"] == 0.0
    assert agent.update(rollout)["learning_rate"] == 0.0


def test_the_learning_rate_stays_where_it_is_not_annealed():
    agent = make_agent(learning_rate=0.1, total_updates=2)
    rollout = make_rollout(agent.policy, STEPS, NUM_ENVS)
    assert [agent.update(rollout)["learning_rate"] for _ in range(3)] == [0.1] * 3


def test_gradients_are_clipped_to_their_greatest_norm():
    agent = make_agent("a2c", max_grad_norm=0.01)
    rollout = make_rollout(agent.policy, STEPS, NUM_ENVS)
    norm = agent.update(rollout)["grad_norm"]
    assert norm > 0.01  # what is reported is the norm before
    squares = sum(p.grad.square().sum() for p in agent.policy.parameters())
    assert float(squares.sqrt()) == pytest.approx(0.01, rel=1e-3)


def test_epochs_and_minibatches_are_as_many_as_configured():
    for memory, steps in (("none", 3 * -(-64 // 20)), ("lstm", 3 * NUM_ENVS)):
        agent = make_agent(memory=memory, num_epochs=3, minibatch_size=20)
        agent.update(make_rollout(agent.policy, STEPS, NUM_ENVS))
        assert int(agent.optimizer.state_dict()["state"][0]["step"]) == steps


def test_a_last_minibatch_of_one_step_does_no_harm():
    agent = make_agent(minibatch_size=STEPS * NUM_ENVS - 1)
    agent.update(make_rollout(agent.policy, STEPS, NUM_ENVS))
    assert all(torch.isfinite(p).all() for p in agent.policy.parameters())


def test_advantages_are_normalised_if_configured():
    advantages = torch.tensor([[1.0, 2.0, 3.0, 6.0]])
    # mean 3, deviation sqrt((4 + 1 + 0 + 9) / 3)
    expected = (advantages - 3) / math.sqrt(14 / 3)
    torch.testing.assert_close(make_agent().normalized(advantages), expected)
    raw = make_agent(normalize_advantages=False)
    assert torch.equal(raw.normalized(advantages), advantages)
    equal = torch.full((1, 4), 2.0)
    assert not make_agent().normalized(equal).any()


@pytest.mark.parametrize("name", ["ppo", "a2c"])
def test_advantages_are_estimated_from_scaled_rewards(name):
    agent = make_agent(name, reward_scale=0.5, gamma=0.9, gae_lambda=0.8)
    rollout = make_rollout(agent.policy, STEPS, NUM_ENVS)
    rewards = agent.scale(rollout.rewards, rollout.dones)
    assert torch.equal(rewards, 0.5 * rollout.rewards)
    advantages, returns = agent.estimate(rollout, rewards)
    following = following_values(rollout)
    assert torch.equal(following[rollout.terminated], torch.zeros(int(rollout.terminated.sum())))
    cut = rollout.truncated & ~rollout.terminated
    assert torch.equal(following[cut], rollout.final_values[cut])
    expected = gae(rewards, rollout.values, following, rollout.dones, gamma=0.9, gae_lambda=0.8)
    assert torch.equal(advantages, expected)
    assert torch.equal(returns, expected + rollout.values)


def test_a_reward_scale_equals_scaled_rewards():
    first, second = make_agent(reward_scale=0.01), make_agent()
    rollout = make_rollout(first.policy, STEPS, NUM_ENVS)
    scaled = dataclasses.replace(rollout, rewards=rollout.rewards * 0.01)
    for agent, data in ((first, rollout), (second, scaled)):
        torch.manual_seed(0)
        agent.update(data)
    assert_same(weights(first.policy), weights(second.policy))


@pytest.mark.parametrize("options", [{"reward_scale": 0.01}, {"normalize_returns": True}], ids=str)
def test_scaling_does_not_change_reported_rewards(options):
    config = PPOConfig(rollout_length=16, **options)
    policy = make_policy(specs={"obs": VectorSpec(size=2)})
    agent = PPO(policy, config, num_envs=2, total_updates=4)
    envs = LocalEnvs("tests.agents.toy:Counter-v0", 2)
    sampler = Sampler(envs, policy, rollout_length=16, seed=0)
    for _ in range(4):
        rollout, episodes, *_ = sampler.collect()
        agent.update(rollout)
        # What was paid is ten times the step's number and the action.
        paid = 10 * rollout.obs["obs"][..., 1] + rollout.actions
        assert torch.equal(rollout.rewards, paid)
        assert episodes
        for episode in episodes:
            returned, length = episode.statistics["r"], episode.statistics["l"]
            least = sum(10 * step for step in range(int(length)))
            assert least <= returned <= least + 2 * length
            assert returned == round(returned)


def test_of_the_first_rollout_only_statistics_are_learned():
    policy = make_policy(normalize_obs=True)
    config = PPOConfig(num_epochs=1, normalize_obs=True)
    agent = PPO(policy, config, num_envs=NUM_ENVS, total_updates=2)
    before = weights(policy)
    rollout = make_rollout(policy, STEPS, NUM_ENVS)
    assert agent.update(rollout) == {}
    seen = rollout.obs["obs"].flatten(0, 1).double()
    normalizer = policy.perception.normalizers["obs"]
    torch.testing.assert_close(normalizer.mean, seen.mean(0))
    assert normalizer.count == STEPS * NUM_ENVS
    after = weights(policy)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert {name.rsplit(".", 1)[1] for name in changed} == {"mean", "variance", "count"}


def test_a_rollout_that_is_not_finite_gives_no_statistics():
    policy = make_policy(normalize_obs=True)
    agent = PPO(policy, PPOConfig(normalize_obs=True), num_envs=NUM_ENVS, total_updates=3)
    broken, first = (make_rollout(policy, STEPS, NUM_ENVS, seed=seed) for seed in (0, 1))
    broken.rewards[3, 1] = torch.nan
    with pytest.raises(NotFiniteError):
        agent.update(broken, version=0)
    assert agent.update(first, version=1) == {}  # It was played without statistics too.
    second = make_rollout(policy, STEPS, NUM_ENVS, seed=2)
    assert agent.update(second, version=1) == {}
    assert policy.perception.normalizers["obs"].count == STEPS * NUM_ENVS
    assert "approx_kl" in agent.update(second, version=2)


def test_a_resumed_agent_has_the_statistics_already():
    first, resumed = (
        PPO(
            make_policy(normalize_obs=True),
            PPOConfig(normalize_obs=True),
            num_envs=NUM_ENVS,
            total_updates=3,
        )
        for _ in range(2)
    )
    first.update(make_rollout(first.policy, STEPS, NUM_ENVS), version=0)
    resumed.policy.load_state_dict(first.policy.state_dict())
    resumed.num_updates = first.num_updates
    rollout = make_rollout(resumed.policy, STEPS, NUM_ENVS, seed=1)
    assert "approx_kl" in resumed.update(rollout, version=1)


def test_normalised_observations_change_only_after_an_update():
    policy = make_policy(normalize_obs=True)
    config = PPOConfig(num_epochs=1, normalize_obs=True)
    agent = PPO(policy, config, num_envs=NUM_ENVS, total_updates=2)
    agent.update(make_rollout(policy, STEPS, NUM_ENVS))
    metrics = agent.update(make_rollout(policy, STEPS, NUM_ENVS, seed=1))
    # Had the statistics moved before the update, the policy would not be the one that acted.
    assert metrics["approx_kl"] == pytest.approx(0, abs=1e-6)
    assert policy.perception.normalizers["obs"].count == 2 * STEPS * NUM_ENVS


@pytest.mark.parametrize("name", OUR_AGENTS)
@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("rollout_length", 0, "must be at least 1, got 0"),
        ("num_epochs", 0, "must be at least 1, got 0"),
        ("minibatch_size", 0, "must be at least 1, got 0"),
        ("learning_rate", 0.0, "must be greater than 0, got 0.0"),
        ("learning_rate", float("nan"), "must be greater than 0, got nan"),
        ("max_grad_norm", -1.0, "must be greater than 0, got -1.0"),
        ("reward_scale", 0.0, "must be greater than 0, got 0.0"),
        ("gamma", 1.01, "must be between 0 and 1, got 1.01"),
        ("gamma", float("nan"), "must be between 0 and 1, got nan"),
        ("gae_lambda", -0.1, "must be between 0 and 1, got -0.1"),
        ("value_coef", -0.1, "must not be negative, got -0.1"),
        ("entropy_coef", float("nan"), "must not be negative, got nan"),
    ],
)
def test_values_out_of_range_are_refused_by_name(name, field, value, message):
    with pytest.raises(ValueError, match=f"^{field} {message}$"):
        AGENTS[name][0](**{field: value})


@pytest.mark.parametrize("name", OUR_AGENTS)
def test_configurations_are_frozen_and_derived_from_the_common_one(name):
    config = AGENTS[name][0]()
    assert isinstance(config, AgentConfig)
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.gamma = 0.5


FLOATS = ("logprobs", "values", "rewards", "final_values", "memory_state", "last_values")


@pytest.mark.parametrize("number", [torch.nan, torch.inf])
@pytest.mark.parametrize("part", [*FLOATS, "obs"])
@pytest.mark.parametrize("begun", [False, True])
def test_a_rollout_that_is_not_finite_changes_nothing(part, number, begun):
    agent = make_agent(memory="lstm")
    rollout = make_rollout(agent.policy, STEPS, NUM_ENVS)
    if begun:
        agent.update(rollout)
    before = weights(agent.policy), copy.deepcopy(agent.optimizer.state_dict())
    spoilt = next(iter(rollout.obs.values())) if part == "obs" else getattr(rollout, part)
    spoilt.view(-1)[-1] = number
    with pytest.raises(NotFiniteError, match=f"{part}.* of the rollout are not finite"):
        agent.update(rollout)
    assert_same(weights(agent.policy), before[0])
    assert str(agent.optimizer.state_dict()) == str(before[1])
    assert agent.num_updates == begun + 1


@pytest.mark.parametrize("begun", [False, True])
def test_a_gradient_that_is_not_finite_undoes_the_whole_update(begun):
    agent = make_agent(minibatch_size=16, num_epochs=2)
    rollout = make_rollout(agent.policy, STEPS, NUM_ENVS)
    if begun:
        agent.update(rollout)
    before = weights(agent.policy), copy.deepcopy(agent.optimizer.state_dict())
    loss, calls = agent.loss, itertools.count()

    def spoilt_loss(batch):
        value, metrics = loss(batch)
        return (value * torch.nan if next(calls) == 5 else value), metrics

    agent.loss = spoilt_loss
    with pytest.raises(NotFiniteError, match="the gradients are not finite"):
        agent.update(rollout)
    assert next(calls) == 8  # Whether all was finite is read once, at the end.
    assert_same(weights(agent.policy), before[0])
    assert str(agent.optimizer.state_dict()) == str(before[1])
    # And it can be gone on with.
    agent.update(rollout)
    assert all(weight.isfinite().all() for weight in weights(agent.policy).values())


class Readings(TorchDispatchMode):
    """Counts how often Python asks for the number in a tensor, for which it would await a GPU."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        """Count, and go on."""
        asks = (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.is_nonzero.default)
        self.count += func in asks
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("memory", ["none", "lstm"])
@pytest.mark.parametrize("name", OUR_AGENTS)
def test_an_update_reads_few_tensors_however_many_minibatches(monkeypatch, name, memory):
    lists = []
    tolist = torch.Tensor.tolist
    monkeypatch.setattr(torch.Tensor, "tolist", lambda t: lists.append(t.shape) or tolist(t))
    for options in ({}, {"num_epochs": 4, "minibatch_size": 16}):
        fields = {field.name for field in dataclasses.fields(AGENTS[name][0])}
        options = {key: value for key, value in options.items() if key in fields}
        agent = make_agent(name, memory=memory, normalize_returns=True, **options)
        rollout = make_rollout(agent.policy, STEPS, NUM_ENVS)
        agent.update(rollout)  # Optimisers set themselves up.
        lists.clear()
        with Readings() as readings:
            agent.update(rollout)
        assert readings.count == 0
        # Whether the rollout is finite, and all metrics; V-trace: where episodes were truncated.
        assert len(lists) == (3 if name == "vtrace" else 2)
