"""Tests of `agents.objectives` and `agents.objectives.objective`, for every objective."""

from __future__ import annotations

import contextlib
import copy
import math

import pytest
import torch

from agents import A2C, OBJECTIVES, A2CConfig, Sampler, make_objectives, observation_specs
from agents.objectives import Objective, ObjectiveConfig
from envs import EnvConfig, SharedVectorEnv
from perception import ENCODERS, MEMORIES
from tests.agents.synthetic import (
    IMAGE,
    VECTOR,
    assert_same,
    make_policy,
    make_rollout,
    side_by_side,
    taught,
    weights,
)
from tests.agents.toy import LocalEnvs
from training.presets import preset

SPECS = {"screen": IMAGE, "variables": VECTOR}
TARGETS = ("ENEMY_IN_VIEW", "HEALTH", "DEPTH_0_0", "MONSTER_IN_VIEW_0")
STEPS, NUM_ENVS = 8, 4


WITHOUT_HEADS = ("distill", "adversarial", "noise", "shift")  # They use the policy's own.
WITHOUT_FEATURES = ("rnd",)  # They have networks of their own, and change the policy by rewards.


def make_agent(name, policy=None, config=None, **options):
    """Return an agent with one objective."""
    policy = policy or make_policy(specs=SPECS, **options)
    objectives = make_objectives(policy, {name: config or OBJECTIVES[name][0]()}, TARGETS)
    taught(objectives, policy, NUM_ENVS)
    return A2C(policy, A2CConfig(), num_envs=NUM_ENVS, total_updates=1, objectives=objectives)


@pytest.mark.parametrize(
    ("name", "memory", "precision"),
    [
        *((name, "none", "float32") for name in OBJECTIVES if name not in WITHOUT_HEADS),
        *side_by_side(OBJECTIVES, list(MEMORIES)[1:], ["bfloat16", "float32"]),
    ],
)
def test_an_objective_changes_its_heads_with_and_without_memory(name, memory, precision):
    agent = make_agent(name, memory=memory, precision=getattr(torch, precision))
    before = {key: p.clone() for key, p in trained(agent.objectives[name])}
    assert bool(before) != (name in WITHOUT_HEADS)
    metrics = agent.update(make_rollout(agent.policy, STEPS, NUM_ENVS, targets=TARGETS))
    for key, parameter in trained(agent.objectives[name]):
        assert parameter.dtype == torch.float32
        assert torch.isfinite(parameter).all()
        assert not torch.equal(parameter, before[key]), key
    own = {key: value for key, value in metrics.items() if key.startswith(f"objectives/{name}/")}
    assert own[f"objectives/{name}/coef"] == agent.objectives[name].config.coef
    assert f"objectives/{name}/loss" in own
    assert all(math.isfinite(value) for value in own.values())


@pytest.mark.parametrize(("name", "encoder"), side_by_side(OBJECTIVES, ENCODERS))
def test_an_objective_shapes_the_encoder(name, encoder):
    """With the objective alone, the parameters of the image encoder get gradients."""
    policy = make_policy(specs=SPECS, encoder=encoder)
    objectives = make_objectives(policy, {name: OBJECTIVES[name][0]()}, TARGETS)
    (objective,) = taught(objectives, policy, NUM_ENVS).values()
    objective.set_num_envs(NUM_ENVS)
    rollout = make_rollout(policy, STEPS, NUM_ENVS, targets=TARGETS)
    rollout.targets.update(objective.targets_of(policy, rollout))
    objective.observe(policy, rollout)
    output = policy(rollout.obs, rollout.memory_state, rollout.episode_starts)
    loss, _ = objective.loss(policy, output, rollout)
    loss.backward()
    encoder_parameters = list(policy.perception.encoders["screen"].parameters())
    assert encoder_parameters
    touched = [p for p in encoder_parameters if p.grad is not None and p.grad.any()]
    assert len(touched) > 0.7 * len(encoder_parameters) or name in WITHOUT_FEATURES
    of_actor = [parameter.grad is not None for parameter in policy.actor.parameters()]
    assert all(of_actor) if name in WITHOUT_HEADS else not any(of_actor)


def trained(objective):
    return [(key, p) for key, p in objective.named_parameters() if p.requires_grad]


@pytest.mark.parametrize("memory", ["none", "lstm"])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_with_a_weight_of_0_an_update_is_the_same_bit_for_bit(name, memory):
    updated = []
    for config in (OBJECTIVES[name][0](coef=0.0), OBJECTIVES[name][0](), None):
        agent = make_agent(name, config=config, memory=memory)
        heads = weights(agent.objectives[name])
        if config is None:
            agent = A2C(agent.policy, A2CConfig(), num_envs=NUM_ENVS, total_updates=1)
        torch.manual_seed(1)
        metrics = agent.update(make_rollout(agent.policy, STEPS, NUM_ENVS, targets=TARGETS))
        updated.append(weights(agent.policy))
        if config is not None and config.coef == 0:
            assert_same(weights(agent.objectives[name]), heads)
            assert not [key for key in metrics if key.startswith("objectives/")]
    zero, usual, without = updated
    assert_same(zero, without)
    # A positive control: with its usual weight, the objective changes the policy.
    assert any(not torch.equal(usual[key], without[key]) for key in without)


