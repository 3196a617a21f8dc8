"""Tests of `agents.agent`."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import math

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from agents import (
    A2C,
    AGENTS,
    OUR_AGENTS,
    PPO,
    A2CConfig,
    AgentConfig,
    AgentError,
    PPOConfig,
    Sampler,
)
from agents.agent import NotFiniteError, following_values
from agents.objectives import (
    Contrastive,
    ContrastiveConfig,
    Masked,
    MaskedConfig,
    Objective,
    ObjectiveConfig,
    Variables,
    VariablesConfig,
)
from agents.returns import gae
from agents.rollout import minibatches
from perception import MEMORIES, VectorSpec
from tests.agents.synthetic import IMAGE, VECTOR, assert_same, make_policy, make_rollout, weights
from tests.agents.toy import LocalEnvs

STEPS, NUM_ENVS = 16, 4


def make_agent(name="ppo", *, memory="none", total_updates=1, seed=0, **options):
    kind, learner = AGENTS[name]
    policy = make_policy(memory=memory, seed=seed)
    return learner(policy, kind(**options), num_envs=NUM_ENVS, total_updates=total_updates)


@pytest.mark.parametrize("memory", MEMORIES)
@pytest.mark.parametrize("name", OUR_AGENTS)
def test_an_update_changes_every_parameter_and_all_stay_finite(name, memory):
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
def test_the_same_seed_results_in_the_same_weights_bit_for_bit(name, memory):
    def train(seed):
        agent = make_agent(name, memory=memory, seed=seed, minibatch_size=20, num_epochs=2)
        for update in range(3):
            agent.update(make_rollout(agent.policy, STEPS, NUM_ENVS, seed=update))
        return weights(agent.policy)

    assert_same(train(0), train(0))
    left, right = train(0), train(1)
    assert any(not torch.equal(left[name], right[name]) for name in left)


def test_the_rollout_is_not_changed():
    agent = make_agent(minibatch_size=8, normalize_returns=True, reward_scale=0.1)
    rollout = make_rollout(agent.policy, STEPS, NUM_ENVS)
    before = {name: part.clone() for name, part in rollout.tensors().items()}
    agent.update(rollout)
    assert_same(rollout.tensors(), before)


def test_the_learning_rate_falls_linearly_until_the_last_update():
    agent = make_agent(learning_rate=0.1, anneal_learning_rate=True, total_updates=4)
    rollout = make_rollout(agent.policy, STEPS, NUM_ENVS)
    rates = [agent.update(rollout)["learning_rate"] for _ in range(4)]
    assert rates == pytest.approx([0.1, 0.075, 0.05, 0.025])
    # Later updates change nothing; the learning rate is never negative.
    assert agent.update(rollout)["learning_rate"] == 0.0
    assert agent.update(rollout)["learning_rate"] == 0.0


def test_the_learning_rate_is_constant_if_it_is_not_annealed():
    agent = make_agent(learning_rate=0.1, total_updates=2)
    rollout = make_rollout(agent.policy, STEPS, NUM_ENVS)
    assert [agent.update(rollout)["learning_rate"] for _ in range(3)] == [0.1] * 3


def test_gradients_are_clipped_to_the_largest_norm():
    agent = make_agent("a2c", max_grad_norm=0.01)
    rollout = make_rollout(agent.policy, STEPS, NUM_ENVS)
    norm = agent.update(rollout)["grad_norm"]
    assert norm > 0.01  # The metric is the norm before clipping.
    squares = sum(p.grad.square().sum() for p in agent.policy.parameters())
    assert float(squares.sqrt()) == pytest.approx(0.01, rel=1e-3)


def test_the_numbers_of_epochs_and_minibatches_are_those_configured():
    for memory, steps in (("none", 3 * -(-64 // 20)), ("lstm", 3 * NUM_ENVS)):
        agent = make_agent(memory=memory, num_epochs=3, minibatch_size=20)
        agent.update(make_rollout(agent.policy, STEPS, NUM_ENVS))
        assert int(agent.optimizer.state_dict()["state"][0]["step"]) == steps


def test_a_last_minibatch_of_one_step_is_no_problem():
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


@pytest.mark.parametrize("name", OUR_AGENTS)
def test_time_that_runs_out_is_an_end_if_so_configured(name):
    agent = make_agent(name, bootstrap_truncated=False)
    rollout = make_rollout(agent.policy, STEPS, NUM_ENVS)
    assert (rollout.truncated & ~rollout.terminated).any()
    ended = dataclasses.replace(rollout, terminated=rollout.dones)
    like_ended = make_agent(name)
    for each, data in ((agent, rollout), (like_ended, ended)):
        torch.manual_seed(0)
        each.update(data)
    assert_same(weights(agent.policy), weights(like_ended.policy))
    bootstrapped = make_agent(name)
    torch.manual_seed(0)
    bootstrapped.update(rollout)
    found = weights(bootstrapped.policy)
    assert any(not torch.equal(found[n], w) for n, w in weights(agent.policy).items())


def test_a_reward_scale_has_the_same_effect_as_scaled_rewards():
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
        native = 10 * rollout.obs["obs"][..., 1] + rollout.actions
        assert torch.equal(rollout.rewards, native)
        assert episodes
        for episode in episodes:
            returned, length = episode.statistics["r"], episode.statistics["l"]
            least = sum(10 * step for step in range(int(length)))
            assert least <= returned <= least + 2 * length
            assert returned == round(returned)


def test_the_first_rollout_is_used_for_statistics_only():
    policy = make_policy(normalize_obs=True)
    config = PPOConfig(num_epochs=1, normalize_obs=True)
    agent = PPO(policy, config, num_envs=NUM_ENVS, total_updates=2)
    before = weights(policy)
    rollout = make_rollout(policy, STEPS, NUM_ENVS)
    assert agent.update(rollout) == {}
    obs = rollout.obs["obs"].flatten(0, 1).double()
    normalizer = policy.perception.encoders["obs"].normalizer
    torch.testing.assert_close(normalizer.mean, obs.mean(0))
    assert normalizer.count == STEPS * NUM_ENVS
    after = weights(policy)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert {name.rsplit(".", 1)[1] for name in changed} == {"mean", "variance", "count"}


def test_a_rollout_that_is_not_finite_is_not_used_for_statistics():
    policy = make_policy(normalize_obs=True)
    agent = PPO(policy, PPOConfig(normalize_obs=True), num_envs=NUM_ENVS, total_updates=3)
    broken, first = (make_rollout(policy, STEPS, NUM_ENVS, seed=seed) for seed in (0, 1))
    broken.rewards[3, 1] = torch.nan
    with pytest.raises(NotFiniteError):
        agent.update(broken, version=0)
    assert agent.update(first, version=1) == {}  # It was collected without statistics too.
    second = make_rollout(policy, STEPS, NUM_ENVS, seed=2)
    assert agent.update(second, version=1) == {}
    assert policy.perception.encoders["obs"].normalizer.count == STEPS * NUM_ENVS
    assert "approx_kl" in agent.update(second, version=2)


def test_a_resumed_agent_has_statistics_already():
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
    # With statistics of another version, the policy would not be the same as in the rollout.
    assert metrics["approx_kl"] == pytest.approx(0, abs=1e-6)
    assert policy.perception.encoders["obs"].normalizer.count == 2 * STEPS * NUM_ENVS


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
def test_the_error_for_a_value_out_of_range_names_the_field(name, field, value, message):
    with pytest.raises(ValueError, match=f"^{field} {message}$"):
        AGENTS[name][0](**{field: value})


@pytest.mark.parametrize("name", OUR_AGENTS)
def test_configurations_are_frozen_and_derived_from_agent_config(name):
    config = AGENTS[name][0]()
    assert isinstance(config, AgentConfig)
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.gamma = 0.5


FLOATS = ("logprobs", "values", "rewards", "final_values", "memory_state", "last_values")


@pytest.mark.parametrize("number", [torch.nan, torch.inf])
@pytest.mark.parametrize("part", [*FLOATS, "obs"])
@pytest.mark.parametrize("later", [False, True])
def test_a_rollout_that_is_not_finite_changes_nothing(part, number, later):
    agent = make_agent(memory="lstm")
    rollout = make_rollout(agent.policy, STEPS, NUM_ENVS)
    if later:
        agent.update(rollout)
    before = weights(agent.policy), copy.deepcopy(agent.optimizer.state_dict())
    broken = next(iter(rollout.obs.values())) if part == "obs" else getattr(rollout, part)
    broken.view(-1)[-1] = number
    with pytest.raises(NotFiniteError, match=f"{part}.* of the rollout are not finite"):
        agent.update(rollout)
    assert_same(weights(agent.policy), before[0])
    assert str(agent.optimizer.state_dict()) == str(before[1])
    assert agent.num_updates == later + 1


@pytest.mark.parametrize("later", [False, True])
def test_a_gradient_that_is_not_finite_undoes_the_whole_update(later):
    agent = make_agent(minibatch_size=16, num_epochs=2)
    rollout = make_rollout(agent.policy, STEPS, NUM_ENVS)
    if later:
        agent.update(rollout)
    before = weights(agent.policy), copy.deepcopy(agent.optimizer.state_dict())
    loss, calls = agent.loss, itertools.count()

    def broken_loss(output, batch):
        value, metrics = loss(output, batch)
        return (value * torch.nan if next(calls) == 5 else value), metrics

    agent.loss = broken_loss
    with pytest.raises(NotFiniteError, match="the gradients are not finite"):
        agent.update(rollout)
    assert next(calls) == 8  # Whether all was finite is read once, at the end.
    assert_same(weights(agent.policy), before[0])
    assert str(agent.optimizer.state_dict()) == str(before[1])
    # The next update works.
    agent.update(rollout)
    assert all(weight.isfinite().all() for weight in weights(agent.policy).values())


class Readings(TorchDispatchMode):
    """Counts how often Python reads a number from a tensor, which would wait for a GPU."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        """Count, and run the operation."""
        reads = (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.is_nonzero.default)
        self.count += func in reads
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("memory", ["none", "lstm"])
@pytest.mark.parametrize("name", OUR_AGENTS)
def test_the_number_of_readings_does_not_depend_on_the_number_of_minibatches(
    monkeypatch, name, memory
):
    lists = []
    tolist = torch.Tensor.tolist
    monkeypatch.setattr(torch.Tensor, "tolist", lambda t: lists.append(t.shape) or tolist(t))
    for options in ({}, {"num_epochs": 4, "minibatch_size": 16}):
        fields = {field.name for field in dataclasses.fields(AGENTS[name][0])}
        options = {key: value for key, value in options.items() if key in fields}
        agent = make_agent(name, memory=memory, normalize_returns=True, **options)
        rollout = make_rollout(agent.policy, STEPS, NUM_ENVS)
        agent.update(rollout)  # The optimiser's first step allocates its state.
        lists.clear()
        with Readings() as readings:
            agent.update(rollout)
        assert readings.count == 0
        # Whether the rollout is finite, and all metrics; V-trace: where episodes were truncated.
        assert len(lists) == (3 if name == "vtrace" else 2)


# Frozen and unused parameters


def part_of(agent, kind):
    """Return the parameters of the encoders, or all others of the policy, by name."""
    named = agent.policy.named_parameters()
    return {n: p for n, p in named if n.startswith("perception.encoders") == (kind == "encoders")}


@pytest.mark.parametrize("memory", MEMORIES)
@pytest.mark.parametrize("name", OUR_AGENTS)
@pytest.mark.parametrize("later", [False, True])
def test_frozen_parameters_stay_and_others_change(later, name, memory):
    """Also if they are frozen after an update, when they still have gradients and momentum."""
    agent = make_agent(name, memory=memory)
    rollout = make_rollout(agent.policy, STEPS, NUM_ENVS)
    if later:
        agent.update(rollout)
    agent.policy.perception.encoders.requires_grad_(requires_grad=False)
    before = weights(agent.policy)
    agent.update(rollout)
    after = weights(agent.policy)
    for key in part_of(agent, "encoders"):
        assert torch.equal(after[key], before[key]), key
    for key in part_of(agent, "others"):
        assert not torch.equal(after[key], before[key]), key


@pytest.mark.parametrize("name", OUR_AGENTS)
def test_a_frozen_encoder_without_statistics_costs_no_rollout(name):
    """Nothing would ever give it any; neither at the beginning nor after resuming."""
    kind, learner = AGENTS[name]
    policy = make_policy(specs={"screen": SEEN["screen"]}, normalize_obs=True)
    agent = learner(policy, kind(), num_envs=NUM_ENVS, total_updates=2)
    agent.policy.perception.freeze_encoders()
    for _ in range(2):
        assert agent._first_statistics(make_rollout(agent.policy, STEPS, NUM_ENVS)) == 0
        agent.num_updates += 1


def test_frozen_parameters_do_not_count_for_the_norm_of_the_gradient():
    norms = {}
    for frozen in (False, True):
        agent = make_agent("a2c", max_grad_norm=1e9)
        agent.policy.perception.requires_grad_(requires_grad=not frozen)
        rollout = make_rollout(agent.policy, STEPS, NUM_ENVS)
        norms[frozen] = agent.update(rollout)["grad_norm"]
        gradients = [p.grad for p in agent.policy.parameters() if p.grad is not None]
        total = torch.cat([gradient.flatten() for gradient in gradients]).norm()
        assert norms[frozen] == pytest.approx(float(total), rel=1e-5)
    assert norms[True] < norms[False]


class ValueOnly(A2C):
    """Learns values only, so that the actor is unused; `use_actor` changes that."""

    use_actor = False

    def loss(self, output, batch):
        loss = (output.values - batch.returns).square().mean()
        if self.use_actor:
            loss = loss + output.distribution.log_prob(batch.actions).mean()
        return loss, {"loss": loss}


def value_only(memory="none"):
    policy = make_policy(memory=memory)
    return ValueOnly(policy, A2CConfig(), num_envs=NUM_ENVS, total_updates=1)


@pytest.mark.parametrize("num_parts", [1, 2])
@pytest.mark.parametrize("memory", MEMORIES)
def test_unused_parameters_stay_and_others_change(memory, num_parts):
    agent = value_only(memory)
    agent._num_parts = num_parts
    before = weights(agent.policy)
    agent.update(make_rollout(agent.policy, STEPS, NUM_ENVS))
    for name, parameter in agent.policy.named_parameters():
        unused = name.startswith("actor.")
        assert torch.equal(parameter, before[name]) == unused, name
        assert (parameter.grad is None) == unused, name


def test_undoing_the_first_step_of_some_parameters_keeps_the_state_of_others():
    agent = value_only()
    rollout = make_rollout(agent.policy, STEPS, NUM_ENVS)
    agent.update(rollout)
    before = weights(agent.policy), copy.deepcopy(agent.optimizer.state_dict())
    assert len(agent.optimizer.state) < len(agent.parameters)
    agent.use_actor = True
    loss = agent.loss

    def broken_loss(output, batch):
        value, metrics = loss(output, batch)
        return value * torch.nan, metrics

    agent.loss = broken_loss
    with pytest.raises(NotFiniteError, match="the gradients are not finite"):
        agent.update(rollout)
    assert_same(weights(agent.policy), before[0])
    assert str(agent.optimizer.state_dict()) == str(before[1])
    agent.loss = loss
    agent.update(rollout)
    assert len(agent.optimizer.state) == len(agent.parameters)


# Objectives

TARGETS = ("HEALTH", "ENEMY_IN_VIEW")
SEEN = {"screen": IMAGE, "variables": VECTOR}


def make_agent_with(kinds, *, memory="none", num_parts=1, name="a2c", **options):
    """Return an agent with objectives, given by name as pairs of class and configuration."""
    torch.manual_seed(0)
    policy = make_policy(specs=SEEN, memory=memory)
    objectives = {key: kind(policy, config, TARGETS) for key, (kind, config) in kinds.items()}
    config_class, learner = AGENTS[name]
    config = config_class(**{"max_grad_norm": 1e9, **options})
    agent = learner(policy, config, num_envs=NUM_ENVS, total_updates=1, objectives=objectives)
    agent._num_parts = num_parts
    return agent


def update_with(agent, **options):
    """Update an agent once, with one minibatch, and return its gradients and metrics."""
    rollout = make_rollout(agent.policy, STEPS, NUM_ENVS, targets=TARGETS, **options)
    torch.manual_seed(1)
    metrics = agent.update(rollout)
    return [parameter.grad for parameter in agent.parameters], metrics


def simple_gradients(agent, **options):
    """Return the gradients of the sum of the agent's loss and its weighted objectives."""
    rollout = make_rollout(agent.policy, STEPS, NUM_ENVS, targets=TARGETS, **options)
    torch.manual_seed(1)
    advantages, returns = agent.estimate(rollout, rollout.rewards)
    (batch,) = minibatches(
        rollout,
        advantages,
        returns,
        minibatch_size=STEPS * NUM_ENVS,
        length=agent.sequence_length(len(rollout.rewards)),
    )
    output = agent.policy(batch.obs, batch.memory_state, batch.episode_starts)
    loss, _ = agent.loss(output, batch)
    for objective in agent.objectives.values():
        objective.observe(agent.policy, rollout)
        loss = loss + objective.config.coef * objective.loss(agent.policy, output, batch)[0]
    return torch.autograd.grad(loss, agent.parameters)


