"""Agents on a real GPU; run with `make test-gpu` on a machine that has one."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from agents import (
    AGENTS,
    OBJECTIVES,
    OUR_AGENTS,
    SB3_AGENTS,
    OverlappedSampler,
    Sampler,
    build_policy,
    make_objectives,
    observation_specs,
)
from agents.inference import InferencePolicy
from agents.sb3 import SB3Sampler
from envs import EnvConfig, SharedVectorEnv
from envs.sb3 import SharedVecEnv
from perception import ENCODERS, MEMORIES, VectorSpec
from tests.agents.synthetic import (
    IMAGE,
    make_draws,
    make_obs,
    make_rollout,
    moved,
    side_by_side,
    small_config,
    taught,
)
from tests.agents.toy import LocalEnvs

pytestmark = pytest.mark.gpu
CUDA = torch.device("cuda")
STEPS, NUM_ENVS = 8, 4
SPECS = {"screen": IMAGE, "variables": VectorSpec(size=3)}
CPU = torch.device("cpu")


def make_policy(device=CUDA, encoder="nature", memory="none", **options):
    torch.manual_seed(0)
    space = LocalEnvs("CartPole-v1", 1).single_action_space
    return build_policy(SPECS, space, small_config(encoder, memory), device=device, **options)


def make_collector(agent, memory, inference="eager", overlap=False):
    kind, learner = AGENTS[agent]
    config = kind(rollout_length=16, normalize_obs=True, normalize_returns=True)
    envs = LocalEnvs("CartPole-v1", 4, 2)
    torch.manual_seed(0)
    policy = build_policy(
        observation_specs(envs.single_observation_space, {}),
        envs.single_action_space,
        small_config(memory=memory),
        normalize_obs=True,
        device=CUDA,
    )
    learning = learner(policy, config, num_envs=4, total_updates=4)
    sampler = Sampler(
        envs, policy, rollout_length=16, seed=0, num_buffers=1 + overlap, inference=inference
    )
    return learning, OverlappedSampler(sampler) if overlap else sampler


@pytest.mark.parametrize("overlap", [False, True])
@pytest.mark.parametrize("memory", MEMORIES)
@pytest.mark.parametrize("name", OUR_AGENTS)
def test_rollouts_are_collected_and_learned_from(name, memory, overlap):
    agent, collector = make_collector(name, memory, overlap=overlap)
    before = [parameter.clone() for parameter in agent.policy.parameters()]
    for _ in range(4):
        collected = collector.collect(agent.num_updates)
        tensors = collected.rollout.tensors().values()
        assert {tensor.device.type for tensor in tensors} == {"cuda"}
        metrics = agent.update(collected.rollout, version=collected.version)
    collector.close()
    assert all(math.isfinite(value) for value in metrics.values())
    assert any((a != b).any() for a, b in zip(before, agent.policy.parameters(), strict=True))
    assert {parameter.device.type for parameter in agent.policy.parameters()} == {"cuda"}


@pytest.mark.parametrize("inference", ["cuda-graph", "compiled"])
@pytest.mark.parametrize("memory", MEMORIES)
@pytest.mark.parametrize("encoder", ENCODERS)
def test_every_kind_of_inference_makes_the_same_decisions(encoder, memory, inference):
    if inference == "compiled" and (encoder, memory) not in (("nature", "none"), ("nature", "gru")):
        pytest.skip("compiling takes long; two are enough")
    policy = make_policy(encoder=encoder, memory=memory, normalize_obs=True)
    eager, other = InferencePolicy(policy), InferencePolicy(policy, inference)
    obs = {name: part.to(CUDA) for name, part in make_obs(SPECS, STEPS, NUM_ENVS).items()}
    draws = make_draws(policy.action_space, STEPS, NUM_ENVS).to(CUDA)
    starts = torch.zeros(STEPS, NUM_ENVS, dtype=torch.bool, device=CUDA)
    starts[4, 1] = True
    state = policy.initial_state(NUM_ENVS)
    now = {name: part[0] for name, part in obs.items()}
    other.prepare(now, state, starts[0], draws[0])
    for version in range(2):
        with torch.no_grad():  # The graph must read the new weights.
            for parameter in policy.parameters():
                parameter.add_(0.05 * version)
        eager.take_weights()
        other.take_weights()
        for t in range(STEPS):
            now = {name: part[t] for name, part in obs.items()}
            expected = eager.act(now, state, starts[t], draws[t])
            found = other.act(now, state, starts[t], draws[t])
            for one, another in zip(found, expected, strict=True):
                torch.testing.assert_close(one, another, rtol=1e-3, atol=1e-3)
            state = expected.memory_state


@pytest.mark.parametrize("memory", ["none", "lstm"])
def test_a_captured_graph_collects_the_same_rollout(memory):
    rollouts = []
    for inference in ("eager", "cuda-graph"):
        _, sampler = make_collector("ppo", memory, inference)
        rollouts.append(sampler.collect().rollout.tensors())
        sampler.close()
    for name, part in rollouts[0].items():
        torch.testing.assert_close(part, rollouts[1][name], rtol=1e-4, atol=1e-4, msg=name)


@pytest.mark.parametrize("memory", MEMORIES)
@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("name", OUR_AGENTS)
def test_an_update_equals_that_on_the_cpu(name, encoder, memory):
    policies = [make_policy(device, encoder, memory) for device in (CPU, CUDA)]
    collected = make_rollout(policies[0], STEPS, NUM_ENVS, noise=0.1)
    before = [parameter.clone() for parameter in policies[0].parameters()]
    torch.backends.cudnn.allow_tf32 = False
    for policy in policies:
        kind, learner = OUR_AGENTS[name]
        agent = learner(policy, kind(learning_rate=1e-3), num_envs=NUM_ENVS, total_updates=1)
        torch.manual_seed(1)
        agent.update(moved(collected, policy.device))
    furthest = 0.0
    for old, cpu, gpu in zip(before, *(p.parameters() for p in policies), strict=True):
        torch.testing.assert_close(gpu.cpu(), cpu, rtol=0, atol=1e-4)
        assert gpu.grad.stride() == gpu.stride()
        furthest = max(furthest, (cpu - old).abs().max().item())
    assert furthest > 5e-4


@pytest.mark.parametrize(
    ("name", "encoder", "memory"), side_by_side(OUR_AGENTS, ENCODERS, MEMORIES)
)
def test_updates_with_captured_gradients_equal_eager_ones(name, encoder, memory):
    torch.backends.cudnn.allow_tf32 = False
    policies, metrics = [], []
    for captured in (False, True):
        policy = make_policy(encoder=encoder, memory=memory)
        kind, learner = OUR_AGENTS[name]
        options = {"num_epochs": 2, "minibatch_size": 24} if name == "ppo" else {}
        config = kind(learning_rate=1e-3, **options)
        agent = learner(policy, config, num_envs=NUM_ENVS, total_updates=4)
        if captured:
            agent.capture_gradients()
        torch.manual_seed(1)
        for _ in range(3):
            collected = make_rollout(make_policy(CPU, encoder, memory), STEPS, NUM_ENVS, noise=0.1)
            metrics.append(agent.update(moved(collected, policy.device)))
        policies.append(policy)
    for eager, graphed in zip(*(policy.parameters() for policy in policies), strict=True):
        torch.testing.assert_close(graphed, eager, rtol=0, atol=2e-4)
        assert graphed.grad.stride() == graphed.stride()
    for eager, graphed in zip(metrics[:3], metrics[3:], strict=True):
        assert graphed == pytest.approx(eager, rel=1e-2, abs=1e-3)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_an_update_with_an_objective_equals_that_on_the_cpu(name):
    policies = [make_policy(device) for device in (CPU, CUDA)]
    targets = ("HEALTH", "ENEMY_IN_VIEW", "DEPTH_0_0", "MONSTER_IN_VIEW_0")
    collected = make_rollout(policies[0], STEPS, NUM_ENVS, targets=targets)
    torch.backends.cudnn.allow_tf32 = False
    kind, learner = OUR_AGENTS["a2c"]
    heads = []
    for policy in policies:
        torch.manual_seed(1)
        objectives = make_objectives(policy, {name: OBJECTIVES[name][0](coef=1.0)}, targets)
        taught(objectives, policy, NUM_ENVS)
        config = kind(learning_rate=1e-3)
        agent = learner(policy, config, num_envs=NUM_ENVS, total_updates=1, objectives=objectives)
        agent.update(moved(collected, policy.device))
        assert {parameter.device.type for parameter in agent.parameters} == {policy.device.type}
        heads.append(agent.parameters)
    for cpu, gpu in zip(*heads, strict=True):
        torch.testing.assert_close(gpu.cpu(), cpu, rtol=0, atol=1e-3)


@pytest.mark.parametrize("on_gpu", [False, True])
def test_environments_may_return_tensors(on_gpu):
    rollouts = []
    for as_array in (np.asarray, lambda array: torch.tensor(array, device=CUDA if on_gpu else CPU)):
        envs = LocalEnvs("CartPole-v1", 4, 2, as_array=as_array)
        torch.manual_seed(0)
        specs = observation_specs(envs.single_observation_space, {})
        policy = build_policy(specs, envs.single_action_space, small_config(), device=CUDA)
        sampler = Sampler(envs, policy, rollout_length=16, seed=0)
        rollouts.append(sampler.collect().rollout.tensors())
        sampler.close()
    for name, part in rollouts[0].items():
        assert rollouts[1][name].device.type == "cuda"
        torch.testing.assert_close(part, rollouts[1][name], rtol=1e-4, atol=1e-4, msg=name)


@pytest.mark.parametrize("name", SB3_AGENTS)
def test_stable_baselines3s_agents_learn_on_the_gpu(name):
    kind, learner = AGENTS[name]
    envs = SharedVectorEnv(EnvConfig(env="CartPole-v1"), 4, 1)
    try:
        policy = build_policy(
            observation_specs(envs.single_observation_space, envs.metadata),
            envs.single_action_space,
            small_config(memory=learner.memory),
            device=CUDA,
        )
        config = kind(rollout_length=16, normalize_returns=True)
        agent = learner(policy, config, num_envs=4, total_updates=2)
        sampler = SB3Sampler(envs, SharedVecEnv(envs), agent, seed=0)
        for _ in range(2):
            metrics = agent.update(sampler.collect().rollout)
        assert all(math.isfinite(value) for value in metrics.values())
        assert {parameter.device.type for parameter in policy.parameters()} == {"cuda"}
    finally:
        envs.close()
