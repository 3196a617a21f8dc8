"""The code for a GPU, run without one: devices, copies and readings, for all registries."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from gymnasium import spaces

from agents import OBJECTIVES, OUR_AGENTS, Sampler, build_policy, make_objectives
from agents.rollout import minibatches
from perception import ENCODERS, MEMORIES, VectorSpec
from tests.agents.fake_cuda import CUDA, fake_gpu, needs_compiler, register_guard, to_fake_gpu
from tests.agents.synthetic import (
    IMAGE,
    make_rollout,
    moved,
    side_by_side,
    small_config,
    taught,
)
from tests.agents.toy import ACTION_SPACES, LocalEnvs

pytestmark = needs_compiler
STEPS, NUM_ENVS, NUM_GROUPS = 5, 4, 2
LENGTHS = 2, 4  # Of rollouts, of which only the differences in the number of copies count.
SPECS = {"screen": IMAGE, "variables": VectorSpec(size=3)}
TARGETS = ("HEALTH", "ENEMY_IN_VIEW", "DEPTH_0_0", "MONSTER_IN_VIEW_0")


ENTRIES = side_by_side(OUR_AGENTS, ENCODERS, MEMORIES, {"bfloat16": None, "float32": None})


@pytest.fixture(autouse=True, scope="module")
def _guard(tmp_path_factory):
    register_guard(tmp_path_factory.mktemp("guard"))


@pytest.fixture(autouse=True)
def _no_streams(monkeypatch):
    """A fake GPU has no streams."""
    monkeypatch.setattr("agents.sampler.stream_of", lambda device: None)


def make_policy(specs=SPECS, actions=None, encoder="nature", memory="none", **options):
    config = small_config(encoder, memory)
    return build_policy(specs, actions or spaces.Discrete(3), config, **options)


def all_objectives(policy):
    configs = {name: kind() for name, (kind, _) in OBJECTIVES.items()}
    return taught(make_objectives(policy, configs, TARGETS), policy, NUM_ENVS)


def make_agent(name, policy, objectives=None, **options):
    kind, learner = OUR_AGENTS[name]
    fields = {field.name for field in dataclasses.fields(kind)}
    config = kind(**{key: value for key, value in options.items() if key in fields})
    return learner(policy, config, num_envs=NUM_ENVS, total_updates=1, objectives=objectives)


def devices(agent):
    """Return the kinds of devices of all parameters, gradients and statistics of the optimiser."""
    tensors = [*agent.parameters, *(p.grad for p in agent.parameters)]
    # PyTorch counts RMSProp's steps on the CPU.
    states = agent.optimizer.state.values()
    tensors += [state[key] for state in states for key in state if key != "step"]
    return {tensor.device.type for tensor in tensors}


@pytest.mark.parametrize(("name", "encoder", "memory", "precision"), ENTRIES)
def test_an_update_stays_on_the_gpu(name, encoder, memory, precision):
    precision = getattr(torch, precision)
    policy = make_policy(encoder=encoder, memory=memory, normalize_obs=True, precision=precision)
    collected = make_rollout(policy, STEPS, NUM_ENVS)
    with fake_gpu() as transfers:
        to_fake_gpu(policy)
        options = {"num_epochs": 3, "minibatch_size": 10}
        agent = make_agent(name, policy, normalize_returns=True, normalize_obs=True, **options)
        rollout = moved(collected, CUDA)
        agent._statistics_since = 0
        agent.update(rollout)  # The optimiser's first step allocates its state.
        transfers.count.clear()
        agent.update(rollout)
        assert devices(agent) == {"cuda"}
        assert transfers.count["down"] == 0
        # Whether the rollout is finite, all metrics, and for V-trace where it was truncated.
        assert transfers.count["read"] == 2 + (name == "vtrace")
        # The order of each epoch.
        assert transfers.count["up"] <= agent.config.num_epochs + (name == "vtrace")


def test_objectives_stay_on_the_gpu():
    policy = make_policy()
    collected = make_rollout(policy, STEPS, NUM_ENVS, targets=TARGETS)
    objectives = all_objectives(policy)
    with fake_gpu() as transfers:
        for module in (policy, *objectives.values(), *objectives["distill"]._teacher):
            to_fake_gpu(module)
        agent = make_agent("a2c", policy, objectives)
        rollout = moved(collected, CUDA)
        agent.update(rollout)
        transfers.count.clear()
        agent.update(rollout)
        assert devices(agent) == {"cuda"}
        tensors = [t for o in agent.objectives.values() for t in o.state_dict().values()]
        assert {tensor.device.type for tensor in tensors} == {"cuda"}
        assert transfers.count["down"] == 0
        assert transfers.count["read"] == 2


@pytest.mark.parametrize(("actions", "memory"), side_by_side(ACTION_SPACES, MEMORIES))
def test_an_env_step_is_one_copy_up_and_one_down(actions, memory):
    counts = []
    for rollout_length in LENGTHS:
        envs = LocalEnvs(f"tests.agents.toy:Identity{actions}-v0", NUM_ENVS, NUM_GROUPS)
        specs = {"obs": VectorSpec(size=envs.single_observation_space.shape[0])}
        policy = make_policy(specs, envs.single_action_space, memory=memory)
        with fake_gpu() as transfers:
            to_fake_gpu(policy)
            sampler = Sampler(
                envs, policy, rollout_length=rollout_length, seed=0, inference="eager"
            )
            sampler.collect()
            transfers.count.clear()
            rollout = sampler.collect().rollout
            assert {t.device.type for t in rollout.tensors().values()} == {"cuda"}
            # Last observations of truncated episodes are copied too, if there are any.
            transfers.count["up"] -= len(rollout.final_steps) > 0
            counts.append(dict(transfers.count))
    once, longer = counts
    for direction in ("up", "down"):
        assert longer[direction] - once[direction] == (LENGTHS[1] - LENGTHS[0]) * NUM_GROUPS, (
            direction
        )
        assert once[direction] - LENGTHS[0] * NUM_GROUPS <= 12, direction  # Once a rollout.
    assert "read" not in once


@pytest.mark.parametrize("on_gpu", [False, True])
def test_environments_may_return_tensors(on_gpu):

    def as_array(array):
        tensor = torch.from_numpy(array)
        return tensor.to(CUDA) if on_gpu else tensor

    counts = []
    for rollout_length in LENGTHS:
        envs = LocalEnvs("tests.agents.toy:IdentityDiscrete-v0", NUM_ENVS, NUM_GROUPS)
        policy = make_policy({"obs": VectorSpec(size=3)})
        with fake_gpu() as transfers:
            to_fake_gpu(policy)
            obs = {"obs": as_array(envs.current_obs(0)["obs"])}
            envs.current_obs = lambda group, obs=obs: obs
            sampler = Sampler(
                envs, policy, rollout_length=rollout_length, seed=0, inference="eager"
            )
            transfers.count.clear()
            rollout = sampler.collect().rollout
            assert {t.device.type for t in rollout.tensors().values()} == {"cuda"}
            counts.append(transfers.count["up"])
    # Whether episodes start is copied in any case.
    assert counts[1] - counts[0] == (LENGTHS[1] - LENGTHS[0]) * NUM_GROUPS


@pytest.mark.parametrize(("name", "encoder", "memory"), [entry[:3] for entry in ENTRIES])
def test_the_backward_pass_stays_on_the_device(monkeypatch, name, encoder, memory):
    # It is not defined for the meta device.
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda device: False)
    policy = make_policy(encoder=encoder, memory=memory, normalize_obs=True)
    collected = make_rollout(policy, STEPS, NUM_ENVS, targets=TARGETS)
    for objective in all_objectives(policy).values():
        objective.set_num_envs(NUM_ENVS)
        collected.targets.update(objective.targets_of(policy, collected))
    policy.to("meta")
    agent = make_agent(name, policy, all_objectives(policy))
    rollout = moved(collected, torch.device("meta"))
    (batch,) = minibatches(
        rollout,
        rollout.rewards,
        rollout.rewards,
        minibatch_size=STEPS * NUM_ENVS,
        length=agent.sequence_length(len(rollout.rewards)),
    )
    metrics = agent._differentiate(batch)
    gradients = [parameter.grad for parameter in agent.parameters]
    assert {t.device.type for t in (*gradients, *metrics.values())} == {"meta"}
    assert [g.shape for g in gradients] == [p.shape for p in agent.parameters]