def assert_close_gradients(left, right, tolerance=1e-6):
    for one, other in zip(left, right, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=tolerance)


def farthest(left, right):
    """Return the largest relative distance of two gradients of the same parameter."""
    pairs = zip(left, right, strict=True)
    return max(float((a - b).norm() / (b.norm() + 1e-6)) for a, b in pairs)


BOTH = {
    "variables": (Variables, VariablesConfig(coef=0.7)),
    "contrastive": (Contrastive, ContrastiveConfig(coef=0.3)),
}


@pytest.mark.parametrize("num_parts", [1, 2, 3])
@pytest.mark.parametrize("memory", MEMORIES)
@pytest.mark.parametrize("kinds", [("variables",), ("variables", "contrastive")], ids=str)
def test_the_gradient_is_that_of_the_weighted_sum_of_losses(kinds, memory, num_parts):
    kinds = {name: BOTH[name] for name in kinds}
    expected = simple_gradients(make_agent_with(kinds, memory=memory))
    gradients, metrics = update_with(make_agent_with(kinds, memory=memory, num_parts=num_parts))
    assert_close_gradients(gradients, expected)
    without, _ = update_with(make_agent_with({}, memory=memory))
    heads = sum(len(list(kind.parameters())) for kind in make_agent_with(kinds).objectives.values())
    assert len(gradients) == len(without) + heads
    assert farthest(gradients[: len(without)], without) > 0.01
    names = ("loss", "HEALTH", "ENEMY_IN_VIEW", "coef")
    assert {f"objectives/variables/{name}" for name in names} <= metrics.keys()
    assert ("objectives/contrastive/accuracy" in metrics) == ("contrastive" in kinds)