@pytest.mark.parametrize(("name", "memory"), side_by_side(OBJECTIVES, MEMORIES))
def test_gradients_do_not_depend_on_the_number_of_parts(name, memory):
    gradients = []
    for num_parts in (1, 3):
        agent = make_agent(name, memory=memory, config=OBJECTIVES[name][0](coef=1.0))
        agent._num_parts = num_parts
        rollout = make_rollout(agent.policy, STEPS, NUM_ENVS, targets=TARGETS)
        torch.manual_seed(1)
        agent.update(rollout)
        gradients.append([p.grad for p in agent.parameters])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", [name for name in OBJECTIVES if name not in WITHOUT_HEADS])
def test_the_state_of_an_objective_can_be_saved_and_loaded(name):
    first, second = make_agent(name), make_agent(name)
    rollout = make_rollout(first.policy, STEPS, NUM_ENVS, targets=TARGETS)
    first.update(rollout)
    state = weights(first.objectives[name])
    assert any(
        not torch.equal(part, state[key])
        for key, part in second.objectives[name].state_dict().items()
    )
    second.policy.load_state_dict(first.policy.state_dict())
    second.objectives[name].load_state_dict(state)
    second.optimizer.load_state_dict(copy.deepcopy(first.optimizer.state_dict()))
    assert_same(weights(second.objectives[name]), state)
    for agent in (first, second):
        torch.manual_seed(5)
        agent.update(rollout)
    assert_same(weights(first.policy), weights(second.policy))
    assert_same(weights(first.objectives[name]), weights(second.objectives[name]))


@pytest.mark.parametrize("name", OBJECTIVES)
def test_heads_do_not_belong_to_the_policy(name):
    agent = make_agent(name)
    assert agent.policy.state_dict().keys() == make_policy(specs=SPECS).state_dict().keys()
    ours = {id(parameter) for parameter in agent.policy.parameters()}
    heads = list(agent.objectives[name].parameters())
    assert not ours & {id(parameter) for parameter in heads}
    learned = ours | {id(p) for p in heads if p.requires_grad}
    assert {id(parameter) for parameter in agent.parameters} == learned


@pytest.mark.parametrize("name", OBJECTIVES)
def test_an_objective_learns_from_rollouts_of_a_sampler(name):
    """Also that its targets come from the environments' infos: see test_sampler.py for which."""
    envs = LocalEnvs("tests.agents.toy:Gauge-v0", NUM_ENVS, 2, height=36, width=40)
    policy = make_policy(specs=observation_specs(envs.single_observation_space, {}))
    objectives = make_objectives(policy, {name: OBJECTIVES[name][0]()}, envs.info_keys)
    taught(objectives, policy, NUM_ENVS)
    agent = A2C(policy, A2CConfig(), num_envs=NUM_ENVS, total_updates=2, objectives=objectives)
    sampler = Sampler(envs, policy, rollout_length=STEPS, seed=0, targets=agent.target_names)
    with contextlib.closing(sampler):
        for _ in range(2):
            rollout = sampler.collect().rollout
            assert rollout.targets.keys() == set(agent.target_names)
            metrics = agent.update(rollout)
    assert all(math.isfinite(value) for value in metrics.values())


def test_the_targets_of_all_objectives_are_infos_of_doom():
    targets = preset("basic", "a2c", tuple(OBJECTIVES))
    asked = {key[4:]: value for key, value in targets.items() if key.endswith("_targets")}
    config = EnvConfig(env="basic", height=36, width=40, **asked)
    with contextlib.closing(SharedVectorEnv(config, 2, 1)) as envs:
        specs = observation_specs(envs.single_observation_space, envs.metadata)
        policy = make_policy(specs=specs, actions=envs.single_action_space)
        configs = {name: kind() for name, (kind, _) in OBJECTIVES.items()}
        objectives = make_objectives(policy, configs, envs.info_keys)
        taught(objectives, policy, 2)
        agent = A2C(policy, A2CConfig(), num_envs=2, total_updates=1, objectives=objectives)
        sampler = Sampler(envs, policy, rollout_length=4, seed=0, targets=agent.target_names)
        with contextlib.closing(sampler):
            metrics = agent.update(sampler.collect().rollout)
    assert all(math.isfinite(metrics[f"objectives/{name}/loss"]) for name in OBJECTIVES)


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("coef", [-0.1, float("nan")])
def test_a_negative_coefficient_is_an_error(name, coef):
    with pytest.raises(ValueError, match=r"^coef must not be negative, got"):
        OBJECTIVES[name][0](coef=coef)


class Constant(Objective[ObjectiveConfig]):
    """An objective without heads, that is new to the registry."""

    def loss(self, policy, output, batch):
        return output.features.square().mean(), {}


def test_an_objective_is_added_by_one_line(monkeypatch):
    monkeypatch.setitem(OBJECTIVES, "constant", (ObjectiveConfig, Constant))
    agent = make_agent("constant")
    metrics = agent.update(make_rollout(agent.policy, STEPS, NUM_ENVS))
    assert metrics["objectives/constant/loss"] > 0
    assert agent.target_names == ()