@pytest.mark.parametrize("name", OUR_AGENTS)
def test_updates_of_every_agent_with_objectives_do_not_depend_on_the_number_of_parts(name):
    updated = []
    for num_parts in (1, 2):
        agent = make_agent_with(BOTH, name=name, num_parts=num_parts, learning_rate=1e-3)
        before = [parameter.clone() for parameter in agent.parameters]
        _, metrics = update_with(agent)
        assert all(math.isfinite(value) for value in metrics.values())
        assert not any(map(torch.equal, before, agent.parameters))
        updated.append((agent.parameters, metrics))
    (one, metrics_of_one), (other, metrics_of_other) = updated
    for left, right in zip(one, other, strict=True):
        # In each element, a step of the optimiser is about as long as the learning rate.
        torch.testing.assert_close(left, right, rtol=0, atol=5e-5)
    for key in metrics_of_one:
        assert metrics_of_one[key] == pytest.approx(metrics_of_other[key], rel=1e-3, abs=1e-4), key


@pytest.mark.parametrize("split", [False, True])
def test_a_contrastive_loss_must_not_be_split(monkeypatch, split):
    """With `splittable`, as a positive control, the gradient depends on the number of parts."""
    monkeypatch.setattr(Contrastive, "splittable", split)
    # Without random numbers, which the parts would consume in any order.
    monkeypatch.setattr(
        "agents.objectives.contrastive.randomly_shifted", lambda images, largest: images
    )
    kinds = {"contrastive": (Contrastive, ContrastiveConfig(coef=10.0))}
    one, other = (update_with(make_agent_with(kinds, num_parts=n))[0] for n in (1, 2))
    if split:
        assert farthest(one, other) > 0.01
    else:
        assert_close_gradients(one, other, tolerance=1e-5)


@pytest.mark.parametrize("kind", [(Contrastive, ContrastiveConfig()), (Masked, MaskedConfig())])
def test_an_objective_that_needs_no_output_costs_no_pass_through_the_policy(kind):
    counts = []
    for kinds in ({}, {"it": kind}):
        agent = make_agent_with(kinds, num_parts=1)
        passes: list[int] = []
        agent.policy.register_forward_hook(lambda *_, passes=passes: passes.append(1))
        update_with(agent)
        counts.append(len(passes))
    assert counts[0] == counts[1] > 0


def test_an_objective_with_coefficient_0_has_no_influence_on_the_policy():
    kinds = {"variables": (Variables, VariablesConfig(coef=0.0))}
    gradients, metrics = update_with(make_agent_with(kinds))
    expected, _ = update_with(make_agent_with({}))
    assert_close_gradients(gradients[: len(expected)], expected, tolerance=1e-7)
    assert not any(gradients[len(expected) :])
    assert not [name for name in metrics if name.startswith("objectives/")]


class Spy(Objective):
    """An objective that keeps the shapes of its minibatches, and adds advantages of 2."""

    def __init__(self, sequence_length, config=None, *, adds=False):
        super().__init__(None, config or ObjectiveConfig(), ())
        self.sequence_length, self.adds, self.shapes = sequence_length, adds, []

    def loss(self, policy, output, batch):
        self.shapes.append(tuple(batch.actions.shape))
        return output.features.square().mean(), {}

    def advantages(self, rollout):
        return torch.full_like(rollout.rewards, 2.0) if self.adds else None


def make_agent_with_spy(spy, *, memory="none", total_updates=1, **options):
    policy = make_policy(memory=memory)
    config = A2CConfig(**{"rollout_length": STEPS, **options})
    objectives = {"spy": spy}
    return A2C(
        policy, config, num_envs=NUM_ENVS, total_updates=total_updates, objectives=objectives
    )


@pytest.mark.parametrize(
    ("length", "coef", "memory", "shapes"),
    [
        (1, 0.1, "none", [(1, 40), (1, 24)]),
        (2, 0.1, "none", [(STEPS, 2), (STEPS, 2)]),
        (1, 0.1, "gru", [(STEPS, 2), (STEPS, 2)]),
        (2, 0.0, "none", []),
    ],
)
def test_minibatches_are_sequences_only_if_an_objective_or_the_memory_needs_them(
    length, coef, memory, shapes
):
    spy = Spy(length, ObjectiveConfig(coef=coef))
    agent = make_agent_with_spy(spy, memory=memory, minibatch_size=40)
    assert agent.sequence_length(STEPS) == (shapes[0][0] if shapes else 1)
    agent.update(make_rollout(agent.policy, STEPS, NUM_ENVS))
    assert spy.shapes == shapes


@pytest.mark.parametrize(
    ("compared", "steps", "expected"),
    [(1, 64, 1), (2, 64, 16), (6, 64, 16), (21, 64, 64), (2, 6, 6)],
)
def test_without_memory_sequences_are_parts_of_rollouts(compared, steps, expected):
    agent = make_agent_with_spy(Spy(compared), rollout_length=steps)
    assert agent.sequence_length(steps) == expected


def test_sequences_of_a_policy_without_memory_result_in_the_same_gradient():
    gradients = []
    for length in (1, 2):
        agent = make_agent_with_spy(Spy(length), max_grad_norm=1e9)
        agent.update(make_rollout(agent.policy, STEPS, NUM_ENVS))
        gradients.append([p.grad for p in agent.parameters])
    assert_close_gradients(*gradients)


class Steep(Spy):
    """A spy with a parameter whose gradient is 1,000,000, and with no effect on the policy."""

    def __init__(self):
        super().__init__(1)
        self.slope = nn.Parameter(torch.zeros(()))

    def loss(self, policy, output, batch):
        return 1e7 * self.slope, {}


def test_the_gradients_of_an_objective_do_not_shrink_those_of_the_policy():
    updated = []
    for spy in (Spy(1, ObjectiveConfig(coef=0.0)), Steep()):
        agent = make_agent_with_spy(spy)
        metrics = agent.update(make_rollout(agent.policy, STEPS, NUM_ENVS))
        updated.append((weights(agent.policy), metrics))
    (alone, before), (beside, after) = updated
    assert_same(alone, beside)
    assert after["grad_norm"] == before["grad_norm"]
    assert after["objectives/spy/grad_norm"] == pytest.approx(1e6)
    assert "objectives/spy/grad_norm" not in before


def test_an_objective_that_needs_longer_rollouts_is_refused_in_one_line():
    message = (
        f"^the objective spy needs {STEPS + 1} env steps in a row, but rollouts have {STEPS}; "
        "raise --rollout-length$"
    )
    make_agent_with_spy(Spy(STEPS))
    with pytest.raises(AgentError, match=message):
        make_agent_with_spy(Spy(STEPS + 1))


def test_weights_follow_their_schedule():
    configs = {
        "constant": ObjectiveConfig(coef=0.4),
        "linear": ObjectiveConfig(coef=0.4, coef_schedule="linear"),
    }
    for name, config in configs.items():
        agent = make_agent_with_spy(Spy(1, config), total_updates=4)
        rollout = make_rollout(agent.policy, STEPS, NUM_ENVS)
        coefs = [agent.update(rollout).get("objectives/spy/coef") for _ in range(5)]
        expected = [0.4] * 5 if name == "constant" else [0.4, 0.3, 0.2, 0.1, None]
        assert coefs == [value if value is None else pytest.approx(value) for value in expected]
        # The number of updates is all that the weight depends on, and it is in checkpoints.
        resumed = make_agent_with_spy(Spy(1, config), total_updates=4)
        resumed.num_updates = 3
        last = resumed.update(rollout)["objectives/spy/coef"]
        assert last == pytest.approx(expected[3])


@pytest.mark.parametrize(("schedule", "factors"), [("constant", (1, 1)), ("linear", (1, 0.5))])
def test_advantages_of_an_objective_are_added(monkeypatch, schedule, factors):
    config = ObjectiveConfig(coef=0.1, coef_schedule=schedule)
    agent = make_agent_with_spy(Spy(1, config, adds=True), total_updates=2)
    rollout = make_rollout(agent.policy, STEPS, NUM_ENVS)
    advantages, returns = agent.estimate(rollout, rollout.rewards)
    learned = []

    def spied(rollout, *estimated, **options):
        learned.append(estimated)
        return minibatches(rollout, *estimated, **options)

    monkeypatch.setattr("agents.agent.minibatches", spied)
    for factor in factors:
        agent.update(rollout)
        torch.testing.assert_close(learned[-1][0], advantages + factor * 2.0)
        assert torch.equal(learned[-1][1], returns)


def test_the_targets_of_all_objectives_are_named_once():
    kinds = {
        "one": (Variables, VariablesConfig(names=("HEALTH",))),
        "other": (Variables, VariablesConfig(names=("ENEMY_IN_VIEW", "HEALTH"))),
        "contrastive": BOTH["contrastive"],
    }
    assert make_agent_with(kinds).target_names == ("HEALTH", "ENEMY_IN_VIEW")
    assert make_agent_with({}).target_names == ()


def test_objectives_learn_with_a_frozen_policy():
    agent = make_agent_with({"variables": BOTH["variables"]})
    agent.policy.requires_grad_(requires_grad=False)
    before = weights(agent.policy), weights(agent.objectives["variables"])
    update_with(agent)
    assert_same(weights(agent.policy), before[0])
    after = weights(agent.objectives["variables"])
    assert not any(torch.equal(after[key], before[1][key]) for key in ("head.weight", "head.bias"))


def test_targets_that_are_not_finite_are_named():
    agent = make_agent_with({"variables": BOTH["variables"]})
    rollout = make_rollout(agent.policy, STEPS, NUM_ENVS, targets=TARGETS)
    rollout.targets["HEALTH"][3, 1] = torch.nan
    with pytest.raises(NotFiniteError, match=r"^targets/HEALTH of the rollout are not finite$"):
        agent.update(rollout)
